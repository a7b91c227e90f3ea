"""The agent against a broker of a few lines, over real gRPC on the loopback."""

from __future__ import annotations

import asyncio
import os

import grpc
import grpc.aio
import pytest

from protos.mesh.v1 import agent_service_pb2 as pb
from protos.mesh.v1 import job_pb2
from tests.agent_stub.agents import Tries, running
from tests.agent_stub.broker import WAIT_S, Broker, assign, attempts, duration, welcome


async def test_agent_says_who_and_what_it_is() -> None:
    async with Broker() as broker, running(broker, slots=3, prefetch=1):
        session = await broker.session()
        hello = session.hello
        assert session.identity == "acme/plant/a1"
        assert len(hello.incarnation_id) == 16
        assert (hello.connect_seq, hello.slots, hello.capacity.attempts) == (1, 3, 6)
        assert list(hello.operations) == [
            "block",
            "chatter",
            "chatter.process",
            "echo",
            "facts",
            "spin",
            "spin.async",
            "steps",
            "tell",
            "wait",
            "write",
        ]
        assert (hello.pid, hello.ip, dict(hello.labels)) == (os.getpid(), "127.0.0.1", {"zone": "a"})
        assert hello.host
        assert hello.version
        assert hello.started_at.seconds > 0


async def test_agent_runs_what_it_is_assigned_and_reports_it_until_acknowledged() -> None:
    async with Broker() as broker, running(broker) as agent:
        session = await broker.session()
        await session.assign(assign(1, "echo", b"hello"))
        outcome = await session.outcome()
        assert (outcome.job_key, outcome.attempt) == (1, 1)
        assert outcome.status == job_pb2.OUTCOME_STATUS_SUCCEEDED
        assert (outcome.result.content, outcome.result.content_type) == (b"hello", "application/octet-stream")
        assert agent.agent.session.held == 1
        await session.acknowledge(outcome)
        await session.assign(assign(2, "echo"))
        await session.outcome()
        assert agent.agent.session.held == 1


async def test_agent_states_its_capacity_anew_when_its_group_says_how_much_is_given_ahead() -> None:
    async with Broker() as broker, running(broker, slots=3, prefetch=1):
        session = await broker.session()
        for said, capacity in ((0.5, 4), (4, 15), (float("nan"), 6), (0, 3), (None, 6)):
            await session.send(pb.BrokerFrame(group_settings=pb.GroupSettings(prefetch=said)))
            assert (await session.frame_with("capacity")).capacity.attempts == capacity


async def test_outcomes_of_one_frame_of_inline_jobs_share_a_frame_without_accepts() -> None:
    async with Broker() as broker, running(broker, slots=100):
        session = await broker.session()
        await session.assign(*[assign(job, "echo") for job in range(100)])
        frame = await session.frame_with("outcomes")
        assert len(frame.outcomes) == 100
        assert not frame.HasField("accepted")
        assert not frame.HasField("started")


async def test_accept_and_start_are_reported_before_a_longer_run_ends() -> None:
    async with Broker() as broker, running(broker) as agent:
        session = await broker.session()
        await session.assign(assign(1, "wait", attempt=3))
        frame = await session.frame_with("accepted")
        assert frame.accepted == attempts((1, 3))
        assert frame.started == attempts((1, 3))
        agent.handlers.go_on.set()
        assert (await session.outcome()).attempt == 3


async def test_handler_is_given_what_was_assigned() -> None:
    async with Broker() as broker, running(broker):
        session = await broker.session()
        job = assign(0x0102, "facts", attempt=2)
        job.metadata["traceparent"] = "00-1"
        await session.assign(job)
        content = (await session.outcome()).result.content
        expected = b'{"job_id":"00000000-0000-0000-0000-000000000102","attempt":2,"metadata":{"traceparent":"00-1"}}'
        assert content == expected


async def test_progress_and_checkpoint_travel_both_ways() -> None:
    async with Broker() as broker, running(broker):
        session = await broker.session()
        job = assign(1, "steps")
        job.checkpoint = b"row 5"
        await session.assign(job)
        frame = await session.frame_with("progress")
        assert (frame.progress[0].fraction, frame.progress[0].checkpoint) == (0.5, b"row 10")
        outcome = frame.outcomes[0] if frame.outcomes else await session.outcome()
        assert outcome.result.content == b"row 5"


async def test_unknown_operation_is_rejected() -> None:
    async with Broker() as broker, running(broker):
        session = await broker.session()
        await session.assign(assign(1, "teleport"))
        rejected = (await session.frame_with("rejected")).rejected[0]
        assert (rejected.job_key, rejected.reason) == (1, pb.REJECTED_REASON_UNFIT)


