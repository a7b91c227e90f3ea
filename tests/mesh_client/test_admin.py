from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio

from broker.app import Broker
from mesh_client import (
    ConflictError,
    DrainView,
    FullError,
    GroupPolicy,
    MalformedError,
    MeshClient,
    NotFoundError,
    Removal,
    WrongStateError,
)
from tests.broker.running import settings_of
from tests.mesh_client.broker import MemoryBroker


async def test_group_is_made_once_and_read(mesh: MeshClient) -> None:
    made = await mesh.create_group("etl", display_name="ETL", description="Nightly", central_logging=False)
    assert (made.group, made.display_name, made.description) == ("etl", "ETL", "Nightly")
    assert (made.kind, made.status, made.central_logging) == ("private", "inactive", False)
    assert await mesh.get_group("etl") == made
    with pytest.raises(ConflictError):
        await mesh.create_group("etl")


async def test_groups_are_listed_over_all_pages(mesh: MeshClient, broker: MemoryBroker) -> None:
    for name in ("a", "b", "c"):
        await mesh.create_group(name)
    assert [view.group async for view in mesh.list_groups()] == sorted(broker.groups)
    assert len(broker.groups) == 5
    assert [view.group async for view in mesh.list_groups(limit=1)] == ["a"]


async def test_environment_runs_in_its_first_group_unless_told_otherwise(mesh: MeshClient) -> None:
    first = await mesh.create_environment("one", groups=["loaders", "default"])
    other = await mesh.create_environment("two", groups=["loaders"], target_group="default")
    none = await mesh.create_environment("three")
    assert (first.target_group, first.groups) == ("loaders", ("loaders", "default"))
    assert (other.target_group, other.groups) == ("default", ("loaders", "default"))
    assert (none.target_group, none.groups) == ("", ())
    assert [view.environment async for view in mesh.list_environments()] == ["prod", "one", "two", "three"]
    assert await mesh.get_environment("two") == other


async def test_organization_is_made_read_and_listed(mesh: MeshClient) -> None:
    made = await mesh.create_organization("acme", display_name="Acme")
    assert await mesh.get_organization("acme") == made
    assert [view.organization async for view in mesh.list_organizations()] == ["default", "acme"]


async def test_agents_are_listed_by_group_or_all(mesh: MeshClient) -> None:
    assert [view.agent async for view in mesh.list_agents("loaders")] == ["a1"]
    everywhere = [view async for view in mesh.list_agents()]
    assert [(view.group, view.agent, view.status) for view in everywhere] == [
        ("loaders", "a1", "active"),
        ("default", "a2", "active"),
    ]


async def test_agent_is_read_with_what_it_said(mesh: MeshClient) -> None:
    view = await mesh.get_agent("loaders", "a1")
    assert (view.operations, view.labels, view.slots, view.live) == (("done",), {"site": "north"}, 4, 1)
    assert view.last_heard_at is not None
    with pytest.raises(NotFoundError):
        await mesh.get_agent("loaders", "a9")


async def test_agent_is_announced(mesh: MeshClient) -> None:
    made = await mesh.create_agent("loaders", "a9")
    assert (made.agent, made.group, made.status) == ("a9", "loaders", "awaiting_setup")


async def test_agent_is_drained_with_all_that_was_said(mesh: MeshClient) -> None:
    view = await mesh.drain_agent("loaders", "a1", "pause", then="requeue", deadline_s=90, reason="new disk")
    assert view.status == "draining"
    assert isinstance(view.drain, DrainView)
    assert (view.drain.mode, view.drain.then, view.drain.reason) == ("pause", "requeue", "new disk")
    assert (view.drain.operator, view.drain.remaining) == ("operator", 1)
    assert view.drain.started_at is not None
    assert view.drain.deadline is not None
    assert 89 <= (view.drain.deadline - view.drain.started_at).total_seconds() <= 90
    back = await mesh.cancel_drain("loaders", "a1")
    assert (back.status, back.drain) == ("active", None)


