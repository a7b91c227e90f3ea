from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from broker.control.removals import Loss
from broker.dispatch.messages import (
    AgentAdded,
    GroupRemoveRequested,
    JobAccepted,
    JobSubmitted,
    Notice,
    Reply,
    RequestRefused,
    Transition,
)
from broker.dispatch.model import AgentNo, GroupNo, JobState, OperationPolicy
from broker.errors import ChangedError, NotFoundError, WrongStateError
from broker.store.base import JobRecord
from tests.broker.control.running import Control, running

GROUP = GroupNo(1)
ORGANIZATION = "organizations/default"
AGENT = f"{ORGANIZATION}/groups/default/agents/a1"
IN_USE = r"in use \(1 environment, 1 agent, 2 live jobs\): say `force`"
ENVIRONMENT = f"{ORGANIZATION}/environments/default"


def as_it_is(view: object) -> None:
    """Whoever removes it has read nothing."""


class Ends:
    """Hears which jobs have ended."""

    def __init__(self, wanted: int) -> None:
        self.all = asyncio.Event()
        self.reasons: list[str] = []
        self._wanted = wanted

    def on_batch(self, notices: Sequence[Notice], commit_seq: int) -> None:
        self.reasons += [one.reason for one in notices if type(one) is Transition and one.to_state == "cancelled"]
        if len(self.reasons) >= self._wanted:
            self.all.set()

    def on_commit(self, seconds: float, events: int, rows: int) -> None: ...

    def on_full(self, queue: str) -> None: ...


async def submit(control: Control, *, first: int = 0, number: int = 1) -> list[Reply]:
    jobs = [
        JobSubmitted(control.engine.ticket(), bytes([index] * 16), "echo", OperationPolicy(no=1), b"d" * 16)
        for index in range(first, first + number)
    ]
    return await control.engine.submit(GROUP, jobs)


async def record(control: Control) -> JobRecord:
    found = await control.store.job(control.directory.groups_of("default"), bytes(16))
    assert found is not None
    return found


# --- groups ---------------------------------------------------------------------------------------------------------


@pytest.mark.req("R17", "R50")
async def test_group_goes_with_its_agents_and_its_jobs_and_environments_go_on_without_it(control: Control) -> None:
    await control.resources.create_agent("default", "default", "a1", "")
    await submit(control, number=3)
    ends = Ends(3)
    control.engine.observe(ends)
    would = Loss(environments=(ENVIRONMENT,), agents=(AGENT,), jobs=3)
    removals = control.removals
    assert await removals.group("default", "default", check=as_it_is, force=True, validate_only=True) == would
    assert control.directory.group("default", "default").removed_us == 0

    assert await removals.group("default", "default", check=as_it_is, force=True) == would

    with pytest.raises(NotFoundError):
        control.directory.group("default", "default")
    assert control.directory.groups("default") == []
    assert control.resources.agents("default") == []
    with pytest.raises(WrongStateError) as caught:
        control.directory.target(ENVIRONMENT)
    assert caught.value.reason == "ENVIRONMENT_WITHOUT_GROUP"
    await asyncio.wait_for(ends.all.wait(), 20)
    assert ends.reasons == ["group_removed"] * 3
    job = await record(control)
    assert (job.row.state, job.row.code) == (JobState.CANCELLED, "group_removed")
    (refusal,) = await submit(control, first=9)
    assert isinstance(refusal, RequestRefused)


async def test_group_in_use_is_removed_by_force_only(control: Control) -> None:
    await control.resources.create_agent("default", "default", "a1", "")
    await submit(control, number=2)
    for validate_only in (True, False):
        with pytest.raises(WrongStateError, match=IN_USE) as caught:
            await control.removals.group("default", "default", check=as_it_is, validate_only=validate_only)
        assert caught.value.reason == "GROUP_IN_USE"
    await control.resources.create_group("default", "empty", "")
    assert await control.removals.group("default", "empty", check=as_it_is) == Loss()


async def test_removal_that_was_decided_on_something_older_is_refused(control: Control) -> None:
    def check(view: object) -> None:
        raise ChangedError("it has changed")

    removals = control.removals
    for removing in (
        removals.group("default", "default", check=check, force=True),
        removals.environment("default", "default", check=check),
        removals.organisation("default", check=check, force=True),
    ):
        with pytest.raises(ChangedError):
            await removing
    assert len(control.directory.groups("default")) == len(control.directory.environments("default")) == 1


async def test_name_of_a_removed_group_is_free_and_leads_to_the_new_one(control: Control) -> None:
    await control.resources.create_agent("default", "default", "a1", "")
    await submit(control)
    await control.removals.group("default", "default", check=as_it_is, force=True)
    view = await control.resources.create_group("default", "default", "Again")
    assert view.row.group_no == GroupNo(2)
    assert control.directory.groups("default") == [view.row]
    assert control.resources.agents("default") == []
    assert await control.directory.ensure_agent(GroupNo(2), "a1") == AgentNo(1)
    assert (control.directory.group_label(GROUP), control.directory.group_label(GroupNo(2))) == (
        "number-1",
        "default/default",
    )
    assert (await record(control)).row.group_no == GROUP  # what it ran is still shown