async def test_outcome_is_kept_across_a_reconnect_and_said_again() -> None:
    async with Broker() as broker, running(broker) as agent:
        first = await broker.session()
        await first.assign(assign(1, "echo", b"x"), assign(2, "wait"))
        await first.frame_with("outcomes")
        await agent.handlers.begun.get()
        await first.cut()
        second = await broker.session()
        assert second.hello.connect_seq > first.hello.connect_seq
        assert [outcome.job_key for outcome in second.hello.outcomes] == [1]
        assert second.hello.held == attempts((2, 1))
        await second.acknowledge(*second.hello.outcomes)
        agent.handlers.go_on.set()
        assert (await second.outcome()).job_key == 2


async def test_run_that_a_verdict_stops_ends_and_is_not_held_any_more() -> None:
    async with Broker() as broker, running(broker) as agent:
        first = await broker.session()
        await first.assign(assign(1, "wait"))
        await agent.handlers.begun.get()
        broker.answer = lambda hello: welcome(hello, (1, 1))
        await first.cut()
        second = await broker.session()
        assert second.hello.held == attempts((1, 1))
        assert (await second.outcome()).status == job_pb2.OUTCOME_STATUS_CANCELLED
        assert agent.agent.session.held == 0
        await second.cut()
        assert not (await broker.session()).hello.held.job_keys


async def test_superseded_attempt_is_cancelled_before_the_next_one_of_its_job_runs() -> None:
    async with Broker() as broker, running(broker) as agent:
        session = await broker.session()
        await session.assign(assign(1, "wait"))
        assert await agent.handlers.begun.get() == (1, 1)
        cancel = pb.Cancel(job_key=1, attempt=1, reason=pb.CANCEL_REASON_SUPERSEDED, grace=duration(1))
        await session.send(pb.BrokerFrame(cancels=[cancel], assigns=[assign(1, "wait", attempt=2)]))
        outcome = await session.outcome()
        assert (outcome.attempt, outcome.status) == (1, job_pb2.OUTCOME_STATUS_CANCELLED)
        assert await agent.handlers.begun.get() == (1, 2)
        refused = pb.OutcomeRefused(job_key=1, attempt=1, reason="superseded")
        await session.send(pb.BrokerFrame(outcomes_refused=[refused]))
        agent.handlers.go_on.set()
        assert (await session.outcome()).attempt == 2
        assert agent.agent.session.held == 1


async def test_cancel_of_an_unknown_attempt_is_answered() -> None:
    async with Broker() as broker, running(broker):
        session = await broker.session()
        await session.send(pb.BrokerFrame(cancels=[pb.Cancel(job_key=9, attempt=4)]))
        outcome = await session.outcome()
        assert (outcome.job_key, outcome.attempt, outcome.status) == (9, 4, job_pb2.OUTCOME_STATUS_CANCELLED)


async def test_exclusive_operation_is_fenced_when_the_broker_falls_silent_and_reported_on_the_next_stream() -> None:
    async with Broker(lambda hello: welcome(hello, lease_s=1.0)) as broker, running(broker):
        first = await broker.session()
        first.acknowledges_heartbeats = False
        await first.assign(assign(1, "block"))
        await first.frame_with("accepted")
        outcome = await first.outcome()
        assert outcome.status == job_pb2.OUTCOME_STATUS_FENCED
        second = await broker.session()
        assert [one.status for one in second.hello.outcomes] == [job_pb2.OUTCOME_STATUS_FENCED]


async def test_heartbeats_say_what_the_process_uses_and_keep_the_stream() -> None:
    async with Broker(lambda hello: welcome(hello, lease_s=0.5)) as broker, running(broker) as agent:
        session = await broker.session()
        beats = [(await session.frame_with("heartbeat")).heartbeat for _ in range(4)]
        assert [beat.seq for beat in beats] == [1, 2, 3, 4]
        assert beats[-1].memory_bytes > 1_000_000
        assert agent.agent.session.is_live
        assert broker.hellos == 1


async def test_heartbeats_go_on_while_a_function_blocks_its_thread() -> None:
    async with Broker(lambda hello: welcome(hello, lease_s=0.5)) as broker, running(broker, slots=1):
        session = await broker.session()
        await session.assign(assign(1, "block"))
        await session.frame_with("accepted")
        beats = [(await session.frame_with("heartbeat")).heartbeat for _ in range(4)]
        assert [beat.held for beat in beats] == [1] * 4


