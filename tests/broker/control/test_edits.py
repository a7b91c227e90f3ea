from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from broker.control.acts import AgentChange
from broker.control.edits import EnvironmentChange, GroupChange, OrganisationChange
from broker.control.resources import UNSAID
from broker.dispatch.messages import JobAccepted, JobSubmitted, RequestRefused
from broker.dispatch.model import SECOND_US, Agent, GroupNo, Link, OperationPolicy, Spread
from broker.errors import ChangedError, MalformedError, NotFoundError, WrongStateError
from broker.store.base import GroupRow
from tests.broker.control.running import Control, running

PATH = ("default", "default", "a1")


def as_it_is(view: object) -> None:
    """Whoever changes it has read nothing."""


async def edit_group(control: Control, **change: Any) -> GroupRow:
    view = await control.edits.group("default", "default", GroupChange(**change), check=as_it_is)
    return view.row


async def submit(control: Control) -> object:
    job = JobSubmitted(control.engine.ticket(), b"i" * 16, "echo", OperationPolicy(no=1), b"d" * 16)
    (reply,) = await control.engine.submit(GroupNo(1), [job])
    return reply


@pytest.mark.req("R17")
async def test_group_is_changed_in_what_is_given_and_stays_so(tmp_path: Path) -> None:
    async with running(tmp_path) as control:
        await control.resources.create_defaults()
        old = control.directory.group("default", "default")
        changed = await edit_group(control, display_name="Plant 7", description="<b>", central_logging=False)
        assert changed == old._replace(display_name="Plant 7", description="<b>", central_logging=False)
        again = await edit_group(control, display_name="", mode="spill")
        assert again == changed._replace(display_name="default", mode="spill")
    async with running(tmp_path) as control:
        assert control.directory.group("default", "default") == again


@pytest.mark.req("R10")
async def test_new_name_with_a_forbidden_character_is_refused_and_nothing_changes(control: Control) -> None:
    before = control.directory.group("default", "default")
    with pytest.raises(MalformedError, match="'/' at position 4"):
        await edit_group(control, display_name="not/fine", description="new")
    change = EnvironmentChange(display_name="a;b")
    with pytest.raises(MalformedError, match="';' at position 2"):
        await control.edits.environment("default", "default", change, check=as_it_is)
    assert control.directory.group("default", "default") == before
    assert (await control.store.groups()) == [before]


async def test_of_two_who_read_the_same_one_changes_it(control: Control) -> None:
    read = control.directory.group("default", "default")

    async def change(name: str) -> None:
        def check(view: Any) -> None:
            if view.row != read:
                raise ChangedError("it has changed")

        await control.edits.group("default", "default", GroupChange(display_name=name), check=check)

    outcomes = await asyncio.gather(change("one"), change("two"), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), ChangedError]
    assert control.directory.group("default", "default").display_name == "one"


