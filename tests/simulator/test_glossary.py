"""Every figure has one entry in the glossary, and every entry is of a figure."""

from __future__ import annotations

from simulator.glossary import FIGURES, entries_of
from tests.simulator.worlds import play


def test_every_figure_has_one_entry_and_every_entry_its_figure() -> None:
    run = play(
        settle="1 s",
        run="20 s",
        cost={"agent-hour": "0.21 EUR"},
        faults=[{"at": "5 s", "crash": "erp/1", "for": "3 s"}],
    )
    names = {*run.figures, *(name for phase in run.phases for name in phase.figures)}
    entries = {name: entries_of(name) for name in names}
    assert {name: found for name, found in entries.items() if len(found) != 1} == {}
    told = {entry for group in FIGURES.values() for entry in group}
    assert told - {found for [found] in entries.values()} == set()
