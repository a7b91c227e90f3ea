"""Small meshes played in every order: which, and what it came to. `mesh-sim explore` plays them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from typing import Final

from simulator.backends import Backend
from simulator.fuzz.bounds import Bounds
from simulator.fuzz.search import Found, search
from simulator.fuzz.trials import mutants_of
from simulator.units import nearest

SMALL: Final = (
    *(Bounds(exclusive=exclusive, crashes=1) for exclusive in (False, True)),
    *(Bounds(exclusive=exclusive, cuts=1) for exclusive in (False, True)),
    *(Bounds(exclusive=exclusive, silences=1) for exclusive in (False, True)),
    *(Bounds(exclusive=exclusive, drains=1) for exclusive in (False, True)),
    Bounds(cancels=1),
    Bounds(stops=1),
    Bounds(broker_crashes=1),
)
"""One fault each, in all orders."""
LARGER: Final = (
    *(Bounds(exclusive=exclusive, crashes=1, cuts=1) for exclusive in (False, True)),
    *(Bounds(exclusive=exclusive, crashes=1, silences=1) for exclusive in (False, True)),
    *(Bounds(exclusive=exclusive, crashes=1, broker_crashes=1) for exclusive in (False, True)),
    Bounds(exclusive=True, cancels=1, silences=1),
    Bounds(jobs=2, crashes=1),
)
"""Two faults, or two jobs."""


def enumerated(worlds: tuple[Bounds, ...], backend: Backend, mutant: str = "", module: str = "") -> Iterator[Found]:
    """Every order of each world, in the order of `worlds`; with a deliberate defect of a mutants module, if named.

    Raises:
        ValueError: there is no such defect.
    """
    if mutant:
        known = mutants_of(module)
        if mutant not in known:
            raise ValueError(f"there is no mutant `{mutant}`; {nearest(mutant, known)}")
    return backend.play(partial(_searched, mutant, module), worlds)


def _searched(mutant: str, module: str, bounds: Bounds) -> Found:
    with mutants_of(module)[mutant].applied() if mutant else nullcontext():
        return search(bounds)


def document_of(all_found: list[Found], wall_s: float) -> dict[str, object]:
    """For programs."""
    return {
        "worlds": [
            {
                "bounds": asdict(found.bounds),
                "states": found.states,
                "transitions": found.transitions,
                "ends": found.ends,
                "complete": found.is_complete and not found.broken,
                "violations": [
                    {"invariant": found.broken, "text": found.text, "path": [choice.words for choice in found.path]}
                ]
                if found.broken
                else [],
            }
            for found in all_found
        ],
        "states": sum(found.states for found in all_found),
        "transitions": sum(found.transitions for found in all_found),
        "complete": all(found.is_complete and not found.broken for found in all_found),
        "wall_s": round(wall_s, 1),
    }


def words_of(found: Found) -> list[str]:
    """For people."""
    how = "complete" if found.is_complete else "not complete"
    head = f"{found.bounds.words}: {found.states:,} states, {found.transitions:,} transitions, {how}"
    if not found.broken:
        return [head]
    steps = [f"  {number}. {choice.words}" for number, choice in enumerate(found.path, 1)]
    return [head, f"broken: {found.broken}: {found.text}", *steps]