@pytest.mark.parametrize(
    ("own", "change", "words"),
    [
        ({}, {"backoff_first_us": 301 * SECOND_US}, "backoff_first (301 s, the group says) is longer than backoff_max"),
        ({}, {"backoff_max_us": SECOND_US // 2}, "longer than backoff_max (0.5 s, the group says)"),
        ({"backoff_first_us": 9 * SECOND_US}, {"backoff_max_us": 8 * SECOND_US}, "backoff_first (9 s, the group says)"),
        (
            {"backoff_first_us": 400 * SECOND_US, "backoff_max_us": 500 * SECOND_US},
            {"backoff_max_us": 0},
            "backoff_max (300 s, the broker says)",
        ),
    ],
)
async def test_first_wait_above_the_largest_is_refused_whoever_says_that(
    control: Control, own: dict[str, int], change: dict[str, int], words: str
) -> None:
    before = await edit_group(control, **own)
    with pytest.raises(MalformedError) as caught:
        await edit_group(control, **change)
    assert words in caught.value.text
    said: dict[str, Any] = {**own, **change}
    rules = UNSAID._replace(**said)
    with pytest.raises(MalformedError):
        await control.resources.create_group("default", "second", "", rules=rules)
    assert control.directory.groups("default") == [before]
    both = {"backoff_first_us": 301 * SECOND_US, "backoff_max_us": 301 * SECOND_US}
    assert (await edit_group(control, **both)).backoff_first_us == both["backoff_first_us"]


async def test_group_that_newer_settings_contradict_is_changed_in_all_else(control: Control) -> None:
    row = control.directory.group("default", "default")._replace(backoff_first_us=301 * SECOND_US)
    await control.store.update_group(row)
    control.directory.add_group(row)
    assert await edit_group(control, description="new") == row._replace(description="new")


async def test_validation_alone_changes_nothing(control: Control) -> None:
    before = [*await control.store.organisations(), *await control.store.groups(), *await control.store.environments()]
    await control.resources.create_agent(*PATH, "")
    edits = control.edits
    alone: dict[str, Any] = {"check": as_it_is, "validate_only": True}
    view = await edits.group("default", "default", GroupChange(display_name="New", mode="spill"), **alone)
    assert (view.row.display_name, view.row.mode) == ("New", "spill")
    organisation = await edits.organisation("default", OrganisationChange(description="new"), **alone)
    assert organisation.description == "new"
    environment = await edits.environment("default", "default", EnvironmentChange(target="", groups=[]), **alone)
    assert (environment.target_group_no, environment.group_nos) == (0, ())
    agent = await control.acts.edit(PATH, AgentChange("New", "new", 7), **alone)
    assert (agent.words.display_name, agent.words.description, agent.agent.rank) == ("New", "new", 7)
    assert control.resources.agent(*PATH).words.display_name == "a1"
    assert control.resources.agent(*PATH).agent.rank == 0
    after = [*await control.store.organisations(), *await control.store.groups(), *await control.store.environments()]
    assert after == before
    assert await control.store.agent_words() == []


async def test_organisation_is_changed_and_stays_so(tmp_path: Path) -> None:
    async with running(tmp_path) as control:
        await control.resources.create_organisation("acme", "Acme", description="old")
        change = OrganisationChange(display_name="Acme Ltd.", description="new")
        row = await control.edits.organisation("acme", change, check=as_it_is)
        assert (row.display_name, row.description) == ("Acme Ltd.", "new")
        with pytest.raises(NotFoundError):
            await control.edits.organisation("none", change, check=as_it_is)
    async with running(tmp_path) as control:
        assert control.directory.organisation("acme") == row


# --- environments ---------------------------------------------------------------------------------------------------


async def test_environment_is_led_elsewhere_and_submissions_follow_at_once(control: Control) -> None:
    second = (await control.resources.create_group("default", "second", "")).row.group_no
    parent = "organizations/default/environments/default"
    assert control.directory.target(parent).group_no == GroupNo(1)
    change = EnvironmentChange(target="second")
    row = await control.edits.environment("default", "default", change, check=as_it_is)
    assert (row.target_group_no, row.group_nos) == (second, (GroupNo(1), second))
    assert control.directory.target(parent).group_no == second
    alone = await control.edits.environment("default", "default", EnvironmentChange(groups=["second"]), check=as_it_is)
    assert alone.group_nos == (second,)
    with pytest.raises(WrongStateError) as caught:
        control.directory.target("organizations/default/groups/default")
    assert caught.value.reason == "GROUP_WITHOUT_ENVIRONMENT"


async def test_environment_does_not_lose_its_target_by_accident(control: Control) -> None:
    await control.resources.create_group("default", "second", "")
    edits = control.edits
    with pytest.raises(MalformedError, match="groups/default runs what is sent to this environment") as caught:
        await edits.environment("default", "default", EnvironmentChange(groups=["second"]), check=as_it_is)
    assert caught.value.reason == "TARGET_LEFT_OUT"
    none = await edits.environment(
        "default", "default", EnvironmentChange(target="", groups=["second"]), check=as_it_is
    )
    assert (none.target_group_no, none.group_nos) == (GroupNo(0), (GroupNo(2),))


@pytest.mark.parametrize("change", [EnvironmentChange(target="none"), EnvironmentChange(groups=["default", "none"])])
async def test_environment_is_led_to_groups_that_there_are_only(control: Control, change: EnvironmentChange) -> None:
    before = control.directory.environment("default", "default")
    with pytest.raises(NotFoundError, match="groups/none"):
        await control.edits.environment("default", "default", change, check=as_it_is)
    assert control.directory.environment("default", "default") == before


# --- how a group treats its jobs ------------------------------------------------------------------------------------


@pytest.mark.req("R71")
async def test_inactive_group_refuses_jobs_or_lets_them_wait_as_it_says(tmp_path: Path) -> None:
    async with running(tmp_path) as control:
        await control.resources.create_defaults()
        await edit_group(control, inactive_jobs="refuse")
        refusal = await submit(control)
        assert isinstance(refusal, RequestRefused)
        assert refusal.reason == "GROUP_INACTIVE"
    async with running(tmp_path) as control:  # also after a start
        assert isinstance(await submit(control), RequestRefused)
        await edit_group(control, inactive_jobs="wait")
        assert isinstance(await submit(control), JobAccepted)


@pytest.mark.req("R87")
async def test_mode_of_a_group_reaches_its_dispatcher_now_and_after_a_start(tmp_path: Path) -> None:
    async with running(tmp_path) as control:
        await control.resources.create_defaults()
        assert control.engine.dispatcher(GroupNo(1)).ledger.policy.spread is Spread.BALANCED
        await edit_group(control, mode="ordered")
        assert control.engine.dispatcher(GroupNo(1)).ledger.policy.spread is Spread.ORDERED
    async with running(tmp_path) as control:
        assert control.engine.dispatcher(GroupNo(1)).ledger.policy.spread is Spread.ORDERED
        await edit_group(control, mode="balanced")
        assert control.engine.dispatcher(GroupNo(1)).ledger.policy.spread is Spread.BALANCED


# --- agents ---------------------------------------------------------------------------------------------------------


@pytest.mark.req("R49")
async def test_agent_is_called_otherwise_while_it_does_not_run_and_that_lasts(tmp_path: Path) -> None:
    async with running(tmp_path) as control:
        await control.resources.create_defaults()
        await control.resources.create_agent(*PATH, "")
        view = await control.acts.edit(PATH, AgentChange("Host A", "in the cellar"), check=as_it_is)
        assert (view.words.display_name, view.words.description) == ("Host A", "in the cellar")
    async with running(tmp_path) as control:
        assert control.resources.agent(*PATH).words == view.words
        back = await control.acts.edit(PATH, AgentChange(display_name=""), check=as_it_is)
        assert (back.words.display_name, back.words.description) == ("a1", "in the cellar")


def _there(control: Control) -> Agent:
    (agent,) = control.engine.dispatcher(GroupNo(1)).ledger.agents.values()
    return agent


@pytest.mark.req("R49", "R87")
async def test_agent_that_runs_keeps_its_words_and_may_have_another_rank(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.resources.create_agent(*PATH, "")
    agent = _there(control)
    monkeypatch.setattr(type(agent), "is_present", property(lambda self: True))
    agent.link = Link.LIVE
    with pytest.raises(WrongStateError, match="drain it to stop or disable it first"):
        await control.acts.edit(PATH, AgentChange(display_name="New", rank=3), check=as_it_is)
    assert agent.rank == 0
    same = AgentChange(display_name="a1", rank=3)  # words that it has already
    assert (await control.acts.edit(PATH, same, check=as_it_is)).agent.rank == 3
    agent.link = Link.NEVER


@pytest.mark.req("R87")
async def test_rank_of_an_agent_lasts(tmp_path: Path) -> None:
    async with running(tmp_path) as control:
        await control.resources.create_defaults()
        await control.resources.create_agent(*PATH, "")
        await control.acts.edit(PATH, AgentChange(rank=3), check=as_it_is)
    async with running(tmp_path) as control:
        assert control.resources.agent(*PATH).agent.rank == 3