@pytest.mark.req("R17")
async def test_row_of_a_removed_group_is_a_tombstone_that_nothing_shows_and_that_gives_its_number_to_nobody(
    tmp_path: Path,
) -> None:
    ends = Ends(1)
    async with running(tmp_path) as control:
        await control.resources.create_defaults()
        control.engine.observe(ends)
        await control.resources.create_agent("default", "default", "a1", "")
        await submit(control)
        await control.removals.group("default", "default", check=as_it_is, force=True)
        await asyncio.wait_for(ends.all.wait(), 20)
    async with running(tmp_path) as control:
        # Complete: its jobs have ended, and nobody drives it any more.
        assert control.engine.dispatcher_of(GROUP) is None
        with pytest.raises(NotFoundError, match="the group has been removed"):
            await submit(control)
        for number in (2, 3):  # made, removed and made again under the same name
            view = await control.resources.create_group("default", "default", f"Number {number}")
            assert view.row.group_no == GroupNo(number)
            assert (view.agents_total, view.jobs_waiting, view.environments) == (0, 0, ())
            if number == 2:
                await control.removals.group("default", "default", check=as_it_is)
        tombs = {row.group_no: row.removed_us > 0 for row in await control.store.groups()}
        assert tombs == {1: True, 2: True, 3: False}
        assert [one.row.group_no for one in control.resources.groups("default")] == [3]
        assert control.directory.private_groups("default") == 1
        assert control.directory.groups_named("default", "default") == (1, 2, 3)  # history is found by its name
        assert (await record(control)).row.state == JobState.CANCELLED


@pytest.mark.req("R17")
async def test_removal_that_a_broker_left_unfinished_is_ended_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as control:
        await control.resources.create_defaults()
        await control.resources.create_agent("default", "default", "a1", "")
        await submit(control, number=2)
        is_asked = asyncio.Event()

        async def never(*wanted: object) -> None:
            is_asked.set()
            await asyncio.Event().wait()

        with monkeypatch.context() as patch:
            patch.setattr(control.engine, "ask", never)
            removing = asyncio.create_task(control.removals.group("default", "default", check=as_it_is, force=True))
            await is_asked.wait()
            with pytest.raises(NotFoundError):  # at once
                control.directory.group("default", "default")
        removing.cancel()
    async with running(tmp_path) as control:
        with pytest.raises(NotFoundError):
            control.directory.group("default", "default")
        ledger = control.engine.dispatcher(GROUP).ledger
        ends = Ends(2)
        control.engine.observe(ends)
        while ledger.jobs:  # a slice with each timer
            await asyncio.wait_for(control.engine.ask(GROUP, lambda ticket: GroupRemoveRequested(ticket, "test")), 20)
        assert (await record(control)).row.code == "group_removed"
    async with running(tmp_path) as control:
        assert control.directory.removed_groups() != []
        assert list(control.engine.dispatchers()) == []  # nobody drives what is over
        with pytest.raises(NotFoundError) as caught:
            await submit(control)
        assert caught.value.reason == "GROUP_REMOVED"


# --- environments and organisations ---------------------------------------------------------------------------------


async def test_removed_environment_leads_nowhere_and_names_the_groups_that_it_leaves_alone(control: Control) -> None:
    await control.resources.create_group("default", "second", "")
    await control.resources.create_environment("default", "both", "", target="default", groups=["default", "second"])
    second = f"{ORGANIZATION}/groups/second"
    removals = control.removals
    assert await removals.environment("default", "both", check=as_it_is, validate_only=True) == Loss(groups=(second,))
    assert await removals.environment("default", "both", check=as_it_is) == Loss(groups=(second,))
    with pytest.raises(NotFoundError):
        control.directory.target(f"{ORGANIZATION}/environments/both")
    with pytest.raises(NotFoundError):
        await removals.environment("default", "both", check=as_it_is)
    await control.resources.create_environment("default", "both", "")
    assert type((await submit(control))[0]) is JobAccepted


async def test_organisation_goes_with_all_that_it_has_by_force_only(control: Control) -> None:
    await control.resources.create_agent("default", "default", "a1", "")
    await submit(control, number=2)
    ends = Ends(2)
    control.engine.observe(ends)
    removals = control.removals
    with pytest.raises(WrongStateError) as caught:
        await removals.organisation("default", check=as_it_is)
    assert caught.value.reason == "ORGANIZATION_IN_USE"
    would = Loss((f"{ORGANIZATION}/groups/default",), (ENVIRONMENT,), (AGENT,), 2)
    assert await removals.organisation("default", check=as_it_is, force=True, validate_only=True) == would

    assert await removals.organisation("default", check=as_it_is, force=True) == would

    assert control.directory.organisations() == []
    for asking in (control.directory.organisation, control.directory.groups, control.directory.groups_of):
        with pytest.raises(NotFoundError):
            asking("default")
    await asyncio.wait_for(ends.all.wait(), 20)
    assert ends.reasons == ["group_removed"] * 2
    await control.resources.create_defaults()
    assert control.directory.groups_of("default") == (GroupNo(2),)


async def test_empty_organisation_goes_without_force(control: Control) -> None:
    await control.resources.create_organisation("other", "")
    assert await control.removals.organisation("other", check=as_it_is) == Loss()
    assert [row.slug for row in control.directory.organisations()] == ["default"]


async def test_removed_things_are_gone_after_a_start(tmp_path: Path) -> None:
    async with running(tmp_path) as control:
        await control.resources.create_defaults()
        await control.resources.create_organisation("other", "")
        await control.resources.create_group("other", "g", "")
        await control.engine.ask(GroupNo(2), lambda ticket: AgentAdded(ticket, AgentNo(1), "a1"))
        await control.removals.organisation("other", check=as_it_is, force=True)
        await control.removals.environment("default", "default", check=as_it_is)
    async with running(tmp_path) as control:
        assert [row.slug for row in control.directory.organisations()] == ["default"]
        assert control.directory.environments("default") == []
        await control.removals.group("default", "default", check=as_it_is)
        await control.resources.create_defaults()
        assert control.directory.groups("default") == []
        assert control.directory.environments("default") == []
        assert [row.group_no for row in control.directory.removed_groups()] == [GroupNo(1), GroupNo(2)]
