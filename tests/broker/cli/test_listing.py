from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from broker.app import Broker
from broker.cli.listing import CLEAR, Listing
from tests.broker.cli.conftest import Mesh

WAIT_S = 20.0
SEEN_S = 1.0
NOISE_S = 1.0
"""What a machine that is busy with other things may add."""


@contextmanager
def watching(live: Broker, *words: str) -> Iterator[subprocess.Popen[str]]:
    """`mesh` with these words as a process of its own."""
    command = [sys.executable, "-m", "broker.cli", *words, "--api", live.api_address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.req("R07")
def test_search_and_filter_go_together() -> None:
    assert Listing().where == ""
    assert Listing(filter="status = active").where == "status = active"
    assert Listing(search='the "best"').where == '"the \\"best\\""'
    assert Listing(search="a", filter="b = c").where == '"a" AND b = c'


@pytest.mark.req("R07", "R08")
def test_lists_are_searched_filtered_and_ordered(live_mesh: Mesh) -> None:
    for number in (1, 2, 10):
        live_mesh("agents", "add", f"a{number}", "--description", "old" if number > 1 else "new")
        live_mesh("agents", "update", f"a{number}", "--rank", str(number))

    def ids(*words: str) -> list[str]:
        return [agent["agent"] for agent in live_mesh("agents", "list", "-o", "json", *words).json]

    assert ids("--order-by", "rank desc") == ["a10", "a2", "a1"]
    assert ids("--search", "OLD", "--order-by", "rank") == ["a2", "a10"]
    assert ids("--search", "a1", "--filter", "description : old") == ["a10"]
    assert live_mesh("agents", "list", "--filter", "status = active").words == "No agents.\n"


@pytest.mark.parametrize("collection", ["groups", "environments", "organizations", "agents"])
def test_filter_and_order_that_are_wrong_say_where_and_what_there_is(collection: str, live_mesh: Mesh) -> None:
    filtered = live_mesh(collection, "list", "--filter", "colour = red")
    assert (filtered.code, "position 1: there is no field 'colour' here; fields: name" in filtered.words) == (2, True)
    ordered = live_mesh(collection, "list", "--order-by", "colour")
    assert (ordered.code, "cannot order by 'colour'; fields: name" in ordered.words) == (2, True)


@pytest.mark.e2e
@pytest.mark.req("R15", "R44")
@pytest.mark.parametrize(
    ("collection", "make", "noun"),
    [("groups", ("groups", "create", "new"), "group"), ("agents", ("agents", "add", "new"), "agent")],
)
def test_who_watches_a_list_sees_what_is_new_within_a_second(
    live: Broker, live_mesh: Mesh, collection: str, make: tuple[str, ...], noun: str
) -> None:
    with watching(live, collection, "list", "--watch", "-o", "json") as process:
        first = [view[noun] for view in json.loads(line_of(process))]
        assert "new" not in first
        live_mesh(*make)
        made_s = time.monotonic()
        then = [view[noun] for view in json.loads(line_of(process))]
        assert time.monotonic() - made_s < SEEN_S + NOISE_S
        assert then == sorted([*first, "new"])


@pytest.mark.e2e
def test_list_that_is_watched_is_written_again_when_it_has_changed_only(live: Broker, live_mesh: Mesh) -> None:
    with watching(live, "groups", "list", "--watch") as process:
        assert line_of(process).startswith("GROUP")
        assert line_of(process).startswith("default")
        live_mesh("groups", "create", "new")
        assert [line_of(process).split()[0] for _ in range(3)] == ["GROUP", "default", "new"]
        process.terminate()
        assert process.stdout is not None
        assert process.stdout.read() == ""


def test_screen_is_cleared_without_what_the_terminal_keeps() -> None:
    assert CLEAR.startswith("\x1b[H")
    assert "3J" not in CLEAR


def test_order_by_a_column_is_by_the_field_behind_it() -> None:
    columns = {"busy": "live"}
    assert Listing(order_by="busy desc, rank").ordered(columns) == "live desc, rank"
    assert Listing().ordered(columns) == ""


@pytest.mark.parametrize("column", ["agent", "busy desc", "heard", "status"])
def test_agents_are_ordered_by_the_columns_that_are_shown(live_mesh: Mesh, column: str) -> None:
    live_mesh("agents", "add", "a1")
    ended = live_mesh("agents", "list", "--order-by", column)
    assert (ended.code, ended.lines[1].split()[0]) == (0, "a1"), ended.words
