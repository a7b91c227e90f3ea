"""What the agent gives its handlers and does with their outcomes, over real gRPC on the loopback."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from agent_stub.client import Agent
from agent_stub.operations import JobContext, Operations, operation
from agent_stub.settings import AgentSettings
from protos.mesh.v1 import agent_service_pb2 as pb
from protos.mesh.v1 import job_pb2
from tests.agent_stub.agents import FirstDelay, Tries, running
from tests.agent_stub.broker import WAIT_S, Broker, assign, duration, welcome


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["spin", "spin.async", "chatter", "chatter.process"])
async def test_handler_that_computes_or_reports_for_seconds_does_not_hold_up_heartbeats(operation: str) -> None:
    # A heartbeat is due every 0.4 s; the broker of this profile would suspect the agent after 1.2 s without one.
    async with Broker(lambda hello: welcome(hello, lease_s=2.0)) as broker, running(broker, slots=2):
        session = await broker.session()
        loop = asyncio.get_running_loop()
        await session.assign(assign(1, operation, b"5"), assign(2, operation, b"5"))
        heard, gaps = loop.time(), []
        while True:
            frame = await session.frame_with("heartbeat", "outcomes")
            heard, gap = loop.time(), loop.time() - heard
            gaps.append(gap)
            if frame.outcomes:
                break
        assert len(gaps) > 10
        assert max(gaps) < 1.2
        assert broker.hellos == 1


async def test_inline_handler_that_is_slow_runs_in_threads_from_then_on(caplog: pytest.LogCaptureFixture) -> None:
    threads: list[int] = []

    @operation("slow", inline=True)
    def slow(job: JobContext) -> None:
        threads.append(threading.get_ident())
        until_s = time.monotonic() + 0.06
        while time.monotonic() < until_s:
            pass

    async with Broker() as broker:
        settings = AgentSettings(broker=broker.address, dev=True)
        agent = Agent(settings, Operations([slow]), generator=FirstDelay())
        task = asyncio.create_task(agent.run())
        session = await broker.session()
        for job_key in (1, 2):
            await session.assign(assign(job_key, "slow"))
            await session.outcome()
        agent.stop()
        await task
    assert threads[0] == threading.get_ident()
    assert threads[1] != threading.get_ident()
    assert [record.message for record in caplog.records].count("operation.slow") == 1


@pytest.mark.req("R88")
async def test_variable_is_read_by_the_operation_and_two_agents_have_two() -> None:
    for value in ("north", "south"):
        async with Broker() as broker, running(broker, variables={"database": value}):
            session = await broker.session()
            await session.assign(assign(1, "tell"))
            assert (await session.outcome()).result.content.decode() == value


@pytest.mark.req("R88")
async def test_variable_that_is_missing_fails_the_job_for_good_and_is_named() -> None:
    async with Broker() as broker, running(broker):
        session = await broker.session()
        await session.assign(assign(1, "tell"))
        failure = (await session.outcome()).failure
        assert (failure.code, failure.retryable) == ("variable.missing", False)
        assert "'database'" in failure.message


@pytest.mark.req("R88")
async def test_variable_is_never_on_the_wire() -> None:
    secret = "a-password-that-no-frame-holds"
    async with (
        Broker(lambda hello: welcome(hello, lease_s=0.5)) as broker,
        running(broker, variables={"database": secret, "other": secret}),
    ):
        session = await broker.session()
        await session.assign(assign(1, "echo"), assign(2, "facts"), assign(3, "teleport"))
        seen = [session.hello.SerializeToString()]
        while len(seen) < 6:
            seen.append((await session.frame_with("heartbeat", "outcomes", "rejected")).SerializeToString())
    assert not any(secret.encode() in one for one in seen)


async def test_exclusive_outcome_is_on_disk_when_the_broker_hears_of_it(tmp_path: Path) -> None:
    async with Broker() as broker, running(broker, spool=tmp_path / "spool"):
        session = await broker.session()
        await session.assign(assign(1, "write", str(tmp_path / "rows").encode()))
        outcome = await session.outcome()
        assert outcome.result.content == b"written"
        assert [path.name for path in (tmp_path / "spool").iterdir()] == ["1-1.outcome"]
        await session.acknowledge(outcome)
        await session.assign(assign(2, "echo"))
        await session.outcome()  # frames are worked in order
        assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.parametrize("on_loss", [pb.ON_LOSS_FAIL, pb.ON_LOSS_HOLD])
async def test_outcome_of_a_job_that_nobody_runs_again_is_on_disk_when_the_broker_hears_of_it(
    tmp_path: Path, on_loss: pb.OnLoss.ValueType
) -> None:
    async with Broker() as broker, running(broker, spool=tmp_path / "spool"):
        session = await broker.session()
        precious = assign(1, "echo", b"x")
        precious.on_loss = on_loss
        await session.assign(precious)
        outcome = await session.outcome()
        assert [path.name for path in (tmp_path / "spool").iterdir()] == ["1-1.outcome"]
        await session.acknowledge(outcome)
        await session.assign(assign(2, "echo"))
        await session.outcome()
        assert list((tmp_path / "spool").iterdir()) == []


async def test_outcomes_of_one_mesh_are_never_told_another_one_and_the_log_says_what_is_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = tmp_path / "spool"
    async with Broker(partial(welcome, mesh_id="north")) as broker, running(broker, spool=spool) as agent:
        session = await broker.session()
        await session.assign(assign(1, "echo"))
        await session.outcome()
        agent.agent.stop()
        await agent.exit_code()
    tries = Tries(2)
    with caplog.at_level("INFO", "mesh.agent"):
        async with Broker(partial(welcome, mesh_id="south")) as broker, running(broker, spool=spool, generator=tries):
            assert (await broker.session()).hello.mesh_id == "north"
            await asyncio.wait_for(tries.enough.wait(), WAIT_S)
    ended = [record for record in caplog.records if record.message == "session.ended"]
    assert "this is mesh south, and the agent holds work of mesh north" in str(vars(ended[0]))
    assert sorted(path.name for path in spool.iterdir()) == ["1-1.outcome", "mesh"]
    async with Broker(partial(welcome, mesh_id="north")) as broker, running(broker, spool=spool):
        (outcome,) = (await broker.session()).hello.outcomes
        assert outcome.job_key == 1


async def test_heartbeats_name_handlers_that_do_not_stop_until_they_end() -> None:
    async with Broker(lambda hello: welcome(hello, lease_s=1.0)) as broker, running(broker, slots=2):
        session = await broker.session()
        await session.assign(assign(1, "spin", b"1.5"), assign(2, "wait"))
        await session.frame_with("started")
        await session.send(pb.BrokerFrame(cancels=[pb.Cancel(job_key=1, attempt=1, grace=duration(0.05))]))
        named: list[list[int]] = []
        while not (named and not named[-1] and any(named)):
            named.append(list((await session.frame_with("heartbeat")).heartbeat.stuck.job_keys))
        assert [1] in named
        assert {tuple(keys) for keys in named} == {(), (1,)}


async def test_outcomes_that_no_broker_has_outlive_the_agent_and_are_said_by_the_next_one(tmp_path: Path) -> None:
    async with Broker() as broker:
        async with running(broker, spool=tmp_path / "spool") as agent:
            session = await broker.session()
            await session.assign(assign(1, "echo", b"one"), assign(2, "echo", b"two"))
            await session.frame_with("outcomes")
            agent.agent.stop()
            assert await agent.exit_code() == 130
        assert sorted(path.name for path in (tmp_path / "spool").iterdir()) == ["1-1.outcome", "2-1.outcome"]
        async with running(broker, spool=tmp_path / "spool"):
            second = await broker.session()
            assert second.hello.incarnation_id != session.hello.incarnation_id
            assert [outcome.result.content for outcome in second.hello.outcomes] == [b"one", b"two"]
            await second.acknowledge(*second.hello.outcomes)
            await second.assign(assign(3, "echo"))
            await second.outcome()
            assert [path.name for path in (tmp_path / "spool").iterdir() if path.name < "3"] == []


async def test_agent_whose_broker_is_away_leaves_its_outcomes_in_the_spool_when_drained(tmp_path: Path) -> None:
    async with Broker() as broker, running(broker, spool=tmp_path / "spool", spool_leave_s=0.0) as agent:
        session = await broker.session()
        await session.assign(assign(1, "wait"))
        await agent.handlers.begun.get()
        await broker.__aexit__()
        agent.agent.drain("SIGTERM")
        agent.handlers.go_on.set()
        assert await agent.exit_code() == 0
    assert [path.name for path in (tmp_path / "spool").iterdir()] == ["1-1.outcome"]


async def test_cancel_kills_an_exclusive_process_at_the_end_of_the_grace() -> None:
    async with Broker() as broker, running(broker) as agent:
        session = await broker.session()
        await session.assign(assign(1, "block"))
        await session.frame_with("started")
        cancel = pb.Cancel(job_key=1, attempt=1, reason=pb.CANCEL_REASON_REQUESTED, grace=duration(0.05))
        await session.send(pb.BrokerFrame(cancels=[cancel]))
        assert (await session.outcome()).status == job_pb2.OUTCOME_STATUS_CANCELLED
        assert not agent.agent.is_running
