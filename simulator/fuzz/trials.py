"""Mutants: whether a campaign finds the deliberate defects that somebody put into the code under test.

A mutants module has `all_mutants() -> dict[str, Mutant]`; a Mutant has `name`, `layer`, `promise` (what must find it),
`what` (in words) and `applied()`, a context manager in which the defect is there.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Protocol

from simulator.backends import Backend
from simulator.fuzz.campaign import Violation, course_of_seed, play
from simulator.units import nearest


class Mutant(Protocol):
    """One deliberate defect."""

    @property
    def name(self) -> str: ...

    @property
    def layer(self) -> str: ...

    @property
    def promise(self) -> str: ...

    @property
    def what(self) -> str: ...

    def applied(self) -> AbstractContextManager[None]: ...


@dataclass(slots=True, frozen=True)
class Trial:
    """What became of one mutant: by which seed it was found, as what; None: it was not.

    `others` are other promises that it broke before, by their names.
    """

    name: str
    layer: str
    promise: str
    what: str
    found: Violation | None
    others: tuple[str, ...]

    @property
    def is_killed(self) -> bool:
        """Whether the promise that it names has found it."""
        return self.found is not None

    @property
    def document(self) -> dict[str, object]:
        """For programs."""
        return {
            "name": self.name,
            "killed": self.is_killed,
            "seed": None if self.found is None else self.found.seed,
            "invariant": self.promise,
            "layer": self.layer,
        }

    @property
    def words(self) -> str:
        """For people."""
        if self.found is None:
            also = f"; broken instead: {', '.join(self.others)}" if self.others else ""
            return f"SURVIVED  {self.name}: {self.what}; {self.promise} did not find it{also}"
        return f"found     {self.name}: {self.promise} in seed {self.found.seed}"


def mutants_of(module: str) -> Mapping[str, Mutant]:
    """All mutants of a module, by their names.

    Raises:
        ValueError: there is no such module, or it has none.
    """
    here = str(Path.cwd())
    if here not in sys.path[:1]:  # the tree where we stand, before packages of the same name
        sys.path.insert(0, here)
    try:
        found: Mapping[str, Mutant] = import_module(module).all_mutants()
    except ModuleNotFoundError as error:
        text = f"--mutants {module}: {error}; mutants are in the source tree: run this at its top, or name a module"
        raise ValueError(text) from error
    return found


def tried(names: list[str], module: str, seeds: range, backend: Backend) -> Iterator[Trial]:
    """Try mutants one after the other, each until it is found or the seeds are at their end; in the order of `names`.

    Raises:
        ValueError: one of the names is not known.
    """
    known = mutants_of(module)
    for name in names:
        if name not in known:
            raise ValueError(f"there is no mutant `{name}`; {nearest(name, known)}")
    return backend.play(partial(_tried, module, seeds), names)


def _tried(module: str, seeds: range, name: str) -> Trial:
    mutant = mutants_of(module)[name]
    others: dict[str, None] = {}
    found = None
    with mutant.applied():
        for seed in seeds:
            _, violation = play(course_of_seed(seed))
            if violation is None:
                continue
            if violation.promise == mutant.promise:
                found = violation
                break
            others[violation.promise] = None
    return Trial(name, mutant.layer, mutant.promise, mutant.what, found, tuple(others))
