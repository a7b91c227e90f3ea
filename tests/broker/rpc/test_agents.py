"""The agent stream over real gRPC: what a well-behaved agent gets, and what any other one does not do to the rest."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import grpc
import pytest

from broker.app import Broker
from broker.dispatch.messages import DrainCancelled, DrainRequested
from broker.dispatch.model import AgentNo, DrainEnd, DrainThen, Link
from broker.rpc.admission import Admission, Turn
from broker.store.base import CommitOutcome, CommitRequest
from protos.mesh.v1 import admin_service_pb2 as admin_pb
from protos.mesh.v1 import agent_service_pb2 as pb
from protos.mesh.v1 import job_pb2
from protos.mesh.v1.job_service_pb2 import CancelJobRequest, JobSpec
from tests.broker.rpc.peer import (
    CONNECT,
    Key,
    Peer,
    agent_on,
    attempts,
    hello,
    key_of,
    stream_to,
    succeeded,
    tasks_of,
)
from tests.broker.rpc.seen import GROUP, Notices, Stall, status_of, stored_agent, until_blocked
from tests.broker.running import PARENT, WAIT_S, Api, api_of, channel_to, echo, raw_stream, settings_of

# --- a well-behaved agent -------------------------------------------------------------------------------------------


async def test_agent_runs_a_job_from_hello_to_the_acknowledged_outcome(broker: Broker, api: Api) -> None:
    async with agent_on(broker.mesh_address) as agent:
        (result,) = await api.submit(echo(payload=b"in", content_type="text/plain", metadata={"trace": "t1"}))
        (assign,) = await agent.assigned(1)
        assert (assign.operation, assign.payload, assign.content_type) == ("echo", b"in", "text/plain")
        assert (assign.job_id, assign.job_key, assign.attempt) == (result.job_id, result.job_key, 1)
        assert dict(assign.metadata) == {"trace": "t1"}

        await agent.accept(key_of(assign))
        answer = await agent.report(succeeded(key_of(assign), b"out"))

        assert answer.outcomes_accepted == attempts(key_of(assign))
        job = await api.job(result.job_id)
        assert (job.state, job.agent, job.result.content) == (job_pb2.JOB_STATE_SUCCEEDED, "a1", b"out")
        assert job.started_at.ToMicroseconds() >= job.assigned_at.ToMicroseconds() > 0


async def test_agent_learns_limits_and_times_in_welcome(tmp_path: Path) -> None:
    tables = {"dispatch": {"profile": "fast", "cancel_grace_s": 3}, "limits": {"result_bytes_max": 77}}
    async with Broker(settings_of(tmp_path, **tables)) as broker, stream_to(broker.mesh_address) as agent:
        await agent.say(hello("a1"))
        welcome = await agent.welcome()
    assert welcome.epoch == 1
    assert welcome.lease.ToMilliseconds() == 2_500
    assert welcome.lease_margin.ToMilliseconds() == 500
    assert welcome.heartbeat_interval.ToMilliseconds() == 400
    assert welcome.cancel_grace.seconds == 3
    assert welcome.recovery_grace.ToMicroseconds() == broker.engine.policy.recovery_grace_us
    assert welcome.limits.result_bytes_max == 77


async def test_agent_learns_what_a_loss_would_do_to_each_job(tmp_path: Path) -> None:
    said = {"pay": "fail", "move": "hold"}
    settings = settings_of(tmp_path, operations={name: {"on_loss": on_loss} for name, on_loss in said.items()})
    async with Broker(settings) as broker, api_of(broker) as api, stream_to(broker.mesh_address) as agent:
        await agent.say(hello("a1", operations=["echo", *said]))
        await agent.welcome()
        await api.submit(echo(), *(JobSpec(operation=name) for name in said))
        found = {assign.operation: assign.on_loss for assign in await agent.assigned(3)}
    assert found == {"echo": pb.ON_LOSS_UNSPECIFIED, "pay": pb.ON_LOSS_FAIL, "move": pb.ON_LOSS_HOLD}


async def test_mesh_is_the_same_after_a_restart_and_in_a_copy_of_the_store_and_another_in_a_new_one(
    tmp_path: Path,
) -> None:
    async def mesh_of(folder: Path) -> str:
        async with Broker(settings_of(folder)) as broker, stream_to(broker.mesh_address) as agent:
            await agent.say(hello("a1"))
            return (await agent.welcome()).mesh_id

    first = await mesh_of(tmp_path)
    shutil.copytree(tmp_path / "data", tmp_path / "copy" / "data")
    assert len(first) == 36
    assert await mesh_of(tmp_path) == await mesh_of(tmp_path / "copy") == first
    assert await mesh_of(tmp_path / "new") != first


@pytest.mark.parametrize("in_hand", ["held", "outcomes", "nothing"])
async def test_agent_with_something_of_another_mesh_in_hand_is_refused_in_words_and_changes_nothing(
    broker: Broker, api: Api, in_hand: str
) -> None:
    async with stream_to(broker.mesh_address) as agent:
        said = hello("a1", held=[(7, 1)] if in_hand == "held" else [])
        if in_hand == "outcomes":
            said.hello.outcomes.append(succeeded((7, 1)))
        said.hello.mesh_id = "north"
        await agent.say(said)
        frame = await agent.frame_with("welcome", "reject")
    if in_hand == "nothing":
        assert frame.welcome.mesh_id == broker.store.mesh_id
        return
    assert (frame.reject.code, frame.reject.should_retry) == (pb.REJECT_CODE_WRONG_MESH, True)
    assert f"this broker is of mesh {broker.store.mesh_id}" in frame.reject.reason
    assert "of mesh north in hand" in frame.reject.reason
    assert not broker.engine.dispatcher(GROUP).ledger.agents


async def test_handlers_that_do_not_stop_are_shown_with_their_agent_while_it_is_there(broker: Broker, api: Api) -> None:
    name = f"{PARENT}/agents/a1"

    async def stuck() -> tuple[int, list[bool]]:
        found = await api.admin.GetAgent(admin_pb.GetAgentRequest(name=name), timeout=WAIT_S)
        said = await api.admin.ExplainAgent(admin_pb.ExplainAgentRequest(name=name), timeout=WAIT_S)
        return found.stuck, [attempt.is_stuck for attempt in said.attempts]

    async with agent_on(broker.mesh_address) as agent:
        await api.submit_echo(2)
        first, second = (key_of(assign) for assign in await agent.assigned(2))
        await agent.accept(first, second)
        await agent.say(pb.AgentFrame(heartbeat=pb.Heartbeat(seq=1, stuck=attempts(second))))
        await agent.settled()
        assert await stuck() == (1, [False, True])
        await agent.say(pb.AgentFrame(heartbeat=pb.Heartbeat(seq=2)))
        await agent.settled()
        assert await stuck() == (0, [False, False])
        await agent.say(pb.AgentFrame(heartbeat=pb.Heartbeat(seq=3, stuck=attempts(*([first] * 200)))))
        await agent.settled()
        assert (await stuck())[0] == 1
    notices = Notices(broker)
    await notices.until(lambda: stored_agent(broker) is Link.GONE)
    assert (await stuck())[0] == 0


async def test_stream_that_is_rejected_leaves_what_the_live_one_says_of_its_handlers(broker: Broker, api: Api) -> None:
    request = admin_pb.GetAgentRequest(name=f"{PARENT}/agents/a1")
    async with stream_to(broker.mesh_address) as live, stream_to(broker.mesh_address) as older:
        await live.say(hello("a1", connect_seq=5))
        await live.welcome()
        await api.submit_echo()
        (assign,) = await live.assigned(1)
        await live.accept(key_of(assign))
        await live.say(pb.AgentFrame(heartbeat=pb.Heartbeat(seq=1, stuck=attempts(key_of(assign)))))
        await live.settled()
        said = hello("a1", connect_seq=4)
        said.heartbeat.stuck.CopyFrom(attempts(key_of(assign), (99, 1)))
        await older.say(said)
        assert (await older.frame_with("reject")).reject.code == pb.REJECT_CODE_SUPERSEDED
        await older.ending()
        await live.settled()
        assert (await api.admin.GetAgent(request, timeout=WAIT_S)).stuck == 1


async def test_heartbeat_with_lists_of_unequal_length_ends_the_stream(broker: Broker) -> None:
    async with agent_on(broker.mesh_address) as agent:
        wrong = pb.AttemptList(job_keys=[1, 2], attempts=[1])
        await agent.say(pb.AgentFrame(heartbeat=pb.Heartbeat(seq=1, stuck=wrong)))
        code, text = await agent.ending()
        assert (code, "2 job keys and 1 attempts" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True)


async def test_agent_is_answered_each_heartbeat_also_beside_hello(broker: Broker) -> None:
    async with stream_to(broker.mesh_address) as agent:
        first = hello("a1")
        first.heartbeat.seq = 7
        await agent.say(first)
        assert (await agent.frame_with("heartbeat_ack")).heartbeat_ack == pb.HeartbeatAck(seq=7, epoch=1)
        await agent.say(pb.AgentFrame(heartbeat=pb.Heartbeat(seq=2**64 - 1)))
        assert (await agent.frame_with("heartbeat_ack")).heartbeat_ack.seq == 2**64 - 1


async def test_agent_gets_the_cancel_and_confirms_it(broker: Broker, api: Api) -> None:
    async with agent_on(broker.mesh_address) as agent:
        (result,) = await api.submit_echo()
        (assign,) = await agent.assigned(1)
        await agent.accept(key_of(assign))
        await agent.settled()
        name = (await api.job(result.job_id)).name
        cancelled = await api.jobs.CancelJob(CancelJobRequest(name=name), timeout=WAIT_S)
        assert (cancelled.job.state, cancelled.job.cancel_requested) == (job_pb2.JOB_STATE_RUNNING, True)

        (cancel,) = (await agent.frame_with("cancels")).cancels
        assert (cancel.job_key, cancel.attempt, cancel.reason) == (assign.job_key, 1, pb.CANCEL_REASON_REQUESTED)
        stopped = pb.Outcome(job_key=assign.job_key, attempt=1, status=job_pb2.OUTCOME_STATUS_CANCELLED)
        await agent.report(stopped)
        assert (await api.job(result.job_id)).state == job_pb2.JOB_STATE_CANCELLED


async def test_result_over_the_limit_turns_the_outcome_into_a_failure_that_says_so(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, limits={"result_bytes_max": 10, "failure_message_bytes_max": 64})
    async with Broker(settings) as broker, api_of(broker) as api, agent_on(broker.mesh_address) as agent:
        first, second = await api.submit_echo(2)
        keys = [key_of(assign) for assign in await agent.assigned(2)]
        await agent.report(succeeded(keys[0], b"x" * 11))
        failure = job_pb2.Failure(code="c" * 500, message="é" * 500)
        await agent.report(
            pb.Outcome(job_key=keys[1][0], attempt=1, status=job_pb2.OUTCOME_STATUS_FAILED, failure=failure)
        )
        large, long = await api.job(first.job_id), await api.job(second.job_id)
    assert (large.state, large.failure.code) == (job_pb2.JOB_STATE_FAILED, "result_too_large")
    assert (long.failure.code, long.failure.message) == ("c" * 128, "é" * 32)


async def test_unknown_fields_of_a_newer_agent_are_ignored(broker: Broker) -> None:
    newer = bytes([0xF2, 0x3F, 3]) + b"new"  # field 1022, three bytes
    async with channel_to(broker.mesh_address) as channel:
        call = raw_stream(channel, CONNECT, ("mesh-dev-identity", "default/default/a1"))
        await call.write(hello("a1").SerializeToString() + newer)
        frame = pb.BrokerFrame.FromString(await call.read())
        assert frame.HasField("welcome")
        await call.write(pb.AgentFrame(heartbeat=pb.Heartbeat(seq=1)).SerializeToString() + newer)
        assert pb.BrokerFrame.FromString(await call.read()).heartbeat_ack.seq == 1
        call.cancel()


# --- who may not begin ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "identity", ["", "a1", "default/default", "default/default/a1/x", "default/default/A1", "default/../a1", "//"]
)
async def test_agent_is_unauthenticated_when_it_says_nobody(broker: Broker, identity: str) -> None:
    async with stream_to(broker.mesh_address, identity=identity) as agent:
        code, text = await agent.ending()
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "mesh-dev-identity" in text


async def test_agent_of_an_unknown_group_is_rejected_without_retry(broker: Broker) -> None:
    for identity in ("default/other/a1", "other/default/a1"):
        async with stream_to(broker.mesh_address, identity=identity) as agent:
            await agent.say(hello("a1"))
            reject = (await agent.frame()).reject
            assert (reject.code, reject.should_retry) == (pb.REJECT_CODE_UNKNOWN_GROUP, False)
            assert "`mesh groups create " in reject.reason
            assert await agent.ending() == (grpc.StatusCode.OK, "")
    assert not broker.engine.dispatcher(GROUP).ledger.agents


async def test_stream_ends_when_its_first_frame_is_not_hello(broker: Broker) -> None:
    async with stream_to(broker.mesh_address) as agent:
        await agent.say(pb.AgentFrame(heartbeat=pb.Heartbeat(seq=1)))
        assert await agent.ending() == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "the first frame of a stream must hold `hello`",
        )


async def test_stream_ends_when_no_hello_comes(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.rpc.agents.HELLO_WAIT_S", 0.05)
    async with stream_to(broker.mesh_address) as agent:
        code, text = await agent.ending()
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "no Hello within 0.05 s" in text


async def test_stream_that_is_closed_before_hello_is_told_so(broker: Broker) -> None:
    async with stream_to(broker.mesh_address) as agent:
        await agent.call.done_writing()
        code, text = await agent.ending()
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert text == "the stream was closed before its Hello; send it as the first frame"


async def test_hello_that_breaks_the_contract_names_the_field(broker: Broker) -> None:
    async with stream_to(broker.mesh_address) as agent:
        frame = hello("a1")
        frame.hello.incarnation_id = b"short"
        await agent.say(frame)
        code, text = await agent.ending()
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "hello.incarnation_id" in text


async def test_hello_over_the_rate_waits_for_its_turn_and_one_too_many_is_told_when_to_come_again(
    tmp_path: Path,
) -> None:
    tables = {"dispatch": {"profile": "fast"}, "limits": {"hellos_per_s": 1}}  # half of its lease is 1.25 s
    async with Broker(settings_of(tmp_path, **tables)) as broker, AsyncExitStack() as stack:
        agents = [await stack.enter_async_context(stream_to(broker.mesh_address, f"a{number}")) for number in range(4)]
        for number, agent in enumerate(agents):
            await agent.say(hello(f"a{number}"))
        answers = [await agent.frame() for agent in agents]
    rejects = [answer.reject for answer in answers if answer.HasField("reject")]
    assert 1 <= len(rejects) <= 2  # on a busy machine the second may have come late enough for a third
    assert {(one.code, one.should_retry) for one in rejects} == {(pb.REJECT_CODE_OVERLOADED, True)}
    assert all(one.retry_after.ToMilliseconds() > 1_250 for one in rejects)


async def test_broker_that_stops_lets_nobody_in_whose_turn_comes_then(tmp_path: Path) -> None:
    async with (
        Broker(settings_of(tmp_path, limits={"hellos_per_s": 1})) as broker,
        agent_on(broker.mesh_address, "a1"),
        stream_to(broker.mesh_address, "a2") as late,
    ):
        await late.say(hello("a2"))
        await broker.agents.go_away("test")
        assert (await late.frame()).reject.code == pb.REJECT_CODE_STOPPING


# --- an agent that never reads --------------------------------------------------------------------------------------


async def test_agent_that_never_reads_costs_its_capacity_and_delays_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "broker.dispatch.ledger.WAY_BYTES_S", 1 << 30
    )  # no way is slow here: nobody waits for large payloads
    settings = settings_of(tmp_path, dispatch={"accept_timeout_s": 0.3, "bounces_max": 1_000})
    async with Broker(settings) as broker, api_of(broker) as api, stream_to(broker.mesh_address, "deaf") as deaf:
        await deaf.say(hello("deaf", slots=20))
        await deaf.welcome()
        submitted = 0
        for _ in range(8):
            submitted += len(await api.submit_echo(4, payload=b"x" * 900_000))
        (session,) = broker.agents.sessions
        assert session.backlog <= 20
        async with agent_on(broker.mesh_address, "good", slots=2) as good:
            finished = set[int]()
            while len(finished) < submitted:
                for assign in (await good.frame_with("assigns")).assigns:
                    key = key_of(assign)
                    await good.say(pb.AgentFrame(accepted=attempts(key), outcomes=[succeeded(key)]))
                    finished.add(assign.job_key)
                assert session.backlog <= 20
            await good.settled()
        states = {job.state for job in await api.listed(page_size=100)}
    assert states == {job_pb2.JOB_STATE_SUCCEEDED}


# --- the store is away ----------------------------------------------------------------------------------------------


async def test_agents_are_held_off_and_asked_again_when_the_store_takes_nothing(
    broker: Broker, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with agent_on(broker.mesh_address) as agent:
        stall = Stall(broker, monkeypatch)
        submitting = asyncio.create_task(api.submit_echo())
        await stall.refused.wait()
        await agent.say(pb.AgentFrame(heartbeat=pb.Heartbeat(seq=1), outcomes=[succeeded((5, 1))]))
        assert (await agent.frame()).heartbeat_ack.seq == 1
        async with stream_to(broker.mesh_address, "a2") as other:
            await other.say(hello("a2"))
            reject = (await other.frame()).reject
            assert (reject.code, reject.should_retry) == (pb.REJECT_CODE_STORE_UNAVAILABLE, True)

        stall.end()
        ((result,), (assign,)) = await submitting, await agent.assigned(1)
        assert assign.job_key == result.job_key
        await agent.say(pb.AgentFrame(heartbeat=pb.Heartbeat(seq=2)))
        assert (await agent.frame_with("resync")).resync.reason == "the store was away"
        held: list[Key] = [key_of(assign)]
        await agent.say(hello("a1", held=held, outcomes=[succeeded((5, 1))]))
        assert list((await agent.welcome()).verdicts) == [pb.VERDICT_KEEP]
        await agent.say(pb.AgentFrame(outcomes=[succeeded(key_of(assign))]))
        assert (await agent.frame_with("outcomes_accepted")).outcomes_accepted == attempts(*held)


# --- an agent that says too much ------------------------------------------------------------------------------------

SHORT_LEASE = {
    "heartbeat_s": 0.05,
    "idle_heartbeat_s": 0.1,
    "suspect_s": 0.3,
    "lease_s": 1.0,
    "margin_s": 0.2,
    "reconnect_grace_s": 0.1,
    "accept_timeout_s": 0.5,
}


async def test_agent_that_reads_no_answers_is_bounded_and_cut_off_after_a_lease(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path,
        dispatch={**SHORT_LEASE, "bounces_max": 1_000},
        limits={"frame_jobs_max": 16, "mailbox_reports": 128, "batch_reports": 64},
    )
    async with Broker(settings) as broker, api_of(broker) as api, stream_to(broker.mesh_address) as deaf:
        await deaf.say(hello("a1", slots=40))
        await deaf.welcome()
        await until_blocked(broker, api)
        (session,) = broker.agents.sessions
        unread = [0]

        async def talk() -> None:
            for number in range(100_000):  # ends by its stream's end
                keys = [(key, 1) for key in range(number * 100 + 1, number * 100 + 101)]
                await deaf.say(pb.AgentFrame(accepted=attempts(*keys), heartbeat=pb.Heartbeat(seq=number + 1)))
                unread.append(session.unread)

        serving = tasks_of("read", "write")
        talking = asyncio.create_task(talk())
        _, pending = await asyncio.wait(serving, timeout=WAIT_S)
        assert not pending
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)
    assert session.ending is not None
    code, text = session.ending
    assert (code, text.partition(":")[0]) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert 64 <= max(unread) <= 64 + 128 + 64 + 16  # its own bound, and what was under way already
    assert len(unread) > 20


async def test_hello_that_nobody_asked_for_ends_the_stream(broker: Broker) -> None:
    async with agent_on(broker.mesh_address, "a1") as agent:
        await agent.say(hello("a1"))
        assert await agent.ending() == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "Hello is said once on a stream, and again only when `resync` asks for it",
        )


async def miss(agent: Peer, broker: Broker, api: Api, stall: Stall) -> None:
    """Let the broker drop something that the agent says, and be ready again."""
    submitting = asyncio.create_task(api.submit_echo())
    await stall.refused.wait()
    await agent.say(pb.AgentFrame(heartbeat=pb.Heartbeat(seq=1), outcomes=[succeeded((5, 1))]))
    await agent.frame_with("heartbeat_ack")
    stall.end()
    await submitting


async def test_hello_that_was_asked_for_is_taken_in_also_when_the_store_is_away_again(
    broker: Broker, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent says it once: it waits for the answer before it says another."""
    async with agent_on(broker.mesh_address) as agent:
        stall = Stall(broker, monkeypatch)
        await miss(agent, broker, api, stall)
        await agent.say(pb.AgentFrame(heartbeat=pb.Heartbeat(seq=2)))
        assert (await agent.frame_with("resync")).resync.reason == "the store was away"
        stall.begin()
        submitting = asyncio.create_task(api.submit_echo())
        await stall.refused.wait()
        said = hello("a1")
        said.heartbeat.seq = 3
        await agent.say(said)
        assert (await agent.frame_with("heartbeat_ack", "welcome", "resync")).heartbeat_ack.seq == 3
        stall.end()
        await submitting
        await agent.say(pb.AgentFrame(heartbeat=pb.Heartbeat(seq=4)))
        assert (await agent.frame_with("welcome", "resync")).welcome.session_id
        await agent.say(hello("a1"))
        assert (await agent.ending())[1].endswith("only when `resync` asks for it")


