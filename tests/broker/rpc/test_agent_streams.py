"""How streams of agents begin beside one another and end, in good order or not: alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import grpc
import pytest
from structlog.testing import capture_logs

from broker.app import Broker
from broker.dispatch.model import Link
from broker.store.base import CommitOutcome, CommitRequest
from protos.mesh.v1 import agent_service_pb2 as pb
from protos.mesh.v1 import job_pb2
from tests.broker.rpc import http2
from tests.broker.rpc.peer import (
    CONNECT,
    agent_on,
    hello,
    key_of,
    stream_to,
    succeeded,
    tasks_of,
)
from tests.broker.rpc.seen import Notices, status_of, stored_agent, until_blocked
from tests.broker.running import WAIT_S, Api, api_of, channel_to, raw_stream, refused, settings_of

# --- a stream that is broken ends alone -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (pb.AgentFrame(accepted=pb.AttemptList(job_keys=[1, 2], attempts=[1])), "2 job keys and 1 attempts"),
        (pb.AgentFrame(started=pb.AttemptList(attempts=[1])), "0 job keys and 1 attempts"),
        (pb.AgentFrame(outcomes=[pb.Outcome(job_key=1, attempt=1)]), "outcomes[0].status"),
        (pb.AgentFrame(progress=[pb.Progress(checkpoint=b"x" * 65_537)]), "progress[0].checkpoint"),
    ],
)
async def test_malformed_frame_ends_its_stream_only(broker: Broker, frame: pb.AgentFrame, words: str) -> None:
    async with agent_on(broker.mesh_address, "good") as good, agent_on(broker.mesh_address, "bad") as bad:
        await bad.say(frame)
        code, text = await bad.ending()
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert words in text
        await good.settled()


async def test_undecodable_bytes_end_their_stream_only(broker: Broker) -> None:
    async with agent_on(broker.mesh_address, "good") as good, channel_to(broker.mesh_address) as channel:
        call = raw_stream(channel, CONNECT, ("mesh-dev-identity", "default/default/bad"))
        await call.write(hello("bad").SerializeToString())
        await call.read()
        await call.write(b"\xff\xff\xff\xff")
        refusal = await refused(call.read())
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT.value[0], "MALFORMED_MESSAGE")
        await good.settled()


async def test_malformed_frame_is_answered_although_welcome_has_not_left_yet(broker: Broker) -> None:
    """Behind Welcome, for which the agent's HTTP/2 has no room yet."""
    host, _, port = broker.mesh_address.rpartition(":")
    async with asyncio.timeout(WAIT_S):
        reader, writer = await asyncio.open_connection(host, int(port))
        answer = http2.Answer(reader)
        writer.write(http2.PREFACE + http2.settings(initial_window_size=0))
        call = http2.request(CONNECT.encode(), http2.END_HEADERS, mesh_dev_identity=b"default/default/bad")
        notices = Notices(broker)
        writer.write(call + http2.message(hello("bad").SerializeToString()))
        assert "grpc-status" not in await answer.headers()
        await notices.until(lambda: stored_agent(broker) is Link.LIVE)
        writer.write(http2.message(b"\xff\xff\xff\xff"))
        await asyncio.wait(tasks_of("read"))
        writer.write(http2.window(1 << 16))
        assert await answer.status() == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        writer.close()


# --- one agent, two streams -----------------------------------------------------------------------------------------


async def test_newer_stream_supersedes_the_older_one_which_hears_why(broker: Broker, api: Api) -> None:
    async with stream_to(broker.mesh_address) as older:
        await older.say(hello("a1", connect_seq=1))
        await older.welcome()
        (result,) = await api.submit_echo()
        (assign,) = await older.assigned(1)
        await older.accept(key_of(assign))
        await older.settled()
        async with stream_to(broker.mesh_address) as newer:
            await newer.say(hello("a1", connect_seq=2, held=[key_of(assign)]))
            assert list((await newer.welcome()).verdicts) == [pb.VERDICT_KEEP]
            code, text = await older.ending()
            assert (code, text.partition(":")[0]) == (grpc.StatusCode.ABORTED, "SUPERSEDED")
            await newer.report(succeeded(key_of(assign)))
    assert (await api.job(result.job_id)).state == job_pb2.JOB_STATE_SUCCEEDED


async def test_other_process_of_the_name_takes_over_and_the_log_warns(broker: Broker) -> None:
    async with stream_to(broker.mesh_address) as older:
        await older.say(hello("a1"))
        await older.welcome()
        with capture_logs() as logs:
            async with stream_to(broker.mesh_address) as newer:
                await newer.say(hello("a1", incarnation=b"another process!"))
                await newer.welcome()
                code, text = await older.ending()
    assert (code, "another process with the name" in text) == (grpc.StatusCode.ABORTED, True)
    (warning,) = [line for line in logs if line["event"] == "agent.taken_over"]
    assert (warning["log_level"], warning["agent"], warning["group"]) == ("warning", "a1", "default")