async def test_resync_is_answered_on_the_same_stream() -> None:
    async with Broker() as broker, running(broker) as agent:
        session = await broker.session()
        await session.assign(assign(1, "wait"))
        await agent.handlers.begun.get()
        await session.send(pb.BrokerFrame(resync=pb.Resync(reason="rebuilt")))
        hello = (await session.frame_with("hello")).hello
        assert hello.held == attempts((1, 1))
        assert hello.incarnation_id == session.hello.incarnation_id
        await session.send(welcome(hello, epoch=2))
        await session.assign(assign(2, "echo"))
        assert (await session.outcome()).job_key == 2
        assert broker.hellos == 1


async def test_agent_leaves_a_session_whose_epoch_is_lower_than_one_it_has_seen() -> None:
    epochs = iter([7, 6, 8])
    async with Broker(lambda hello: welcome(hello, epoch=next(epochs))) as broker, running(broker) as agent:
        await (await broker.session()).cut()
        stale = await broker.session()
        fresh = await broker.session()
        async with asyncio.timeout(WAIT_S):
            await stale.ended.wait()
        await fresh.assign(assign(1, "echo"))
        await fresh.outcome()
        assert agent.agent.session.epoch == 8


async def test_malformed_frame_ends_the_stream_and_the_agent_dials_again() -> None:
    async with Broker() as broker, running(broker):
        first = await broker.session()
        crooked = pb.AttemptList(job_keys=[1, 2], attempts=[1])
        await first.send(pb.BrokerFrame(outcomes_accepted=crooked))
        second = await broker.session()
        await second.assign(assign(1, "echo"))
        await second.outcome()


async def test_reject_that_may_be_retried_is_retried_after_the_time_it_names() -> None:
    def answer(hello: pb.Hello) -> pb.BrokerFrame:
        if hello.connect_seq > 2:
            return welcome(hello)
        reject = pb.Reject(code=pb.REJECT_CODE_OVERLOADED, should_retry=True, retry_after=duration(0.05))
        return pb.BrokerFrame(reject=reject)

    async with Broker(answer) as broker, running(broker):
        began = asyncio.get_running_loop().time()
        session = await broker.session()
        assert asyncio.get_running_loop().time() - began >= 0.1
        assert session.hello.previous_attempts == 2


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        (pb.REJECT_CODE_REMOVED, 4),
        (pb.REJECT_CODE_UNKNOWN_AGENT, 4),
        (pb.REJECT_CODE_VERSION_TOO_OLD, 6),
        (pb.REJECT_CODE_SUPERSEDED, 6),
    ],
)
async def test_reject_without_retry_ends_the_agent_with_its_words(
    code: pb.RejectCode.ValueType, exit_code: int, caplog: pytest.LogCaptureFixture
) -> None:
    reject = pb.Reject(code=code, reason="ask the operator", should_retry=False)
    async with Broker(lambda _: pb.BrokerFrame(reject=reject)) as broker, running(broker) as agent:
        assert await agent.exit_code() == exit_code
        assert broker.hellos == 1
    refused = [vars(record)["fields"] for record in caplog.records if record.message == "session.refused"]
    assert [fields["reason"] for fields in refused] == ["ask the operator"]


async def test_reject_in_the_middle_of_a_session_ends_the_agent_too() -> None:
    async with Broker() as broker, running(broker) as agent:
        session = await broker.session()
        await session.send(pb.BrokerFrame(reject=pb.Reject(code=pb.REJECT_CODE_REVOKED)))
        assert await agent.exit_code() == 4


async def test_go_away_moves_the_agent_to_the_broker_that_it_names() -> None:
    async with Broker() as old, Broker() as new, running(old) as agent:
        session = await old.session()
        await session.assign(assign(1, "wait"))
        await agent.handlers.begun.get()
        await session.send(pb.BrokerFrame(go_away=pb.GoAway(reason="moved", preferred_broker=new.address)))
        moved = await new.session()
        assert moved.hello.held == attempts((1, 1))
        await moved.cut()
        assert (await old.session()).hello.held == attempts((1, 1))


async def test_go_away_to_an_address_beyond_the_machine_is_not_followed_without_certificates() -> None:
    async with Broker() as broker, running(broker):
        session = await broker.session()
        await session.send(pb.BrokerFrame(go_away=pb.GoAway(preferred_broker="192.0.2.1:7401")))
        assert (await broker.session()).hello.connect_seq == 2