async def test_agent_is_followed_from_change_to_change(mesh: MeshClient, broker: MemoryBroker) -> None:
    drained = await mesh.drain_agent("loaders", "a1", "pause")
    assert drained.drain is not None
    assert drained.drain.deadline is None
    broker.steps.extend([lambda: None, lambda: None, lambda: broker.work(0, 0)])
    async with aclosing(mesh.follow_agent("loaders", "a1", every_s=0.001)) as views:  # type: ignore[type-var]
        seen = [(await anext(views)).status, (await anext(views)).status]
    assert seen == ["draining", "paused"]
    assert not broker.steps
    assert (await mesh.resume_agent("loaders", "a1")).status == "active"


async def test_agent_is_disabled_enabled_and_removed(mesh: MeshClient) -> None:
    with pytest.raises(WrongStateError):
        await mesh.remove_agent("loaders", "a1")
    off = await mesh.disable_agent("loaders", "a1", reason="broken fan")
    assert (off.status, off.disabled_reason, off.live) == ("disabled", "broken fan", 1)
    assert (await mesh.disable_agent("loaders", "a1", now=True)).live == 0
    assert (await mesh.enable_agent("loaders", "a1")).disabled_reason == ""
    await mesh.disable_agent("default", "a2")
    assert await mesh.remove_agent("default", "a2", validate_only=True) == 1
    assert await mesh.remove_agent("default", "a2") == 1
    with pytest.raises(NotFoundError):
        await mesh.remove_agent("default", "a2")


# --- against a whole broker -----------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def live(tmp_path: Path) -> AsyncIterator[MeshClient]:
    plan = {"groups_max": 3, "agents_max": 3, "contact": "ops@example.org"}
    settings = settings_of(tmp_path, plan=plan)
    async with Broker(settings) as broker, MeshClient(broker.api_address) as client:
        yield client


async def test_update_changes_what_is_given_only(live: MeshClient) -> None:
    await live.create_group("etl", description="Nightly", mode="ordered", inactive_jobs="refuse")
    changed = await live.update_group("etl", display_name="ETL", central_logging=False)
    assert (changed.display_name, changed.description, changed.central_logging) == ("ETL", "Nightly", False)
    assert (changed.mode, changed.inactive_jobs) == ("ordered", "refuse")
    cleared = await live.update_group("etl", description="", mode="spill", inactive_jobs="wait")
    assert (cleared.description, cleared.mode, cleared.inactive_jobs) == ("", "spill", "wait")
    assert await live.get_group("etl") == cleared
    organization = await live.update_organization("default", description="ours")
    assert (organization.display_name, organization.description) == ("Default", "ours")
    environment = await live.update_environment("default", target_group="etl", groups=["etl"])
    assert (environment.display_name, environment.target_group, environment.groups) == ("Default", "etl", ("etl",))
    none = await live.update_environment("default", target_group="", groups=())
    assert (none.target_group, none.groups) == ("", ())
    await live.create_agent("etl", "a1", display_name="Host 1", description="old")
    agent = await live.update_agent("etl", "a1", rank=2, description="")
    assert (agent.display_name, agent.description, agent.rank) == ("Host 1", "", 2)
    assert agent.status_synonyms == ("Unregistered", "Awaiting setup")


async def test_update_of_nothing_is_refused_before_it_is_sent(live: MeshClient) -> None:
    with pytest.raises(MalformedError, match="nothing to change: give one of display_name, description, rank"):
        await live.update_agent("default", "a1")


async def test_update_of_something_older_is_refused_and_a_check_changes_nothing(live: MeshClient) -> None:
    read = await live.get_group("default")
    checked = await live.update_group("default", display_name="New", etag=read.etag, validate_only=True)
    assert checked.display_name == "New"
    await live.update_group("default", display_name="Other", etag=read.etag)
    with pytest.raises(WrongStateError, match="has changed"):
        await live.update_group("default", display_name="New", etag=read.etag)