async def test_older_stream_is_rejected_while_the_newer_one_lives(broker: Broker) -> None:
    async with stream_to(broker.mesh_address) as newer, stream_to(broker.mesh_address) as older:
        await newer.say(hello("a1", connect_seq=5))
        await newer.welcome()
        await older.say(hello("a1", connect_seq=4))
        assert (await older.frame()).reject.code == pb.REJECT_CODE_SUPERSEDED
        await older.ending()
        await newer.settled()


async def test_superseded_stream_ends_although_its_agent_never_reads(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, dispatch={"recovery_grace_s": 60})
    async with Broker(settings) as broker, api_of(broker) as api, stream_to(broker.mesh_address) as older:
        await older.say(hello("a1", slots=40, connect_seq=1))
        await older.welcome()
        await until_blocked(broker, api)
        old = tasks_of("read", "write")
        async with stream_to(broker.mesh_address) as newer:
            await newer.say(hello("a1", slots=40, connect_seq=2))
            await newer.welcome()
            _, pending = await asyncio.wait(old, timeout=WAIT_S)
            assert not pending
            assert (await older.ending())[0] is grpc.StatusCode.ABORTED
            assert broker.agents.count == 1


# --- how a stream ends ----------------------------------------------------------------------------------------------


async def test_agent_without_goodbye_is_missed_and_its_jobs_go_on_elsewhere(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, dispatch={"reconnect_grace_s": 0.05})
    async with Broker(settings) as broker, api_of(broker) as api:
        async with agent_on(broker.mesh_address, "a1") as lost:
            await api.submit_echo()
            (assign,) = await lost.assigned(1)
            await lost.accept(key_of(assign))
            await lost.settled()
            assert await status_of(api, "a1") == "ACTIVE"
            notices = Notices(broker)
        await notices.until(lambda: stored_agent(broker) is Link.GONE)
        assert await status_of(api, "a1") == "NO_RESPONSE"
        async with agent_on(broker.mesh_address, "a2") as other:
            (again,) = await other.assigned(1)
            assert (again.job_key, again.attempt) == (assign.job_key, 2)


async def test_request_iterator_ends_quietly_when_the_agent_only_stops_writing(broker: Broker, api: Api) -> None:
    notices = Notices(broker)
    async with agent_on(broker.mesh_address) as agent:
        await agent.call.done_writing()
        assert await agent.ending() == (grpc.StatusCode.OK, "")
        await notices.until(lambda: stored_agent(broker) is Link.GONE)
    assert await status_of(api, "a1") == "NO_RESPONSE"


async def test_goodbye_is_a_clean_leave_also_when_the_stream_ends_in_the_same_batch(
    broker: Broker, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_commit, is_committing = asyncio.Event(), asyncio.Event()
    commit: Callable[[CommitRequest], Awaitable[CommitOutcome]] = broker.store.commit

    async def held(request: CommitRequest) -> CommitOutcome:
        is_committing.set()
        await may_commit.wait()
        return await commit(request)

    notices = Notices(broker)
    async with agent_on(broker.mesh_address) as agent:
        monkeypatch.setattr(broker.store, "commit", held)
        submitting = asyncio.create_task(api.submit_echo())
        await is_committing.wait()
        ended = tasks_of("read", "write")
        await agent.say(pb.AgentFrame(goodbye=pb.Goodbye(reason="stopped by its operator")))
        await agent.call.done_writing()
        await asyncio.wait(ended, timeout=WAIT_S)
        may_commit.set()
        await submitting
    await notices.until(lambda: stored_agent(broker) in (Link.GONE, Link.LEFT))
    assert await status_of(api, "a1") == "STOPPED"


async def test_call_of_an_agent_that_leaves_in_its_first_breath_is_ended(broker: Broker) -> None:
    """Goodbye may arrive while Welcome is being written; a call that ends in the middle of a frame never ends."""
    chance = Random(1)
    for round_no in range(100):
        async with stream_to(broker.mesh_address, identity=f"default/default/short-{round_no}") as agent:
            await agent.say(hello(f"short-{round_no}"))
            await asyncio.sleep(chance.choice((0, 0.001, 0.002, 0.004)))
            await agent.say(pb.AgentFrame(goodbye=pb.Goodbye(reason="stopped at once")))
            assert await agent.ending() == (grpc.StatusCode.OK, "")


async def test_streams_that_end_in_any_way_leave_no_task_behind(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.rpc.agents.HELLO_WAIT_S", 0.05)
    for round_no in range(3):
        async with stream_to(broker.mesh_address, identity="nobody") as agent:
            await agent.ending()
        async with stream_to(broker.mesh_address) as agent:
            await agent.ending()
        async with agent_on(broker.mesh_address, f"cancelled-{round_no}"):
            pass
        async with agent_on(broker.mesh_address, f"malformed-{round_no}") as agent:
            await agent.say(pb.AgentFrame(started=pb.AttemptList(attempts=[1])))
            await agent.ending()
    streams = {
        task for task in asyncio.all_tasks() if task.get_name().startswith(("read-", "write-", "ended-", "Handle"))
    }
    if streams:
        _, pending = await asyncio.wait(streams, timeout=WAIT_S)
        assert not pending
    assert broker.agents.count == 0