async def test_agent_is_heard_while_it_waits_to_be_asked_for_hello(
    broker: Broker, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = iter((Turn(0.01, is_booked=False), Turn(3_600.0, is_booked=True)))
    async with agent_on(broker.mesh_address) as agent:
        stall = Stall(broker, monkeypatch)
        await miss(agent, broker, api, stall)
        monkeypatch.setattr(Admission, "turn", lambda rate: next(turns))
        await agent.settled()
        await agent.settled()
        await agent.say(hello("a1"))
        assert (await agent.ending())[1].endswith("only when `resync` asks for it")


async def test_agent_for_whom_the_line_is_too_long_takes_another_turn_before_it_is_asked_for_hello(
    broker: Broker, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = iter((Turn(0.02, is_booked=False), Turn(0.01, is_booked=False), Turn(0.02, is_booked=True)))
    async with agent_on(broker.mesh_address) as agent:
        stall = Stall(broker, monkeypatch)
        await miss(agent, broker, api, stall)
        monkeypatch.setattr(Admission, "turn", lambda rate: next(turns))
        await agent.say(pb.AgentFrame(heartbeat=pb.Heartbeat(seq=2)))
        assert (await agent.frame_with("resync")).resync.reason == "the store was away"
        assert not list(turns)
        await agent.say(hello("a1"))
        assert (await agent.frame_with("resync", "welcome")).welcome.session_id


@pytest.mark.parametrize("name", ["outcomes", "rejected", "progress"])
async def test_frame_about_more_attempts_than_an_agent_can_hold_ends_its_stream(broker: Broker, name: str) -> None:
    frame = pb.AgentFrame()
    for _ in range(65_537):
        entry = getattr(frame, name).add(job_key=1)
        if name == "outcomes":
            entry.status = job_pb2.OUTCOME_STATUS_CANCELLED
    async with agent_on(broker.mesh_address) as agent:
        await agent.say(frame)
        code, text = await agent.ending()
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert text == f"{name} has 65537 entries; an agent holds at most 65536 attempts"


class Held:
    """Lets every commit wait until it is over, and so all that comes meanwhile."""

    def __init__(self, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
        self._commit: Callable[[CommitRequest], Awaitable[CommitOutcome]] = broker.store.commit
        self._may_go_on = asyncio.Event()
        self.is_committing = asyncio.Event()
        monkeypatch.setattr(broker.store, "commit", self._wait)

    async def _wait(self, request: CommitRequest) -> CommitOutcome:
        self.is_committing.set()
        await self._may_go_on.wait()
        return await self._commit(request)

    def end(self) -> None:
        self._may_go_on.set()


async def refusals(agent: Peer, number: int) -> set[int]:
    """The keys of the next refused outcomes, this many."""
    keys = set[int]()
    while len(keys) < number:
        keys |= {one.job_key for one in (await agent.frame_with("outcomes_refused")).outcomes_refused}
    return keys


async def test_agent_that_floods_has_no_more_than_one_frame_before_the_reports_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tmp_path, limits={"frame_jobs_max": 4})
    async with (
        Broker(settings) as broker,
        api_of(broker) as api,
        agent_on(broker.mesh_address, "a1") as greedy,
        agent_on(broker.mesh_address, "a2") as other,
    ):
        held = Held(broker, monkeypatch)
        submitting = asyncio.create_task(api.submit_echo())
        await held.is_committing.wait()
        few, many = ([succeeded((key, 1)) for key in keys] for keys in (range(1, 5), range(5, 1_001)))
        await greedy.say(pb.AgentFrame(outcomes=few))
        await greedy.say(pb.AgentFrame(heartbeat=pb.Heartbeat(seq=1), outcomes=many))
        await greedy.frame_with("heartbeat_ack")  # it has read up to here
        await other.say(pb.AgentFrame(outcomes=[succeeded((7, 1))]))
        await other.say(pb.AgentFrame(heartbeat=pb.Heartbeat(seq=1)))
        await other.frame_with("heartbeat_ack")
        assert broker.engine.waiting()["reports"] == 4 + 1
        held.end()
        await submitting
        assert await refusals(other, 1) == {7}
        assert await refusals(greedy, 1_000) == set(range(1, 1_001))


async def test_agent_whose_reports_found_no_room_is_heard_again_when_there_is_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"mailbox_reports": 4, "batch_reports": 4, "frame_jobs_max": 4}
    settings = settings_of(tmp_path, dispatch={"heartbeat_s": 0.05}, limits=limits)
    async with (
        Broker(settings) as broker,
        api_of(broker) as api,
        agent_on(broker.mesh_address, "a1") as agent,
        agent_on(broker.mesh_address, "a2") as other,
    ):
        held = Held(broker, monkeypatch)
        submitting = asyncio.create_task(api.submit_echo())
        await held.is_committing.wait()
        four = [succeeded((key, 1)) for key in range(1, 5)]
        await other.say(pb.AgentFrame(outcomes=four))
        await other.say(pb.AgentFrame(heartbeat=pb.Heartbeat(seq=1)))
        await other.frame_with("heartbeat_ack")  # all room is taken
        await agent.say(pb.AgentFrame(outcomes=four))
        await agent.say(pb.AgentFrame(heartbeat=pb.Heartbeat(seq=1)))
        assert (await agent.frame_with("resync")).resync.reason == "the broker had no room"
        held.end()
        await submitting
        await agent.say(hello("a1"))
        await agent.welcome()
        await agent.say(pb.AgentFrame(outcomes=four))
        assert await refusals(agent, 4) == {1, 2, 3, 4}


# --- the broker has no room -----------------------------------------------------------------------------------------


async def test_heartbeats_are_answered_while_the_reports_are_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(
        tmp_path, dispatch={"heartbeat_s": 0.05}, limits={"mailbox_reports": 4, "batch_reports": 4, "frame_jobs_max": 4}
    )
    async with Broker(settings) as broker, agent_on(broker.mesh_address) as agent:
        async with api_of(broker) as api:
            held = Held(broker, monkeypatch)
            submitting = asyncio.create_task(api.submit_echo())
            await held.is_committing.wait()
            reports = [succeeded((number, 1)) for number in range(1, 21)]
            await agent.say(pb.AgentFrame(outcomes=reports))
            reasons = []
            for seq in (1, 2, 3):
                await agent.say(pb.AgentFrame(heartbeat=pb.Heartbeat(seq=seq)))
                while (frame := await agent.frame_with("heartbeat_ack", "resync")).HasField("resync"):
                    reasons.append(frame.resync.reason)
                assert frame.heartbeat_ack.seq == seq
            held.end()
            (result,) = await submitting
        assert reasons == ["the broker had no room"]
        await agent.say(hello("a1", held=[(result.job_key, 1)], outcomes=reports))
        assert list((await agent.welcome()).verdicts) == [pb.VERDICT_KEEP]
        await refusals(agent, 20)


async def test_goodbye_is_a_clean_leave_although_the_store_is_away(
    broker: Broker, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    notices = Notices(broker)
    async with agent_on(broker.mesh_address) as agent:
        stall = Stall(broker, monkeypatch)
        submitting = asyncio.create_task(api.submit_echo())
        await stall.refused.wait()
        await agent.say(pb.AgentFrame(goodbye=pb.Goodbye(reason="stopped by its operator")))
        assert await agent.ending() == (grpc.StatusCode.OK, "")
    stall.end()
    await submitting
    await notices.until(lambda: stored_agent(broker) in (Link.GONE, Link.LEFT))
    assert await status_of(api, "a1") == "STOPPED"


# --- what a refused Hello leaves ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "add",
    [
        lambda frame: frame.hello.held.attempts.append(1),
        lambda frame: frame.started.attempts.append(1),
    ],
)
async def test_hello_that_is_refused_makes_no_agent(
    broker: Broker, api: Api, add: Callable[[pb.AgentFrame], None]
) -> None:
    async with stream_to(broker.mesh_address, "a7") as agent:
        frame = hello("a7")
        add(frame)
        await agent.say(frame)
        assert (await agent.ending())[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert not (await api.admin.ListAgents(admin_pb.ListAgentsRequest(parent=PARENT), timeout=WAIT_S)).agents


async def test_agent_is_refused_when_its_group_knows_as_many_as_it_may(tmp_path: Path) -> None:
    async with Broker(settings_of(tmp_path, limits={"agents_max": 1})) as broker:
        async with agent_on(broker.mesh_address, "a1"), stream_to(broker.mesh_address, "a2") as second:
            await second.say(hello("a2"))
            code, text = await second.ending()
        async with agent_on(broker.mesh_address, "a1") as again:
            await again.settled()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert text.startswith(f"{PARENT} knows 1 agents")


# --- drain ----------------------------------------------------------------------------------------------------------


async def test_agent_that_asks_for_its_drain_is_given_nothing_new(broker: Broker, api: Api) -> None:
    async with agent_on(broker.mesh_address, "a1", slots=4) as leaving:
        await api.submit_echo()
        (first,) = await leaving.assigned(1)
        await leaving.say(pb.AgentFrame(drain_request=pb.DrainRequest(reason="SIGTERM")))
        await leaving.settled()
        (waiting,) = await api.submit_echo()
        answer = await leaving.report(succeeded(key_of(first)))
        assert answer.outcomes_accepted == attempts(key_of(first))
        await leaving.settled()
        assert (await api.job(waiting.job_id)).state == job_pb2.JOB_STATE_QUEUED
        async with agent_on(broker.mesh_address, "a2") as other:
            assert [one.job_key for one in await other.assigned(1)] == [waiting.job_key]


async def test_agent_hears_of_its_drain_of_the_end_of_it_and_of_its_completion(broker: Broker, api: Api) -> None:
    number = AgentNo(1)
    pause = partial(DrainRequested, agent=number, ends=DrainEnd.PAUSE, then=DrainThen.FINISH, actor="eve", reason="fix")
    async with agent_on(broker.mesh_address) as agent:
        await api.submit_echo()
        (assign,) = await agent.assigned(1)
        await agent.accept(key_of(assign))
        await agent.settled()

        await broker.engine.ask(GROUP, pause)
        drain = (await agent.frame_with("drain")).drain
        assert (drain.mode, drain.then, drain.cancel) == (pb.DRAIN_MODE_PAUSE, pb.DRAIN_THEN_FINISH, False)
        assert (drain.operator, drain.reason) == ("eve", "fix")

        await broker.engine.ask(GROUP, partial(DrainCancelled, agent=number, actor="eve"))
        assert (await agent.frame_with("drain")).drain == pb.Drain(cancel=True, operator="eve")

        await broker.engine.ask(GROUP, pause)
        await agent.frame_with("drain")
        await agent.say(pb.AgentFrame(outcomes=[succeeded(key_of(assign))]))
        assert (await agent.frame_with("drain_done")).drain_done.mode == pb.DRAIN_MODE_PAUSE
        assert await status_of(api, "a1") == "PAUSED"
