"""Outcomes that count, and those that do not: they are refused, and change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.app import Broker
from broker.dispatch.model import JobKey, JobState
from broker.rpc.turns import FUTILE
from protos.mesh.v1 import admin_service_pb2 as admin_pb
from protos.mesh.v1 import agent_service_pb2 as pb
from tests.broker.rpc.peer import (
    agent_on,
    attempts,
    hello,
    key_of,
    stream_to,
    succeeded,
)
from tests.broker.rpc.seen import GROUP, Notices
from tests.broker.running import PARENT, WAIT_S, Api, api_of, settings_of


@pytest.mark.parametrize(
    ("attempt", "why"),
    [(0, "superseded"), (2, "superseded"), (2**32 - 1, "superseded")],
)
async def test_outcome_of_another_attempt_is_refused_and_the_job_untouched(
    broker: Broker, api: Api, attempt: int, why: str
) -> None:
    async with agent_on(broker.mesh_address) as agent:
        (result,) = await api.submit_echo()
        (assign,) = await agent.assigned(1)
        before = await api.job(result.job_id)
        answer = await agent.report(succeeded((assign.job_key, attempt)))
        assert [(one.job_key, one.attempt, one.reason) for one in answer.outcomes_refused] == [
            (assign.job_key, attempt, why)
        ]
        assert await api.job(result.job_id) == before


@pytest.mark.parametrize("job_key", [0, -1, 2**63 - 1, -(2**63)])
async def test_outcome_of_no_job_is_refused(broker: Broker, job_key: int) -> None:
    async with agent_on(broker.mesh_address) as agent:
        answer = await agent.report(succeeded((job_key, 1)))
        assert [(one.job_key, one.reason) for one in answer.outcomes_refused] == [(job_key, "final")]


async def test_report_of_an_attempt_that_is_not_the_agents_is_dear_to_its_source(
    broker: Broker, api: Api, prices: list[int]
) -> None:
    async with agent_on(broker.mesh_address) as agent:
        await api.submit_echo()
        (assign,) = await agent.assigned(1)
        prices.clear()
        await agent.report(succeeded((10**6, 1)), succeeded((10**6 + 1, 1)))
        await agent.report(succeeded(key_of(assign)))
        await agent.report(succeeded((10**6, 1)))
    assert prices == [2, 1 + 2 * FUTILE, 1]


async def test_outcome_of_another_agents_attempt_is_refused_and_the_job_untouched(broker: Broker, api: Api) -> None:
    async with agent_on(broker.mesh_address, "owner") as owner, agent_on(broker.mesh_address, "thief") as thief:
        results = await api.submit_echo(8)
        (mine, *_) = await owner.assigned(4)
        job_id = next(result.job_id for result in results if result.job_key == mine.job_key)
        before = await api.job(job_id)

        answer = await thief.report(succeeded(key_of(mine), b"forged"))
        assert [one.reason for one in answer.outcomes_refused] == ["foreign"]
        assert await api.job(job_id) == before

        await owner.report(succeeded(key_of(mine), b"true"))
        assert (await api.job(job_id)).result.content == b"true"


async def test_outcome_of_a_superseded_attempt_is_refused_after_the_job_was_given_on(
    tmp_path: Path,
) -> None:
    settings = settings_of(tmp_path, dispatch={"accept_timeout_s": 0.05})
    async with Broker(settings) as broker, api_of(broker) as api, agent_on(broker.mesh_address, "slow") as slow:
        (result,) = await api.submit_echo()
        (old,) = await slow.assigned(1)
        async with agent_on(broker.mesh_address, "quick") as quick:
            (new,) = await quick.assigned(1)
            assert (new.job_key, new.attempt) == (old.job_key, 2)
            await quick.accept(key_of(new))
            await quick.settled()
            before = await api.job(result.job_id)

            answer = await slow.report(succeeded(key_of(old), b"late"))
            assert [(one.attempt, one.reason) for one in answer.outcomes_refused] == [(1, "superseded")]
            assert await api.job(result.job_id) == before

            await quick.report(succeeded(key_of(new), b"in time"))
            assert (await api.job(result.job_id)).result.content == b"in time"


async def test_outcome_said_twice_is_acknowledged_once_and_refused_then(broker: Broker, api: Api) -> None:
    async with agent_on(broker.mesh_address) as agent:
        (result,) = await api.submit_echo()
        (assign,) = await agent.assigned(1)
        assert (await agent.report(succeeded(key_of(assign), b"first"))).HasField("outcomes_accepted")
        answer = await agent.report(succeeded(key_of(assign), b"second"))
        assert [one.reason for one in answer.outcomes_refused] == ["final"]
        assert (await api.job(result.job_id)).result.content == b"first"


async def test_outcome_that_a_disabled_agent_announces_in_hello_is_waited_for(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, dispatch={"reconnect_grace_s": 0.05})
    async with Broker(settings) as broker, api_of(broker) as api:
        notices = Notices(broker)
        async with agent_on(broker.mesh_address, "a1") as agent:
            (result,) = await api.submit_echo()
            key = key_of(*await agent.assigned(1))
            await agent.accept(key)
            await agent.settled()
            await api.admin.DisableAgent(admin_pb.DisableAgentRequest(name=f"{PARENT}/agents/a1"), timeout=WAIT_S)
        jobs = broker.engine.dispatcher(GROUP).ledger.jobs
        await notices.until(lambda: jobs[JobKey(key[0])].state is JobState.QUEUED)
        async with stream_to(broker.mesh_address, "a1") as agent:
            await agent.say(hello("a1", held=[key], finished=[key]))
            assert (await agent.welcome()).verdicts == [pb.VERDICT_KEEP]
            async with agent_on(broker.mesh_address, "a2"):
                answer = await agent.report(succeeded(key, b"out"))
        assert answer.outcomes_accepted == attempts(key)
        job = await api.job(result.job_id)
        assert (job.agent, job.attempt, job.result.content) == ("a1", 1, b"out")
