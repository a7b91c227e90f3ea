from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from broker.control.requests import CHECK_ONLY
from broker.control.status import AgentStatus
from broker.dispatch.messages import JobAccepted, JobSubmitted
from broker.dispatch.model import GroupNo, OperationPolicy
from broker.errors import ConflictError, MalformedError, NotFoundError
from tests.broker.control.running import Control, running


async def test_first_start_makes_the_defaults_and_the_second_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        async with running(tmp_path) as control:
            await control.resources.create_defaults()
            directory = control.directory
            assert [row.slug for row in directory.organisations()] == ["default"]
            assert [row.slug for row in directory.groups("default")] == ["default"]
            (environment,) = directory.environments("default")
            assert (environment.slug, environment.target_group_no) == ("default", GroupNo(1))


async def test_defaults_are_completed_after_a_start_that_was_cut_off(tmp_path: Path) -> None:
    async with running(tmp_path) as control:
        await control.resources.create_organisation("default", "Default")
    async with running(tmp_path) as control:
        await control.resources.create_defaults()
        assert len(control.directory.environments("default")) == 1


async def test_defaults_are_not_forced_on_who_has_an_organisation_already(tmp_path: Path) -> None:
    async with running(tmp_path) as control:
        await control.resources.create_organisation("own", "Own")
        await control.resources.create_defaults()
        assert [row.slug for row in control.directory.organisations()] == ["own"]


@pytest.mark.req("R12")
async def test_new_group_takes_jobs_at_once_and_logs_centrally(control: Control) -> None:
    view = await control.resources.create_group("default", "", "New Group", description="free <text>")
    assert (view.row.slug, view.row.display_name, view.row.description) == ("new-group", "New Group", "free <text>")
    assert view.row.central_logging
    assert (view.agents_active, view.agents_total, view.environments) == (0, 0, ())
    job = JobSubmitted(control.engine.ticket(), b"i" * 16, "echo", OperationPolicy(no=1), b"d" * 16)
    (reply,) = await control.engine.submit(view.row.group_no, [job])
    assert isinstance(reply, JobAccepted)


async def test_what_is_taken_is_refused_by_name(control: Control) -> None:
    resources = control.resources
    await resources.create_agent("default", "default", "a1", "")
    for making, name in (
        (resources.create_organisation("default", ""), "organizations/default"),
        (resources.create_group("default", "default", ""), "organizations/default/groups/default"),
        (resources.create_environment("default", "default", ""), "organizations/default/environments/default"),
        (resources.create_agent("default", "default", "a1", ""), "organizations/default/groups/default/agents/a1"),
    ):
        with pytest.raises(ConflictError) as caught:
            await making
        assert caught.value.details["resource"] == name


async def test_one_of_many_concurrent_creates_wins(control: Control) -> None:
    makings = [control.resources.create_group("default", "same", "") for _ in range(5)]
    outcomes = await asyncio.gather(*makings, return_exceptions=True)
    assert sum(isinstance(outcome, ConflictError) for outcome in outcomes) == 4
    assert len(control.directory.groups("default")) == 2


async def test_concurrent_creates_are_refused_naming_what_exists(control: Control) -> None:
    makings = [control.resources.create_organisation("same", "") for _ in range(3)]
    outcomes = await asyncio.gather(*makings, return_exceptions=True)
    errors = [outcome for outcome in outcomes if isinstance(outcome, ConflictError)]
    assert [error.details.get("resource") for error in errors] == ["organizations/same"] * 2


async def test_create_that_has_begun_is_carried_out_although_who_asked_went_away(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    adopt_group, begun, may_go_on = control.store.adopt_group, asyncio.Event(), asyncio.Event()

    async def held(group_no: GroupNo) -> int:
        begun.set()
        await may_go_on.wait()
        return await adopt_group(group_no)

    monkeypatch.setattr(control.store, "adopt_group", held)
    asking = asyncio.create_task(control.resources.create_group("default", "second", ""))
    await begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    may_go_on.set()
    await control.resources.create_organisation("after", "")  # its turn comes after that of the group
    row = control.directory.group("default", "second")
    job = JobSubmitted(control.engine.ticket(), b"i" * 16, "echo", OperationPolicy(no=1), b"d" * 16)
    (reply,) = await control.engine.submit(row.group_no, [job])
    assert isinstance(reply, JobAccepted)


async def test_same_id_is_free_in_another_organisation(control: Control) -> None:
    await control.resources.create_organisation("other", "")
    view = await control.resources.create_group("other", "default", "")
    assert view.row.group_no == GroupNo(2)
    assert [row.slug for row in control.directory.groups("other")] == ["default"]
    assert control.directory.groups_of("default") == (GroupNo(1),)


@pytest.mark.parametrize("what", ["create_group", "create_environment"])
@pytest.mark.req("R10")
async def test_forbidden_character_is_refused_and_nothing_is_made(control: Control, what: str) -> None:
    with pytest.raises(MalformedError) as caught:
        await getattr(control.resources, what)("default", "fine", "not/fine")
    assert (caught.value.reason, caught.value.details["position"]) == ("FORBIDDEN_CHARACTER", "4")
    assert len(control.directory.groups("default")) == len(control.directory.environments("default")) == 1


async def test_environment_names_its_target_and_other_groups_once(control: Control) -> None:
    await control.resources.create_group("default", "second", "")
    row = await control.resources.create_environment(
        "default", "both", "", target="second", groups=["second", "default"]
    )
    assert (row.target_group_no, row.group_nos) == (GroupNo(2), (GroupNo(2), GroupNo(1)))
    for fields in ({"target": "none"}, {"groups": ["none"]}):
        with pytest.raises(NotFoundError):
            await control.resources.create_environment("default", "other", "", **fields)


async def test_announced_agent_awaits_its_setup(control: Control) -> None:
    view = await control.resources.create_agent("default", "default", "", "Host A")
    assert (view.name.agent_id, view.status) == ("host-a", AgentStatus.AWAITING_SETUP)
    assert control.resources.agents("default") == [view]
    assert control.resources.agents("default", "default") == [view]
    assert control.resources.agent("default", "default", "host-a") == view
    with pytest.raises(NotFoundError, match="default/agents/host-b"):
        control.resources.agent("default", "default", "host-b")
    assert control.resources.group("default", "default").agents_total == 1
    named = await control.resources.create_agent("default", "default", "a2", "Another Name", description="<i>")
    assert (named.words.display_name, named.words.description) == ("Another Name", "<i>")
    assert control.resources.agent("default", "default", "a2") == named


async def test_validation_alone_makes_nothing(control: Control) -> None:
    resources, directory = control.resources, control.directory
    await resources.create_organisation("o", "", asked=CHECK_ONLY)
    await resources.create_group("default", "g", "", asked=CHECK_ONLY)
    await resources.create_environment("default", "e", "", asked=CHECK_ONLY)
    await resources.create_agent("default", "default", "a", "", asked=CHECK_ONLY)
    found = (directory.organisations(), directory.groups("default"), directory.environments("default"))
    assert [len(rows) for rows in found] == [1, 1, 1]
    assert not resources.agents("default")
