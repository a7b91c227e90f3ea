"""A client that watches a real broker, leaves, and comes back with its token: it misses nothing, or is told so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from broker import app
from broker.app import Broker
from broker.rpc.watch import JobFeed
from mesh_client import JobChange, MeshClient
from tests.broker.running import WAIT_S, settings_of


async def told(changes: AsyncIterator[JobChange], job_ids: set[str]) -> list[JobChange]:
    """Changes until all of these jobs were named."""
    found: list[JobChange] = []
    missing = set(job_ids)
    async with asyncio.timeout(WAIT_S):
        while missing:
            found.append(await anext(changes))
            missing -= {view.job_id for view in found[-1].jobs}
    return found


async def submitted(client: MeshClient, number: int) -> set[str]:
    return {(await client.submit("echo", b"%d" % at)).job_id for at in range(number)}


async def token_after_one_job(address: str) -> tuple[str, set[str]]:
    """The token of a client that has seen one job and is gone, and that job."""
    async with MeshClient(address) as client:
        # From the beginning on: a watch that is not open yet when the job comes would miss it.
        changes = client.watch(resume_token="0")
        seen = await submitted(client, 1)
        (*_, last) = await told(changes, seen)
        return last.resume_token, seen


@pytest.mark.req("R83")
async def test_client_that_comes_back_is_told_all_that_it_missed_and_nothing_again(tmp_path: Path) -> None:
    async with Broker(settings_of(tmp_path)) as broker:
        token, seen = await token_after_one_job(broker.api_address)
        async with MeshClient(broker.api_address) as client:
            missed = await submitted(client, 20)
            for job_id in missed:
                await client.cancel(job_id)
            changes = await told(client.watch(resume_token=token), missed)

    views = [view for change in changes for view in change.jobs]
    assert {view.job_id: view.state for view in views} == dict.fromkeys(missed, "cancelled")
    assert not seen & {view.job_id for view in views}
    assert not any(change.gap for change in changes)


@pytest.mark.req("R83")
async def test_client_that_leaves_before_anything_changed_can_go_on_from_there(tmp_path: Path) -> None:
    async with Broker(settings_of(tmp_path)) as broker, MeshClient(broker.api_address) as client:
        async with asyncio.timeout(WAIT_S):
            first = await anext(client.watch())
        assert (first.jobs, first.gap) == ((), False)
        later = await submitted(client, 3)
        (*_, last) = await told(client.watch(resume_token=first.resume_token), later)
        assert not last.gap


async def test_client_that_comes_back_too_late_is_told_of_the_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "JobFeed", partial(JobFeed, remembered_max=5))
    async with Broker(settings_of(tmp_path)) as broker:
        token, _ = await token_after_one_job(broker.api_address)
        async with MeshClient(broker.api_address) as client:
            await submitted(client, 20)
            async with asyncio.timeout(WAIT_S):
                first = await anext(client.watch(resume_token=token))

    assert first.gap
    assert len(first.jobs) <= 5


async def test_client_that_goes_on_over_a_restart_is_told_of_the_gap_once(tmp_path: Path) -> None:
    async with Broker(settings_of(tmp_path)) as broker:
        token, _ = await token_after_one_job(broker.api_address)
        async with MeshClient(broker.api_address) as other:
            await submitted(other, 1)
    async with Broker(settings_of(tmp_path)) as broker, MeshClient(broker.api_address) as client:
        changes = client.watch(resume_token=token)
        async with asyncio.timeout(WAIT_S):
            first = await anext(changes)
        later = await submitted(client, 3)
        rest = await told(changes, later)

    assert (first.gap, first.jobs) == (True, ())
    assert not any(change.gap for change in rest)
