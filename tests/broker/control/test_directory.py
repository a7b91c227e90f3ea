from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from broker.control.directory import AgentTraits, Target
from broker.dispatch.model import AgentNo, GroupNo
from broker.errors import ConflictError, FullError, MalformedError, NotFoundError, WrongStateError
from broker.store.base import CommitOutcome, CommitRequest
from tests.broker.control.running import Control, running

GROUP = GroupNo(1)
PARENT = "organizations/default/groups/default"


def test_target_is_the_group_or_that_of_the_environment(control: Control) -> None:
    directory = control.directory
    assert directory.target(PARENT) == Target(1, GROUP, 0)
    assert directory.target("organizations/default/environments/default") == Target(1, GROUP, 1)
    assert directory.target(PARENT) is directory.target(PARENT)


@pytest.mark.parametrize(
    "parent",
    [
        "organizations/none/groups/default",
        "organizations/default/groups/none",
        PARENT.replace("groups", "environments")[:-1],
    ],
)
def test_target_is_not_found_when_the_name_is_of_nothing(control: Control, parent: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        control.directory.target(parent)
    assert caught.value.details["resource"]


def test_target_is_refused_when_it_is_an_organization(control: Control) -> None:
    with pytest.raises(MalformedError, match="jobs go to one of its groups or environments"):
        control.directory.target("organizations/default")


@pytest.mark.req("R04")
async def test_target_needs_an_environment_for_a_group_and_a_group_for_an_environment(control: Control) -> None:
    directory, resources = control.directory, control.resources
    await resources.create_group("default", "lonely", "")
    await resources.create_environment("default", "empty", "")
    for parent, reason in (
        ("organizations/default/groups/lonely", "GROUP_WITHOUT_ENVIRONMENT"),
        ("organizations/default/environments/empty", "ENVIRONMENT_WITHOUT_GROUP"),
    ):
        with pytest.raises(WrongStateError) as caught:
            directory.target(parent)
        assert (caught.value.reason, caught.value.details["resource"]) == (reason, parent)
    await resources.create_environment("default", "full", "", groups=["lonely"])
    assert directory.target("organizations/default/groups/lonely").group_no == GroupNo(2)


async def test_concurrent_calls_make_one_agent(control: Control) -> None:
    calls = [control.directory.ensure_agent(GROUP, f"a{number % 3}") for number in range(30)]
    numbers = await asyncio.gather(*calls)
    assert set(numbers) == {AgentNo(1), AgentNo(2), AgentNo(3)}
    agents = [(agent.agent_no, agent.agent_id) for agent in control.directory.agents(GROUP)]
    assert sorted(agents) == sorted({(no, f"a{index % 3}") for index, no in enumerate(numbers)})
    stored = (await control.store.group_state(GROUP)).agents
    assert sorted((agent.agent_no, agent.agent_id) for agent in stored) == sorted(agents)


async def test_group_knows_no_more_agents_than_it_may(tmp_path: Path) -> None:
    async with running(tmp_path, agents_max=3) as control:
        await control.resources.create_defaults()
        await control.resources.create_group("default", "other", "")
        calls = [control.directory.ensure_agent(GROUP, f"a{number}") for number in range(5)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert answers[:3] == [AgentNo(1), AgentNo(2), AgentNo(3)]
        for refusal in answers[3:]:
            assert isinstance(refusal, FullError)
            assert (refusal.reason, refusal.details["subject"]) == ("AGENTS_FULL", PARENT)
        assert len((await control.store.group_state(GROUP)).agents) == 3
        assert await control.directory.ensure_agent(GROUP, "a1") == AgentNo(2)
        assert await control.directory.ensure_agent(GroupNo(2), "a9") == AgentNo(1)


async def test_agent_is_made_for_the_others_when_who_asked_first_goes_away(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_commit, is_committing = asyncio.Event(), asyncio.Event()
    commit = control.store.commit

    async def held(request: CommitRequest) -> CommitOutcome:
        is_committing.set()
        await may_commit.wait()
        return await commit(request)

    monkeypatch.setattr(control.store, "commit", held)
    first = asyncio.create_task(control.directory.ensure_agent(GROUP, "a1"))
    await is_committing.wait()
    second = asyncio.create_task(control.directory.ensure_agent(GROUP, "a1"))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert control.directory.agent(GROUP, "a1") is None  # not before it is durable
    may_commit.set()
    assert await second == AgentNo(1)
    assert first.cancelled()


async def test_announcement_of_an_agent_that_connects_at_this_moment_is_refused(control: Control) -> None:
    connecting = asyncio.create_task(control.directory.ensure_agent(GROUP, "a1"))
    await asyncio.sleep(0)  # it has begun, and nothing of it is durable
    with pytest.raises(ConflictError, match="groups/default/agents/a1 exists already"):
        await control.directory.ensure_agent(GROUP, "a1", announced=AgentTraits(labels=("zone=north",)))
    assert await connecting == AgentNo(1)


async def test_directory_knows_everything_again_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as before:
        await before.resources.create_defaults()
        await before.resources.create_group("default", "second", "Second", description="<b>")
        await before.resources.create_environment("default", "all", "", target="second", groups=["default"])
        await before.directory.ensure_agent(GroupNo(2), "a1")
        groups = before.directory.groups("default")
        environments = before.directory.environments("default")
    async with running(tmp_path) as after:
        directory = after.directory
        assert directory.groups("default") == groups
        assert directory.environments("default") == environments
        assert directory.group_name(GroupNo(2)) == "organizations/default/groups/second"
        assert directory.environment_name(2) == "organizations/default/environments/all"
        assert directory.agent_id(GroupNo(2), AgentNo(1)) == "a1"
        assert await directory.ensure_agent(GroupNo(2), "a1") == AgentNo(1)
        assert await directory.ensure_agent(GroupNo(2), "a2") == AgentNo(2)
        assert directory.target("organizations/default/environments/all") == Target(1, GroupNo(2), 2)


def test_names_of_what_is_not_there_are_empty(control: Control) -> None:
    directory = control.directory
    assert directory.environment_name(0) == directory.agent_id(GROUP, AgentNo(0)) == ""
    assert directory.agent(GROUP, "a1") is None
    assert (directory.group_label(GROUP), directory.group_label(GroupNo(9))) == ("default/default", "number-9")
