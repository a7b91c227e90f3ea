"""Requests that make something: once, whatever becomes of the answer, of the caller and of the broker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from broker.control.acts import AgentChange
from broker.control.directory import AgentTraits
from broker.control.requests import Asked
from broker.control.resources import Resources
from broker.dispatch.model import GroupNo
from broker.dispatch.rows import RequestRow
from broker.errors import ConflictError, NotFoundError
from broker.store import base
from tests.broker.control.running import Control, running

FIRST = Asked("a", b"1")
Make = Callable[[Resources, str, Asked], Awaitable[Any]]
MAKES: dict[str, Make] = {
    "organisation": lambda resources, name, asked: resources.create_organisation(name, "", asked=asked),
    "group": lambda resources, name, asked: resources.create_group("default", name, "", asked=asked),
    "environment": lambda resources, name, asked: resources.create_environment("default", name, "", asked=asked),
    "agent": lambda resources, name, asked: resources.create_agent(
        "default", "default", name, "Agent Seven", traits=AgentTraits(3, ("zone=north",)), asked=asked
    ),
}


async def begin(control: Control) -> None:
    await control.resources.create_organisation("default", "")
    await control.resources.create_group("default", "default", "")


def sizes(control: Control) -> list[int]:
    directory = control.directory
    agents = control.resources.agents("default")
    return [len(rows) for rows in (directory.organisations(), directory.groups("default"), agents)]


@pytest.mark.parametrize("kind", MAKES)
async def test_request_again_is_answered_with_what_it_made_also_after_a_restart(tmp_path: Path, kind: str) -> None:
    make = MAKES[kind]
    async with running(tmp_path) as control:
        await begin(control)
        first = await make(control.resources, "seven", FIRST)
        made = sizes(control)
        assert await make(control.resources, "seven", FIRST) == first
        together = await asyncio.gather(*(make(control.resources, "eight", Asked("b", b"2")) for _ in range(3)))
        assert together[0] == together[1] == together[2] != first
    async with running(tmp_path) as control:
        again = await make(control.resources, "seven", FIRST)
        assert again[0] == first[0]  # the row or the name: what is not durable of an agent is another object
        assert [many - few for few, many in zip(made, sizes(control), strict=True)] in ([0, 0, 0], *_one_more(kind))


def _one_more(kind: str) -> list[list[int]]:
    """The other one, that three callers made together."""
    return [[int(kind == one) for one in ("organisation", "group", "agent")]]


@pytest.mark.parametrize("kind", MAKES)
async def test_request_with_other_content_under_the_same_id_is_refused(tmp_path: Path, kind: str) -> None:
    async with running(tmp_path) as control:
        await begin(control)
        await MAKES[kind](control.resources, "seven", FIRST)
        before = sizes(control)
        with pytest.raises(ConflictError) as caught:
            await MAKES[kind](control.resources, "eight", FIRST._replace(digest=b"2"))
        assert caught.value.reason == "REQUEST_ID_REUSED"
        assert sizes(control) == before


async def test_request_that_is_refused_is_not_remembered(tmp_path: Path) -> None:
    async with running(tmp_path) as control:
        await begin(control)
        with pytest.raises(ConflictError, match="exists already"):
            await MAKES["group"](control.resources, "default", FIRST)
        assert (await MAKES["group"](control.resources, "other", FIRST)).row.slug == "other"


async def test_request_that_is_only_checked_is_not_remembered_and_makes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as control:
        await begin(control)
        before = sizes(control)
        for make in MAKES.values():
            await make(control.resources, "seven", FIRST._replace(validate_only=True))
        assert sizes(control) == before
        assert await control.store.find_request(1, FIRST.request_id, 0) is None


async def test_request_id_belongs_to_its_organisation(tmp_path: Path) -> None:
    async with running(tmp_path) as control:
        await begin(control)
        await control.resources.create_organisation("other", "")
        first = await control.resources.create_group("default", "g", "", asked=FIRST)
        second = await control.resources.create_group("other", "h", "", asked=FIRST._replace(digest=b"2"))
        assert first.row.group_no != second.row.group_no


@pytest.mark.parametrize("kind", ["group", "environment", "agent"])
async def test_request_again_makes_nothing_when_what_it_made_was_removed(tmp_path: Path, kind: str) -> None:
    async with running(tmp_path) as control:
        await begin(control)
        await MAKES[kind](control.resources, "seven", FIRST)
        check: dict[str, Any] = {"check": lambda found: None}
        if kind == "agent":
            await control.acts.remove(("default", "default", "seven"), **check)
        else:
            await getattr(control.removals, kind)("default", "seven", **check)
        with pytest.raises(NotFoundError, match="was removed since"):
            await MAKES[kind](control.resources, "seven", FIRST)
        await MAKES[kind](control.resources, "seven", Asked("b", b"1"))  # the name is free for another request


async def test_agent_gets_the_words_that_a_broker_died_before(tmp_path: Path) -> None:
    async with running(tmp_path) as control:
        await begin(control)
        made = RequestRow(1, FIRST.request_id, FIRST.digest, "agent", GroupNo(1), 0, 1 << 60)
        await control.directory.ensure_agent(GroupNo(1), "seven", announced=AgentTraits(3, (), made))
    async with running(tmp_path) as control:
        view = await MAKES["agent"](control.resources, "seven", FIRST)
        assert (view.words.display_name, view.agent.rank) == ("Agent Seven", 3)
        await control.acts.edit(("default", "default", "seven"), AgentChange("Renamed"), check=lambda found: None)
        assert (await MAKES["agent"](control.resources, "seven", FIRST)).words.display_name == "Renamed"


async def test_requests_are_forgotten_after_their_time_and_when_there_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.store.requests.REQUESTS_MAX", 2)
    assert base.REQUESTS_MAX > 1_000
    async with running(tmp_path) as control:
        await begin(control)
        for number in range(4):
            await control.resources.create_group("default", f"g{number}", "", asked=Asked(f"id-{number}", b"1"))
        found = [await control.store.find_request(1, f"id-{number}", 0) for number in range(4)]
        assert [row is not None for row in found] == [False, False, True, True]
        newest = found[-1]
        assert newest is not None
        assert await control.store.find_request(1, "id-3", newest.expires_us) is None
        week_us = newest.expires_us - control.engine.clock.now_us()
        assert abs(week_us - control.engine.policy.keys_us) < 60_000_000