async def test_removal_says_what_goes_first_and_then_does_it(live: MeshClient) -> None:
    await live.create_agent("default", "a1")
    await live.submit("echo")
    with pytest.raises(WrongStateError):
        await live.remove_group("default")
    would = await live.remove_group("default", force=True, validate_only=True)
    assert would == Removal(environments=("default",), agents=("default/a1",), jobs=1)
    assert await live.remove_group("default", force=True) == would
    with pytest.raises(NotFoundError):
        await live.get_group("default")
    assert await live.remove_environment("default") == Removal()
    await live.create_organization("acme")
    assert await live.remove_organization("acme") == Removal()
    assert [view.organization async for view in live.list_organizations()] == ["default"]


async def test_limit_of_the_plan_is_shown_and_held(live: MeshClient) -> None:
    for name in ("g1", "g2"):
        await live.create_group(name)
    with pytest.raises(FullError, match=r"ask ops@example\.org for more") as caught:
        await live.create_group("g3")
    assert (caught.value.retry_after_s, caught.value.details["limit"]) == (None, "3")
    view = await live.get_organization("default")
    assert (view.groups_total, view.groups_max, view.agents_total, view.agents_max) == (3, 3, 0, 3)
    assert view.contact == "ops@example.org"


@pytest.mark.req("R07", "R08")
async def test_lists_are_filtered_and_ordered(live: MeshClient) -> None:
    await live.create_group("b", description="cold")
    await live.create_group("a", description="cold")
    assert [view.group async for view in live.list_groups(order_by="name desc")] == ["default", "b", "a"]
    assert [view.group async for view in live.list_groups(where="cold", order_by="created_at")] == ["b", "a"]
    for agent in ("a1", "a2"):
        await live.create_agent("b", agent)
    assert [view.agent async for view in live.list_agents(where="a2")] == ["a2"]
    assert [view.agent async for view in live.list_agents("b", order_by="name desc")] == ["a2", "a1"]
    assert [view.environment async for view in live.list_environments(where="groups : nowhere")] == []
    assert [view.organization async for view in live.list_organizations(where='name : "default"')] == ["default"]


async def test_policy_of_a_group_is_given_changed_and_put_back(live: MeshClient) -> None:
    made = await live.create_group("etl", placing="power_of_d", placing_choices=3, backoff_first_s=1.5)
    assert made.policy == GroupPolicy("power_of_d", 3, backoff_first_s=1.5)
    changed = await live.update_group("etl", placing="random", placing_choices=0, queue_jobs_max=10)
    assert changed.policy == GroupPolicy("random", backoff_first_s=1.5, queue_jobs_max=10)
    assert (await live.update_group("etl", prefetch=0)).policy.prefetch == 0
    assert (await live.update_group("etl", prefetch=1.5)).policy.prefetch == 1.5
    assert (await live.update_group("etl", prefetch="default")).policy == changed.policy
    back = await live.update_group("etl", placing="default", backoff_first_s=0, queue_jobs_max=0)
    assert back.policy == GroupPolicy()
    for wrong in (
        {"placing": "best"},
        {"attempts_max": -1},
        {"attempts_max": 1 << 40},
        {"backoff_max_s": -1.0},
        {"prefetch": 17},
        {"prefetch": "much"},
    ):
        with pytest.raises(MalformedError):
            await live.update_group("etl", **wrong)  # each is refused before it is sent


async def test_labels_of_an_agent_are_given_changed_and_taken_back(live: MeshClient) -> None:
    made = await live.create_agent("default", "a1", rank=2, labels={"zone": "north"})
    assert (made.rank, made.operator_labels, made.labels) == (2, {"zone": "north"}, {"zone": "north"})
    assert (await live.update_agent("default", "a1", labels={"disk": "ssd"})).operator_labels == {"disk": "ssd"}
    assert (await live.update_agent("default", "a1", rank=3)).operator_labels == {"disk": "ssd"}
    assert (await live.update_agent("default", "a1", labels={})).labels == {}


async def test_same_request_id_makes_one_thing_and_is_no_other(live: MeshClient) -> None:
    mine = "5f9c7d1e-2a43-4a70-8a54-111111111111"
    first = await live.create_group("g1", request_id=mine)
    assert await live.create_group("g1", request_id=mine) == first
    with pytest.raises(ConflictError, match="request id"):
        await live.create_group("g2", request_id=mine)
