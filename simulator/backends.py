"""Where replications run: in this process, on each core of this machine, or on a Dask or Ray cluster.

A backend plays tasks and hands the results over in the order of the tasks, so that a rule that looks at them one by
one decides the same whatever ran at the same time. Tasks share nothing: what they need travels with them. All but
`serial` are joblib's, so that one path serves them.

Results are the same to the bit wherever they were computed: a worker of a cluster whose sources are not ours refuses.
"""

import atexit
import logging
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import chain, takewhile
from typing import Any, Final, Protocol, TypeVar

from broker.errors import ConfigError
from simulator.cache import code_version

Task = TypeVar("Task")
Result = TypeVar("Result")
CONNECT_S: Final = 10
"""How long a cluster may take to answer."""
WORKERS_S: Final = 60
"""How long a cluster may be without any worker: those that died are started again."""
DEATHS_MAX: Final = 1
"""Further workers that a task may take with it before it is given up: a simulation does the same each time."""


class BackendError(ConfigError):
    """Replications cannot run where they should: a package is missing, a cluster does not answer, a worker died."""

    reason = "BACKEND"


class Backend(Protocol):
    """Plays tasks. `at_once` is how many at the same time."""

    at_once: int

    def play(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Generator[Result, None, None]:
        """The results, in the order of the tasks, each as soon as it and all before it are there.

        An exception of a task is raised in place of its result. Whoever stops listening closes the iterator.

        Raises:
            BackendError: a worker process died, or cannot play for us.
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
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        if self.at_once == 1 or len(tasks) < 2:
            yield from map(function, tasks)
            return
        with _dying(TerminatedWorkerError):
            yield from _as_they_come(_parallel("loky", self.at_once, return_as="generator"), function, tasks)


class Dask:
    """On the workers of a Dask cluster: one of our own with a process for each of `workers`, or that at `scheduler`.

    Raises:
        BackendError: the packages of the extra `cluster` are not installed, or nobody answers at `scheduler`.
    """

    def __init__(self, workers: int = 0, scheduler: str = "") -> None:
        distributed = _package("distributed", extra="cluster")
        self._cluster = None if scheduler else _local_dask(workers or os.cpu_count() or 1)
        try:
            self._client = distributed.Client(scheduler or self._cluster, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise BackendError(f"no Dask scheduler answers at {scheduler}: {error}") from error
        atexit.register(self.close)
        self._deaths = (distributed.KilledWorker, TimeoutError)
        self.address: str = self._client.scheduler.address
        self.at_once: int = sum(self._client.ncores().values())
        if not self.at_once:
            self.close()
            raise BackendError(f"the Dask scheduler at {scheduler} has no workers: start some with `dask worker`")

    def play(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Generator[Result, None, None]:
        with _dying(*self._deaths):
            joblib = _parallel(_heard_dask(self._client), self.at_once, return_as="generator")
            yield from _as_they_come(joblib, function, tasks, code_version())

    def close(self) -> None:
        """End the cluster if it is our own, with its workers; else leave it."""
        atexit.unregister(self.close)
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()


class Ray:
    """On the workers of a Ray cluster: one of our own with `workers`, or that at `address`.

    Raises:
        BackendError: the package of the extra `ray` is not installed, or nobody answers at `address`.
    """

    def __init__(self, workers: int = 0, address: str = "") -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read once, when Ray is imported
        self._ray = _package("ray", extra="ray")
        named: dict[str, object] = {"num_cpus": workers or os.cpu_count() or 1, "include_dashboard": False}
        try:
            with _deaf():
                self._ray.init(
                    **({"address": address} if address else named), log_to_driver=False, logging_level="error"
                )
        except (OSError, ValueError, RuntimeError) as error:
            raise BackendError(f"no Ray cluster answers at {address}: {error}") from error
        atexit.register(self.close)
        self._joblib: Any = None
        self._deaths = (self._ray.exceptions.RayActorError,)
        self.at_once = int(self._ray.cluster_resources().get("CPU", 0)) or 1

    def play(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Generator[Result, None, None]:
        if self._joblib is None:  # kept from then on: its workers take seconds to start
            where = _package("ray.util.joblib.ray_backend", extra="ray").RayBackend()
            self._joblib = _parallel(where, max(2, self.at_once)).__enter__()
        # It knows whole lists only, so it is given as many tasks as run at the same time.
        with _dying(*self._deaths):
            for first in range(0, len(tasks), self.at_once):
                yield from self._joblib(_calls(function, tasks[first : first + self.at_once], code_version()))

    def close(self) -> None:
        """Leave the cluster; one of our own ends with its workers."""
        atexit.unregister(self.close)
        if self._joblib is not None:
            self._joblib.__exit__(None, None, None)
        self._ray.shutdown()


# --- joblib ---------------------------------------------------------------------------------------------------------


def _parallel(where: Any, at_once: int, **named: object) -> Any:
    from joblib import Parallel, parallel_config

    with parallel_config(backend=where, n_jobs=at_once):
        return Parallel(batch_size=1, pre_dispatch="n_jobs", max_nbytes=None, **named)


def _calls(function: Callable[[Task], Result], tasks: Iterable[Task], sources: str = "") -> Iterator[Any]:
    from joblib import delayed

    return (delayed(_play_in_worker)(function, task, sources) for task in tasks)


def _as_they_come(
    joblib: Any, function: Callable[[Task], Result], tasks: Sequence[Task], sources: str = ""
) -> Generator[Result, None, None]:
    wanted = True
    results = joblib(_calls(function, takewhile(lambda _: wanted, tasks), sources))
    try:
        for result in chain(results):  # a chain cannot be closed; `results` itself would be, before we hear of it
            if isinstance(result, _Raised):
                raise result.error
            yield result
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


@contextmanager
def _dying(*deaths: type[BaseException]) -> Iterator[None]:
    """Say in words that a worker is no more."""
    try:
        yield
    except deaths as error:
        raise BackendError(f"a worker process died while it played a replication (memory?): {error}") from error


def _play_in_worker(function: Callable[[Task], Result], task: Task, sources: str) -> "Result | _Raised":
    """Ctrl-C reaches the whole process group; only the parent answers it, and then stops the workers."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sources not in ("", code_version()):
        raise BackendError("a worker of the cluster has another simulator, Python or numpy than this process")
    try:
        return function(task)
    except Exception as error:  # noqa: BLE001 - joblib would raise it at once, before the results that come before it
        return _Raised(error)


@dataclass(slots=True, frozen=True)
class _Raised:
    """What a task has raised, on its way to its place among the results."""

    error: Exception


# --- clusters -------------------------------------------------------------------------------------------------------


def _package(name: str, *, extra: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        text = f"`{name}` is not installed: it is in the extra `{extra}`, pip install 'jobmesh[{extra}]'"
        raise BackendError(text) from error


def _local_dask(workers: int) -> Any:
    _package("dask", extra="cluster").config.set({"distributed.scheduler.allowed-failures": DEATHS_MAX})
    with _deaf():
        return _package("distributed", extra="cluster").LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        )


def _heard_dask(client: Any) -> Any:
    """Joblib's backend for Dask, which tells nobody of a task that died with its worker: joblib would wait for ever."""
    from joblib._dask import DaskDistributedBackend

    backend = DaskDistributedBackend(client=client, wait_for_workers_timeout=WORKERS_S)
    submit, retrieve = backend.submit, backend.retrieve_result_callback

    def submitted(call: Any, callback: Any) -> Any:
        future = submit(call, callback)
        future.add_done_callback(lambda done: callback(done) if done.exception() is not None else None)
        return future

    def retrieved(result: Any) -> Any:
        return result.result() if isinstance(result, Future) else retrieve(result)

    backend.submit, backend.retrieve_result_callback = submitted, retrieved
    return backend


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes that are started meanwhile do not hear Ctrl-C: who started them ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


BACKENDS: Final = ("serial", "loky", "dask", "ray")


def backend_named(name: str, workers: int = 0, scheduler: str = "") -> Backend:
    """The backend of `--backend`, with `workers` processes (0: one for each core), or that of a cluster elsewhere.

    Raises:
        BackendError: it cannot be had.
    """
    if scheduler and name not in ("dask", "ray"):
        raise BackendError(
            f"`--scheduler {scheduler}` names a cluster: say `--backend dask` or `--backend ray` with it"
        )
    if scheduler and workers:
        raise BackendError("`--workers` starts a cluster, `--scheduler` uses one: say one of the two")
    if name == "dask":
        return Dask(workers, scheduler)
    if name == "ray":
        return Ray(workers, scheduler)
    if name not in BACKENDS:
        raise BackendError(f"backend {name!r} is not known; there are {', '.join(BACKENDS)}")
    return Serial() if name == "serial" else Loky(workers)
