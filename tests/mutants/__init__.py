"""Deliberate defects, put into the code under test from outside: the product holds none.

Each names the promise or invariant that must find it. `mesh-sim fuzz --mutant all` plays them all.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from simulator.fuzz.broken import CRASH


@dataclass(frozen=True)
class Mutant:
    """One defect: `make` turns the original at `owner.name` into the defective one.

    `promise` is what finds it (as in `simulator.fuzz.broken`), `layer` where it sits, `what` what it is in words.
    `owner` may be a mapping, `name` then is a key of it.
    """

    name: str
    layer: str
    promise: str
    what: str
    owner: Any
    member: Any
    make: Callable[[Any], Any]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The defect is in the code, until the end of the block."""
        is_mapping = isinstance(self.owner, dict)
        original = self.owner[self.member] if is_mapping else self.owner.__dict__[self.member]
        self._put(self.make(original))
        try:
            yield
        finally:
            self._put(original)

    def _put(self, value: Any) -> None:
        if isinstance(self.owner, dict):
            self.owner[self.member] = value
        else:
            setattr(self.owner, self.member, value)


def all_mutants() -> dict[str, Mutant]:
    """Every mutant by its name."""
    from tests.mutants import dispatcher, driver, operators, session

    found = (*driver.MUTANTS, *dispatcher.MUTANTS, *operators.MUTANTS, *session.MUTANTS)
    assert len({one.name for one in found}) == len(found), "two mutants of one name"
    assert all(one.promise != CRASH for one in found), "a mutant that crashes may have crashed by itself"
    return {one.name: one for one in found}