async def test_drained_agent_finishes_delivers_and_leaves_with_goodbye() -> None:
    async with Broker() as broker, running(broker) as agent:
        session = await broker.session()
        await session.assign(assign(1, "wait"))
        await agent.handlers.begun.get()
        agent.agent.drain("SIGTERM")
        assert (await session.frame_with("drain_request")).drain_request.reason == "SIGTERM"
        agent.handlers.go_on.set()
        outcome = await session.outcome()
        assert not agent.task.done()
        await session.acknowledge(outcome)
        assert (await session.frame_with("goodbye")).goodbye.reason == "SIGTERM"
        assert await agent.exit_code() == 0


async def test_drained_agent_keeps_its_outcome_path_across_a_cut() -> None:
    async with Broker() as broker, running(broker) as agent:
        first = await broker.session()
        await first.assign(assign(1, "wait"))
        await agent.handlers.begun.get()
        agent.agent.drain("SIGTERM")
        await first.frame_with("drain_request")
        await first.cut()
        second = await broker.session()
        agent.handlers.go_on.set()
        await second.acknowledge(await second.outcome())
        await second.frame_with("goodbye")
        assert await agent.exit_code() == 0


async def test_operators_drain_to_stop_ends_the_agent_and_one_to_pause_does_not() -> None:
    async with Broker() as broker, running(broker) as agent:
        session = await broker.session()
        await session.send(pb.BrokerFrame(drain=pb.Drain(mode=pb.DRAIN_MODE_PAUSE, reason="patch day")))
        assert (await session.frame_with("drain_status")).drain_status.remaining == attempts()
        await session.send(pb.BrokerFrame(drain_done=pb.DrainDone(mode=pb.DRAIN_MODE_PAUSE)))
        await session.assign(assign(1, "echo"))
        await session.acknowledge(await session.outcome())
        await session.send(pb.BrokerFrame(drain_done=pb.DrainDone(mode=pb.DRAIN_MODE_STOP)))
        assert (await session.frame_with("goodbye")).goodbye.reason == "drained"
        assert await agent.exit_code() == 0


async def test_agent_without_a_broker_and_work_leaves_when_drained() -> None:
    async with Broker() as broker:
        pass
    async with running(broker) as agent:
        agent.agent.drain("SIGTERM")
        assert await agent.exit_code() == 0


async def test_stopped_agent_leaves_at_once_with_work_in_hand() -> None:
    async with Broker() as broker, running(broker) as agent:
        session = await broker.session()
        await session.assign(assign(1, "wait"))
        await agent.handlers.begun.get()
        agent.agent.drain("SIGTERM")
        agent.agent.stop()
        assert await agent.exit_code() == 130


async def test_agent_comes_back_when_its_broker_does() -> None:
    tries = Tries(3)
    async with Broker() as gone:
        pass
    async with running(gone, generator=tries):
        async with asyncio.timeout(WAIT_S):
            await tries.enough.wait()
        async with Broker(address=gone.address) as back:
            session = await back.session()
            assert session.hello.previous_attempts >= 3
            await session.assign(assign(1, "echo"))
            await session.outcome()


# --- what the log says of a broker that is not there ----------------------------------------------------------------


async def test_broker_that_was_never_reached_is_a_warning_with_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    async with Broker() as gone:
        pass
    tries = Tries(2)
    with caplog.at_level("INFO", "mesh.agent"):
        async with running(gone, generator=tries):
            await asyncio.wait_for(tries.enough.wait(), WAIT_S)
    said = [record for record in caplog.records if record.message in ("broker.unreachable", "session.ended")]
    assert {(record.levelname, record.message) for record in said} == {("WARNING", "broker.unreachable")}
    assert "start the broker" in vars(said[0])["fields"]["remedy"]


async def test_port_of_the_api_is_named_when_nothing_there_is_for_agents(caplog: pytest.LogCaptureFixture) -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    tries = Tries(2)
    async with running(Broker(address=f"127.0.0.1:{port}"), generator=tries):
        await asyncio.wait_for(tries.enough.wait(), WAIT_S)
    await server.stop(None)
    said = next(record for record in caplog.records if record.message == "broker.unreachable")
    assert "agents use the mesh port (7401)" in vars(said)["fields"]["remedy"]


async def test_session_that_another_process_took_over_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    tries = Tries(1)
    async with Broker() as broker, running(broker, generator=tries):
        session = await broker.session()
        await session.abort(grpc.StatusCode.ABORTED, "SUPERSEDED: another process has this name")
        await asyncio.wait_for(tries.enough.wait(), WAIT_S)
    (ended,) = [record for record in caplog.records if record.message == "session.ended"]
    assert ended.levelname == "WARNING"
    assert "end the other process of this name" in vars(ended)["fields"]["remedy"]
