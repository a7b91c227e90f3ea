"""One job, two agents and one fault in every order there is: no order breaks a promise, and each ends.

`mesh-sim explore` plays the same and prints the steps that break something.
"""

from __future__ import annotations

import json
from collections import Counter
from functools import cache

import pytest

from simulator.cli import app
from simulator.fuzz import copies, enumeration
from simulator.fuzz.bounds import Bounds, Choice
from simulator.fuzz.broken import BrokenPromiseError
from simulator.fuzz.digest import digest
from simulator.fuzz.enumeration import LARGER, SMALL
from simulator.fuzz.search import Found, Search, search
from simulator.fuzz.small import SmallMesh
from tests.meta import schemas
from tests.mutants import all_mutants

CUT = Bounds(exclusive=True, cuts=1)
CRASH = Bounds(crashes=1)
BROKER = Bounds(broker_crashes=1)
FOUND = {
    "no-lease": CUT,
    "no-fencing": CUT,
    "fence-without-stop": CUT,
    "hello-names-nothing": CUT,
    "acknowledge-before-commit": BROKER,
}
"""Defects that small worlds find by the promise that they name, and in which."""
searched = cache(search)


@pytest.mark.parametrize("bounds", SMALL, ids=lambda bounds: bounds.words)
def test_mesh_keeps_its_promises_in_every_order(bounds: Bounds) -> None:
    found = searched(bounds)
    assert (found.broken, found.text, found.path) == ("", "", [])
    assert found.is_complete
    assert found.ends > 0


def test_every_way_a_fault_can_end_is_met_in_some_order() -> None:
    happened: Counter[str] = Counter()
    for bounds in SMALL:
        happened += searched(bounds).happened
    assert happened.keys() >= {
        *("queued: agent_lost", "queued: not_listed", "running: adopted", "attempt incarnation_ended"),
        *("queued: accept_timeout", "queued: fenced", "held: stop_unconfirmed", "queued: drain_requeue"),
        *("cancelled: cancelled", "refused: superseded", "killed before commit", "killed after commit"),
    }


@pytest.mark.parametrize("name", FOUND)
def test_search_finds_a_mutant_and_tells_the_steps(name: str) -> None:
    mutant = all_mutants()[name]
    with mutant.applied():
        found = search(FOUND[name])
        assert found.broken == mutant.promise, found.text
        assert not found.is_complete
        with pytest.raises(BrokenPromiseError, match=mutant.promise):
            play_again(found)


def play_again(found: Found) -> None:
    """The steps that break something, on a mesh of their own."""
    mesh = SmallMesh(found.bounds)
    mesh.connect()
    for choice in found.path:
        mesh.do(choice)
    mesh.judge_end()


def ways_on(mesh: SmallMesh) -> Counter[tuple[str, bytes]]:
    """What can happen next, and which state it leads to. A timer of the broker that wakes it early changes nothing."""
    kept = copies.kept(mesh)
    found: Counter[tuple[str, bytes]] = Counter()
    for choice in mesh.choices():
        other = copies.restored(kept)
        other.do(choice)
        if choice.name == "tick" and other.is_due:
            other.do(Choice("timer"))
        found[choice.name, digest(other)] += 1
    return found


def test_states_of_one_digest_go_on_alike() -> None:
    """Else the search would leave out what follows from the one that it met second."""
    mesh = SmallMesh(CRASH)
    mesh.connect()
    ways: dict[bytes, Counter[tuple[str, bytes]]] = {}
    again, waiting = 0, [copies.kept(mesh)]
    while waiting and again < 150:
        kept = waiting.pop()
        mesh = copies.restored(kept)
        key, choices, is_done = digest(mesh), mesh.choices(), mesh.is_done
        on = ways_on(mesh)
        if key in ways:
            again += 1
            assert ways[key] == on
            continue
        ways[key] = on
        for choice in () if is_done else choices:
            mesh = copies.restored(kept)
            mesh.do(choice)
            waiting.append(copies.kept(mesh))
    assert again > 100


def test_search_stops_at_the_states_that_it_was_given() -> None:
    found = Search(CRASH, states_max=50).run()
    assert found.states == 50
    assert not found.is_complete


def test_command_counts_the_states_and_says_that_it_is_complete(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(enumeration, "SMALL", (Bounds(cancels=1),))
    assert app(["explore", "--workers", "1"], result_action="return_value") == 0
    said = capsys.readouterr().out
    assert "every order was looked at" in said
    assert app(["explore", "--workers", "1", "--json"], result_action="return_value") == 0
    document = json.loads(capsys.readouterr().out)
    schemas.validate("explore", document)
    assert document["complete"]
    assert f"{document['states']:,} states, {document['transitions']:,} transitions" in said


def test_command_tells_the_steps_that_break_something(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(enumeration, "SMALL", (Bounds(cancels=1),))
    assert app(["explore", "--mutant", "double-reply", "--workers", "1"], result_action="return_value") == 3
    said = capsys.readouterr().out
    assert "broken: inv08" in said
    assert "1. submit" in said


def test_command_refuses_a_mutant_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["explore", "--mutant", "lost-wakeup"], result_action="return_value") == 2
    assert "lost-wake-up" in capsys.readouterr().err


def test_command_refuses_a_file_that_cannot_be_written_before_it_looks(capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["explore", "--out", "no/such/folder/found.json"], result_action="return_value") == 2
    assert "there is no folder no/such/folder" in capsys.readouterr().err


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("bounds", LARGER, ids=lambda bounds: bounds.words)
def test_mesh_keeps_its_promises_in_every_order_of_two_faults(bounds: Bounds) -> None:
    found = search(bounds)
    assert (found.broken, found.text, found.path) == ("", "", [])
    assert found.is_complete
