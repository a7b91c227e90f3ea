"""What operators do with agents, over a real engine and a real store."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from broker.control.acts import ACTOR, AgentChange, AgentPath
from broker.control.resources import AgentView
from broker.control.status import AgentStatus
from broker.dispatch.messages import (
    AgentAdded,
    AgentConnected,
    AttemptAccepted,
    AttemptFinished,
    JobSubmitted,
    SessionClosed,
)
from broker.dispatch.model import (
    Admin,
    Agent,
    AgentNo,
    DrainEnd,
    DrainThen,
    GroupNo,
    OperationPolicy,
    OutcomeStatus,
    SessionId,
)
from broker.dispatch.operators import ALLOWED, INSTEAD, Action, Standing, is_running
from broker.errors import ChangedError, NotFoundError, WrongStateError
from tests.broker.control.running import Control, running

GROUP = GroupNo(1)
PATH = ("default", "default", "a1")
STANDINGS = [(admin, on) for admin in Admin if admin is not Admin.REMOVED for on in (True, False)]
ACTS = (
    Action.DRAIN,
    Action.CANCEL_DRAIN,
    Action.RESUME,
    Action.DISABLE,
    Action.DISABLE_NOW,
    Action.ENABLE,
    Action.REMOVE,
)


def as_it_is(view: object) -> None:
    """Whoever changes it has read nothing."""


def path_of(number: int) -> AgentPath:
    return "default", "default", f"a{number}"


def agent(control: Control, number: int = 1) -> Agent:
    return control.engine.dispatcher(GROUP).ledger.agents[AgentNo(number)]


async def flushed(control: Control) -> None:
    """All that was posted before is worked and committed: an agent that is there is added again, which does nothing."""
    await control.engine.ask(GROUP, lambda ticket: AgentAdded(ticket, AgentNo(1), "a1"))


async def connect(control: Control, number: int = 1) -> None:
    said = AgentConnected(
        AgentNo(number),
        SessionId(number),
        incarnation=b"i" * 16,
        connect_seq=1,
        slots=1,
        capacity=1,
        capacity_seq=1,
        operations=frozenset({f"op{number}"}),
        labels=frozenset(),
    )
    await control.engine.control(GROUP, said)


async def give_work(control: Control, number: int = 1) -> None:
    """A job that only this agent can run, and that it accepts."""
    job_id = number.to_bytes(16)
    job = JobSubmitted(control.engine.ticket(), job_id, f"op{number}", OperationPolicy(no=1), b"d" * 16)
    await control.engine.submit(GROUP, [job])
    [key] = agent(control, number).live
    await control.engine.report(GROUP, [AttemptAccepted(AgentNo(number), SessionId(number), key, 1)])


async def agent_in(control: Control, standing: Standing, number: int) -> AgentPath:
    """A new agent that stands so. One that still has to end something holds a job."""
    admin, is_on = standing
    path = path_of(number)
    await control.directory.ensure_agent(GROUP, path[2])
    if is_on or admin in (Admin.DRAINING, Admin.PAUSED):
        await connect(control, number)
    if admin is Admin.DRAINING or (is_on and admin is Admin.DISABLED):
        await give_work(control, number)
    if admin in (Admin.DRAINING, Admin.PAUSED):
        await control.acts.drain(path, DrainEnd.PAUSE)
    elif admin is Admin.DISABLED:
        await control.acts.disable(path)
    if not is_on:
        control.engine.post(GROUP, SessionClosed(AgentNo(number), SessionId(number)))
    await flushed(control)
    found = agent(control, number)
    assert (found.admin, is_running(found)) == standing
    return path


async def do(control: Control, action: Action, path: AgentPath) -> object:
    acts = control.acts
    doing: dict[Action, Any] = {
        Action.DRAIN: lambda: acts.drain(path, DrainEnd.STOP),
        Action.CANCEL_DRAIN: lambda: acts.cancel_drain(path),
        Action.RESUME: lambda: acts.resume(path),
        Action.DISABLE: lambda: acts.disable(path),
        Action.DISABLE_NOW: lambda: acts.disable(path, now=True),
        Action.ENABLE: lambda: acts.enable(path),
        Action.REMOVE: lambda: acts.remove(path, check=as_it_is),
    }
    return await doing[action]()


@pytest.mark.req("R49", "R51")
@pytest.mark.parametrize("standing", STANDINGS, ids=lambda standing: f"{standing[0]}-{'on' if standing[1] else 'off'}")
async def test_agent_takes_exactly_what_the_table_allows(control: Control, standing: Standing) -> None:
    for number, action in enumerate(ACTS, start=1):
        path = await agent_in(control, standing, number)
        if standing in ALLOWED[action]:
            await do(control, action, path)
            continue
        before = agent(control, number).admin
        with pytest.raises(WrongStateError) as caught:
            await do(control, action, path)
        assert INSTEAD[action] in caught.value.text
        assert standing[0] == Admin.ENABLED or standing[0] in caught.value.text
        assert caught.value.details["resource"].endswith(f"/agents/a{number}")
        assert agent(control, number).admin is before


@pytest.mark.req("R52")
async def test_drain_says_who_wants_what_until_when_and_how_far_it_is(control: Control) -> None:
    await agent_in(control, (Admin.ENABLED, True), 1)
    await give_work(control)
    view = await control.acts.drain(
        PATH, DrainEnd.STOP, then=DrainThen.REQUEUE, deadline_us=60_000_000, reason="new disk"
    )
    assert view.status is AgentStatus.DRAINING
    found = view.agent
    assert (found.admin_actor, found.admin_reason, found.held) == (ACTOR, "new disk", 1)
    assert found.admin_due_us - found.admin_us == 60_000_000
    done = AttemptFinished(AgentNo(1), SessionId(1), next(iter(found.live)), 1, OutcomeStatus.SUCCEEDED)
    await control.engine.report(GROUP, [done])
    await flushed(control)
    assert control.resources.agent(*PATH).status is AgentStatus.STOPPED


@pytest.mark.req("R52")
async def test_drain_with_a_deadline_of_nothing_stops_what_runs_at_once(control: Control) -> None:
    await agent_in(control, (Admin.ENABLED, True), 1)
    await give_work(control)
    view = await control.acts.drain(PATH, DrainEnd.PAUSE, then=DrainThen.REQUEUE, deadline_us=0)
    assert view.agent.admin_due_us - view.agent.admin_us == 1
    never = await control.acts.cancel_drain(PATH)
    assert never.agent.admin_due_us == 0


async def test_agent_that_is_not_there_is_not_found(control: Control) -> None:
    for action in ACTS:
        with pytest.raises(NotFoundError) as caught:
            await do(control, action, ("default", "default", "none"))
        assert caught.value.details["resource"].endswith("/agents/none")


@pytest.mark.req("R50")
async def test_removed_agent_is_gone_for_people_and_its_name_leads_to_its_old_number(control: Control) -> None:
    path = await agent_in(control, (Admin.DISABLED, True), 1)
    assert await control.acts.remove(path, check=as_it_is, validate_only=True) == 1
    assert await control.acts.remove(path, check=as_it_is) == 1
    assert control.resources.agents("default") == []
    assert control.resources.group("default", "default").agents_total == 0
    with pytest.raises(NotFoundError):
        await control.acts.remove(path, check=as_it_is)
    assert await control.directory.ensure_agent(GROUP, "a1") == AgentNo(1)
    assert control.directory.agent_id(GROUP, AgentNo(1)) == "a1"  # for jobs that it ran


@pytest.mark.req("R50")
async def test_name_of_a_removed_agent_is_free_for_whoever_announces_one_also_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as control:
        await control.resources.create_defaults()
        await agent_in(control, (Admin.ENABLED, False), 1)
        await control.acts.remove(PATH, check=as_it_is)
    async with running(tmp_path) as control:
        assert control.resources.agents("default") == []
        assert await control.directory.ensure_agent(GROUP, "a1") == AgentNo(1)
        view = await control.resources.create_agent("default", "default", "a1", "")
        assert (view.name.agent_no, view.status) == (AgentNo(2), AgentStatus.AWAITING_SETUP)
        assert await control.directory.ensure_agent(GROUP, "a1") == AgentNo(2)
    async with running(tmp_path) as control:
        assert [found.name.agent_no for found in control.resources.agents("default")] == [AgentNo(2)]
        assert await control.directory.ensure_agent(GROUP, "a2") == AgentNo(3)


@pytest.mark.req("R49")
async def test_removal_that_would_be_refused_says_so_without_being_tried(control: Control) -> None:
    path = await agent_in(control, (Admin.ENABLED, True), 1)
    with pytest.raises(WrongStateError, match="is active: only an agent that does not run can be removed"):
        await control.acts.remove(path, check=as_it_is, validate_only=True)


async def test_one_of_two_changes_of_an_agent_is_made_that_come_at_once_and_have_read_the_same(
    control: Control,
) -> None:
    path = await agent_in(control, (Admin.ENABLED, False), 1)

    def check(view: AgentView) -> None:
        if view.agent.rank:
            raise ChangedError("it has changed")

    edits = [control.acts.edit(path, AgentChange(rank=rank), check=check) for rank in (1, 2)]
    done = await asyncio.gather(*edits, return_exceptions=True)
    assert [type(one) for one in done] == [AgentView, ChangedError]
    with pytest.raises(ChangedError):
        await control.acts.remove(path, check=check)
    assert control.resources.agent(*path).agent.rank == 1


# --- callers that leave ---------------------------------------------------------------------------------------------


async def abandoned(
    control: Control, monkeypatch: pytest.MonkeyPatch, act: Coroutine[Any, Any, object], method: str = "commit"
) -> None:
    """An act whose caller leaves when it has come to this method of the store, which goes on then."""
    has_come, may_go = asyncio.Event(), asyncio.Event()
    real = getattr(control.store, method)

    async def held(*arguments: Any) -> Any:
        has_come.set()
        await may_go.wait()
        return await real(*arguments)

    async def nothing() -> None: ...

    with monkeypatch.context() as patch:
        patch.setattr(control.store, method, held)
        caller = asyncio.create_task(act)
        await asyncio.wait_for(has_come.wait(), 20)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
    may_go.set()
    await control.resources.turn.carry_out(nothing)  # whatever has begun is over


async def test_agent_is_removed_also_when_who_wanted_it_leaves(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await agent_in(control, (Admin.ENABLED, False), 1)
    await abandoned(control, monkeypatch, control.acts.remove(path, check=as_it_is))
    assert control.directory.agent(GROUP, "a1") is None
    view = await control.resources.create_agent("default", "default", "a1", "")
    assert view.name.agent_no == AgentNo(2)


@pytest.mark.parametrize("method", ["commit", "put_agent_words"])
async def test_agent_is_changed_whole_also_when_who_wanted_it_leaves(
    control: Control, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    path = await agent_in(control, (Admin.ENABLED, False), 1)
    edit = control.acts.edit(path, AgentChange("Press", rank=5), check=as_it_is)
    await abandoned(control, monkeypatch, edit, method)
    view = control.resources.agent(*path)
    assert (view.agent.rank, view.words.display_name) == (5, "Press")
    assert [words.display_name for words in await control.store.agent_words()] == ["Press"]


async def test_agent_is_made_with_its_words_also_when_who_wanted_it_leaves(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = control.resources.create_agent("default", "default", "a1", "Press", description="hall 3")
    await abandoned(control, monkeypatch, create)
    words = control.resources.agent(*PATH).words
    assert (words.display_name, words.description) == ("Press", "hall 3")
