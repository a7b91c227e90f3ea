"""Where replications run: in this process, or one on each core.

A backend plays tasks and hands the results over in the order of the tasks, so that a rule that looks at them one by
one decides the same whatever ran at the same time. Tasks share nothing: what they need travels with them.
"""

import os
import signal
import warnings
from collections import deque
from collections.abc import Callable, Generator, Sequence
from itertools import chain, takewhile
from typing import Final, Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


class Backend(Protocol):
    """Plays tasks. `at_once` is how many at the same time."""

    at_once: int

    def play(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Generator[Result, None, None]:
        """The results, in the order of the tasks, each as soon as it and all before it are there.

        An exception of a task is raised in place of its result. Whoever stops listening closes the iterator.
        """
        ...


class Serial:
    """One after the other, in this process."""

    at_once = 1

    def play(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Generator[Result, None, None]:
        yield from map(function, tasks)


class Loky:
    """On `at_once` worker processes that are kept between calls (joblib's loky). `function` is a module's own."""

    def __init__(self, at_once: int = 0) -> None:
        self.at_once = at_once or os.cpu_count() or 1

    def play(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Generator[Result, None, None]:
        from joblib import Parallel, delayed

        if self.at_once == 1 or len(tasks) < 2:
            yield from map(function, tasks)
            return
        wanted = True
        parallel = Parallel(
            self.at_once, backend="loky", return_as="generator", batch_size=1, pre_dispatch="n_jobs", max_nbytes=None
        )
        results = parallel(delayed(_play_in_worker)(function, task) for task in takewhile(lambda _: wanted, tasks))
        try:
            yield from chain(results)  # a chain cannot be closed; `results` itself would be, before we hear of it
        except GeneratorExit:
            # Nobody listens any more: nothing new starts, and what is under way ends, so that the workers live on.
            wanted = False
            deque(results, maxlen=0)
            raise
        finally:
            _abandon(results)


def _abandon(results: Generator[Result, None, None]) -> None:
    """Stop the workers if they still work (Ctrl-C, or a task that failed): joblib warns of that, it is meant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        results.close()


def _play_in_worker(function: Callable[[Task], Result], task: Task) -> Result:
    """Ctrl-C reaches the whole process group; only the parent answers it, and then stops the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return function(task)


BACKENDS: Final = ("serial", "loky")


def backend_named(name: str, at_once: int = 0) -> Backend:
    """The backend of `--backend`; `at_once` 0 takes every core.

    Raises:
        ValueError: there is none of that name.
    """
    if name == "serial":
        return Serial()
    if name == "loky":
        return Loky(at_once)
    raise ValueError(f"backend {name!r} is not known; there are {', '.join(BACKENDS)}")
