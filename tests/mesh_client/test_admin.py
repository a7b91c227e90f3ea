from __future__ import annotations

from contextlib import aclosing

import pytest

from mesh_client import ConflictError, DrainView, MeshClient, NotFoundError, WrongStateError
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
