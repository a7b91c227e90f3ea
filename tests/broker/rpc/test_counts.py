"""What the ports count for the metrics page: frames, refused reports, refused submissions; over real streams."""

from __future__ import annotations

from pathlib import Path

from broker.app import Broker
from protos.mesh.v1 import agent_service_pb2, job_service_pb2
from tests.broker.rpc.peer import agent_on, attempts, hello, key_of, stream_to, succeeded
from tests.broker.running import Api, api_of, echo, metric, refused, settings_of

GROUP = {"group": "default/default"}


async def frames(broker: Broker, direction: str) -> float:
    return await metric(broker, "mesh_frames_total", direction=direction, **GROUP)


async def reports(broker: Broker, reason: str) -> float:
    return await metric(broker, "mesh_reports_refused_total", **GROUP, reason=reason)


async def refusals(broker: Broker, reason: str, group: str = GROUP["group"]) -> float:
    return await metric(broker, "mesh_submissions_refused_total", group=group, reason=reason)


async def test_frames_of_a_stream_are_counted_both_ways(broker: Broker, api: Api) -> None:
    async with agent_on(broker.mesh_address) as agent:
        await api.submit_echo(3)
        keys = [key_of(one) for one in await agent.assigned(3)]
        await agent.report(*(succeeded(key) for key in keys))
        assert await frames(broker, "received") == 2  # Hello, the outcomes
        assert 3 <= await frames(broker, "sent") <= 5  # Welcome, the assignments, the answers


async def test_outcome_of_a_job_that_nobody_knows_is_refused_and_counted(broker: Broker) -> None:
    async with agent_on(broker.mesh_address) as agent:
        await agent.report(succeeded((9_999, 1)))
        assert await reports(broker, "final") == 1


async def test_outcome_for_another_agents_attempt_is_refused_and_counted_as_foreign(broker: Broker, api: Api) -> None:
    async with agent_on(broker.mesh_address, "a1") as owner:
        await api.submit_echo()
        key = key_of((await owner.assigned(1))[0])
        async with agent_on(broker.mesh_address, "a2") as forger:
            answer = await forger.report(succeeded(key))
        assert [one.job_key for one in answer.outcomes_refused] == [key[0]]
        assert await reports(broker, "foreign") == 1
        assert len((await owner.report(succeeded(key))).outcomes_accepted.job_keys) == 1


async def test_report_that_an_attempt_runs_which_is_not_the_latest_is_counted(broker: Broker) -> None:
    async with agent_on(broker.mesh_address) as agent:
        await agent.say(agent_service_pb2.AgentFrame(accepted=attempts((9_999, 1))))
        await agent.frame_with("cancels")
        assert await reports(broker, "not_latest") == 1
        assert await reports(broker, "superseded") == 0


async def test_attempt_that_an_agent_still_holds_in_vain_is_counted_at_its_hello(broker: Broker) -> None:
    async with stream_to(broker.mesh_address) as agent:
        await agent.say(hello("a1", held=[(9_999, 1)]))
        await agent.welcome()
        assert await reports(broker, "not_latest") == 1


async def test_jobs_that_are_refused_one_by_one_are_counted_by_group_and_reason(broker: Broker, api: Api) -> None:
    await api.submit(echo(idempotency_key="one", payload=b"first"))
    results = await api.submit(
        echo(idempotency_key="one", payload=b"second"),
        echo(),
        echo(idempotency_key="one", payload=b"third"),
    )
    assert [result.HasField("error") for result in results] == [True, False, True]
    assert await refusals(broker, "IDEMPOTENCY_KEY_REUSED") == 2
    assert await metric(broker, "mesh_jobs_submitted_total", **GROUP) == 2


async def test_batch_for_no_group_counts_each_of_its_jobs_without_a_group(broker: Broker, api: Api) -> None:
    refusal = await refused(api.submit(echo(), echo(), parent="organizations/default/groups/elsewhere"))
    assert await refusals(broker, refusal.reason, group="") == 2


async def test_batch_that_the_mailbox_has_no_room_for_counts_in_its_group(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, limits={"mailbox_submissions": 4, "batch_submissions": 4})
    async with Broker(settings) as broker, api_of(broker) as api:
        await refused(api.submit_echo(5))
        assert await refusals(broker, "MAILBOX_FULL") == 5


async def test_jobs_that_break_the_contract_are_counted_in_a_call_and_on_a_stream(broker: Broker, api: Api) -> None:
    wrong = job_service_pb2.JobSpec(operation="Not An Operation")
    await refused(api.submit(wrong, wrong))
    assert await refusals(broker, "INVALID_MESSAGE", group="") == 2

    call = api.jobs.SubmitStream()
    batch = job_service_pb2.SubmitJobsRequest(parent="organizations/default/groups/default", jobs=[wrong])
    await call.write(job_service_pb2.SubmitStreamRequest(batch_seq=1, batch=batch))
    answer = await call.read()
    assert isinstance(answer, job_service_pb2.SubmitStreamResponse)
    assert answer.HasField("error")
    await call.done_writing()
    assert await refusals(broker, "INVALID_MESSAGE", group="") == 3
