"""What is removed is forgotten in time, over a real engine and a real store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from broker.control.tombstones import Tombstones
from broker.dispatch.messages import JobSubmitted
from broker.dispatch.model import AgentNo, GroupNo, OperationPolicy
from broker.errors import NotFoundError
from tests.broker.control.running import Control, running

GROUP = GroupNo(1)
PATH = ("default", "default", "a1")


def as_it_is(view: object) -> None:
    """Whoever removes it has read nothing."""


class Over:
    """Hears when a group is over."""

    def __init__(self, control: Control, group: GroupNo) -> None:
        self.heard = asyncio.Event()
        self._control = control
        self._group = group

    def on_batch(self, notices: object, commit_seq: int) -> None:
        if self._control.engine.is_over(self._group):
            self.heard.set()

    def on_commit(self, seconds: float, events: int, rows: int) -> None: ...

    def on_full(self, queue: str) -> None: ...


async def remove_group(control: Control) -> None:
    """The group `default` with an agent and a job, until nothing is left to end."""
    job = JobSubmitted(control.engine.ticket(), bytes(16), "echo", OperationPolicy(no=1), b"d" * 16)
    await control.engine.submit(GROUP, [job])
    over = Over(control, GROUP)
    control.engine.observe(over)
    await control.removals.group("default", "default", check=as_it_is, force=True)
    async with asyncio.timeout(20):
        await over.heard.wait()


async def purge(control: Control) -> int:
    """Forget what was removed before now."""
    tombstones = Tombstones(control.store, control.engine, control.directory)
    return await tombstones.purge(control.engine.clock.now_us() + 1)


@pytest.mark.req("R17")
async def test_removed_group_is_forgotten_with_its_last_job_and_one_made_anew_is_a_new_one(tmp_path: Path) -> None:
    async with running(tmp_path) as control:
        await control.resources.create_defaults()
        await control.resources.create_agent(*PATH, "Old words")
        await remove_group(control)
        assert await purge(control) == 0  # its job is kept
        assert control.directory.groups_named("default", "default") == (GROUP,)
        await control.store.retire(control.engine.clock.now_us() + 1, 0, 500)
        assert await purge(control) == 1
        assert await purge(control) == 0

        assert control.directory.removed_groups() == []
        assert control.directory.groups_of("default") == ()
        assert control.directory.group_label(GROUP) == "number-1"
        assert [one.ledger.group for one in control.engine.dispatchers()] == []
        with pytest.raises(NotFoundError, match="the group has been removed"):
            control.engine.dispatcher(GROUP)
        view = await control.resources.create_group("default", "default", "Anew")
        assert (view.row.group_no, view.agents_total, view.environments) == (2, 0, ())
        agent = await control.resources.create_agent(*PATH, "")
        assert (agent.name.agent_no, agent.words.display_name) == (1, "a1")
    async with running(tmp_path) as control:
        assert [row.group_no for row in await control.store.groups()] == [2]
        assert [one.row.display_name for one in control.resources.groups("default")] == ["Anew"]
        assert [one.name.agent_id for one in control.resources.agents("default")] == ["a1"]


@pytest.mark.req("R17")
async def test_removed_agent_is_forgotten_and_the_one_that_has_its_name_now_stays(control: Control) -> None:
    await control.resources.create_agent(*PATH, "First")
    await control.acts.remove(PATH, check=as_it_is)
    second = (await control.resources.create_agent(*PATH, "Second")).name
    assert control.directory.agent_nos(GROUP, "a1") == (1, 2)
    assert await purge(control) == 1
    assert control.directory.agent_nos(GROUP, "a1") == (2,)
    assert control.directory.agent_id(GROUP, AgentNo(1)) == ""
    assert control.resources.agent(*PATH).name == second
    await control.acts.remove(PATH, check=as_it_is)
    assert await control.directory.ensure_agent(GROUP, "a1") == 2  # refused under its old number
    assert await purge(control) == 1
    assert await control.directory.ensure_agent(GROUP, "a1") == 3  # nobody knows that there was one
