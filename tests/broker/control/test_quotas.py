from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from broker.control.requests import CHECK_ONLY
from broker.dispatch.model import GroupNo
from broker.errors import ConfigError, FullError
from broker.settings import PlanSettings, Settings
from tests.broker.control.running import running

PLAN = PlanSettings(groups_max=7, agents_max=5, contact="ops@example.org")


def facts(error: FullError) -> tuple[str, str, str]:
    return error.details["limit"], error.details["current"], error.details["contact"]


def test_plan_of_an_organisation_is_what_is_said_of_it_and_else_that_of_all() -> None:
    plans = {"acme": {"agents_max": 3}, "globex": {"contact": "else@example.org"}}
    settings = Settings.load({"plan": {"groups_max": 7, "contact": "ops@example.org"}, "plans": plans})
    assert settings.plan_of("acme") == PlanSettings(groups_max=7, agents_max=3, contact="ops@example.org")
    assert settings.plan_of("globex").contact == "else@example.org"
    assert settings.plan_of("other") == settings.plan
    for wrong, words in (
        ({"acme": {"agents": 3}}, "plans.acme.agents: there is no such setting; did you mean plans.acme.agents_max?"),
        ({"Not An Id": {}}, "plans.Not An Id"),
        ({"acme": {"groups_max": -1}}, "plans.acme.groups_max = -1"),
    ):
        with pytest.raises(ConfigError, match=re.escape(words)):
            Settings.load({"plans": wrong})


@pytest.mark.req("R16")
async def test_fifty_at_once_make_no_more_groups_than_the_plan_allows(tmp_path: Path) -> None:
    async with running(tmp_path, plan=PLAN) as control:
        await control.resources.create_organisation("acme", "")
        await control.resources.create_group("acme", "cloud", "", kind="managed")  # not counted
        makings = [control.resources.create_group("acme", f"g{number}", "") for number in range(50)]
        outcomes = await asyncio.gather(*makings, return_exceptions=True)
        refusals = [outcome for outcome in outcomes if isinstance(outcome, FullError)]
        assert (len(refusals), control.directory.private_groups("acme")) == (43, 7)
        assert {refusal.reason for refusal in refusals} == {"GROUP_QUOTA"}
        assert {facts(refusal) for refusal in refusals} == {("7", "7", "ops@example.org")}
        assert "ask ops@example.org for more" in refusals[0].text
        assert len(await control.store.groups()) == 8
        await control.resources.create_group("acme", "cloud-2", "", kind="managed")
        with pytest.raises(FullError):
            await control.resources.create_group("acme", "late", "", asked=CHECK_ONLY)


@pytest.mark.req("R16")
async def test_plan_counts_what_there_is_and_each_organisation_alone(tmp_path: Path) -> None:
    async with running(tmp_path, plan=PlanSettings(groups_max=1)) as control:
        await control.resources.create_defaults()
        await control.resources.create_organisation("other", "")
        await control.resources.create_group("other", "g", "")
        await control.removals.group("other", "g", check=lambda view: None)
        await control.resources.create_group("other", "g", "")
        with pytest.raises(FullError):
            await control.resources.create_group("other", "h", "")


@pytest.mark.req("R48")
async def test_fifty_at_once_make_no_more_agents_than_the_plan_allows(tmp_path: Path) -> None:
    async with running(tmp_path, plan=PLAN) as control:
        await control.resources.create_defaults()
        await control.resources.create_group("default", "second", "")
        cloud = (await control.resources.create_group("default", "cloud", "", kind="managed")).row.group_no
        await asyncio.gather(*(control.directory.ensure_agent(cloud, f"c{number}") for number in range(9)))
        groups = ("default", "second")
        makings = [
            control.resources.create_agent("default", groups[number % 2], f"a{number}", "") for number in range(50)
        ]
        outcomes = await asyncio.gather(*makings, return_exceptions=True)
        refusals = [outcome for outcome in outcomes if isinstance(outcome, FullError)]
        assert (len(refusals), control.directory.private_agents("default")) == (45, 5)
        assert {refusal.reason for refusal in refusals} == {"AGENT_QUOTA"}
        assert {facts(refusal) for refusal in refusals} == {("5", "5", "ops@example.org")}


@pytest.mark.req("R48")
async def test_agents_that_just_say_hello_are_counted_too(tmp_path: Path) -> None:
    async with running(tmp_path, plan=PlanSettings(agents_max=1)) as control:
        await control.resources.create_defaults()
        await control.directory.ensure_agent(GroupNo(1), "a1")
        with pytest.raises(FullError) as caught:
            await control.directory.ensure_agent(GroupNo(1), "a2")
        assert caught.value.reason == "AGENT_QUOTA"
        assert await control.directory.ensure_agent(GroupNo(1), "a1") == 1
