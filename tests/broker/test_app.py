"""A whole broker: how it starts, how it stops, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import grpc
import grpc.aio
import pytest
from structlog.testing import capture_logs

from broker.app import STORE_FILE, Broker, serve
from broker.dispatch.model import GroupNo, JobKey
from broker.errors import ConfigError, StoreFailedError, StoreLockedError
from broker.store.base import CommitOutcome, CommitRequest, CommitStatus
from broker.store.lock import FileLock
from broker.store.sqlite import SqliteStore
from protos.mesh.v1 import admin_service_pb2 as admin_pb
from protos.mesh.v1 import agent_service_pb2 as agent_pb
from protos.mesh.v1 import job_pb2
from protos.mesh.v1 import job_service_pb2 as pb
from tests.broker.rpc.peer import agent_on, hello, key_of, stream_to, succeeded
from tests.broker.running import (
    ORGANIZATION,
    PARENT,
    WAIT_S,
    Api,
    Refusal,
    api_of,
    channel_to,
    echo,
    http,
    metric,
    refused,
    settings_of,
)

GROUP = GroupNo(1)
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.value[0]


async def stored(folder: Path) -> list[JobKey]:
    """Live jobs that are in the file of a broker that is not running."""
    store = SqliteStore(folder / "data" / STORE_FILE)
    await store.open()
    try:
        return [row.job_key for row in await store.live_jobs(GROUP, JobKey(0), 10_000)]
    finally:
        await store.close()


# --- start ----------------------------------------------------------------------------------------------------------


async def test_started_broker_is_ready_and_has_real_addresses(broker: Broker) -> None:
    addresses = {broker.api_address, broker.mesh_address, broker.metrics_address}
    assert len(addresses) == 3
    assert not any(address.endswith(":0") for address in addresses)
    status, _, words = await http(broker.metrics_address, "/readyz")
    assert (status, json.loads(words)["checks"]) == (200, dict.fromkeys(("store", "api", "mesh"), "ok"))


async def test_metrics_follow_a_job_from_submission_to_its_end(broker: Broker, api: Api) -> None:
    async with agent_on(broker.mesh_address) as agent:
        await api.submit_echo(2)
        first, second = await agent.assigned(2)
        await agent.report(succeeded(key_of(first)))
        await agent.say(
            agent_pb.AgentFrame(
                rejected=[agent_pb.Rejected(job_key=second.job_key, attempt=1, reason=agent_pb.REJECTED_REASON_UNFIT)]
            )
        )
        await agent.settled()
        group = {"group": "default/default"}
        assert await metric(broker, "mesh_jobs_submitted_total", **group) == 2
        assert await metric(broker, "mesh_attempts_assigned_total", **group) == 2
        assert await metric(broker, "mesh_jobs_finished_total", **group, state="succeeded") == 1
        assert await metric(broker, "mesh_jobs_returned_total", **group, reason="rejected_unfit") == 1
        assert await metric(broker, "mesh_sessions") == 1
        assert await metric(broker, "mesh_commits_total") == await metric(broker, "mesh_batch_events_count") > 0


async def test_broker_without_dev_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="start with --dev") as caught:
        Broker(settings_of(tmp_path, dev=False))
    assert caught.value.reason == "NOT_BUILT"
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("key", ["mesh_listen", "api_listen", "metrics_listen"])
async def test_taken_port_is_named_and_nothing_is_left_behind(tmp_path: Path, key: str) -> None:
    before = asyncio.all_tasks()
    taken = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    address = f"127.0.0.1:{taken.sockets[0].getsockname()[1]}"
    with pytest.raises(ConfigError) as caught:
        async with Broker(settings_of(tmp_path, **{key: address})):
            pass
    assert caught.value.reason == "PORT_TAKEN"
    assert address in caught.value.text
    taken.close()
    await taken.wait_closed()
    assert not {task for task in asyncio.all_tasks() - before if task.get_name() in ("engine", "probe")}
    async with Broker(settings_of(tmp_path, **{key: address})) as broker:
        assert (await http(broker.metrics_address, "/readyz"))[0] == 200


async def test_second_broker_on_the_same_file_is_refused_and_the_first_goes_on(
    tmp_path: Path, broker: Broker, api: Api
) -> None:
    with pytest.raises(StoreLockedError, match="is locked by process"):
        async with Broker(settings_of(tmp_path)):
            pass
    assert len(await api.submit_echo()) == 1


async def test_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(ConfigError, match="cannot make this folder"):
        async with Broker(settings_of(tmp_path)):
            pass


# --- stop -----------------------------------------------------------------------------------------------------------


async def test_stop_says_so_to_everybody_and_keeps_all_that_was_acknowledged(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    broker = await Broker(settings_of(tmp_path)).__aenter__()
    async with api_of(broker) as api, agent_on(broker.mesh_address, slots=2) as agent:
        results = await api.submit_echo(5)
        first, _ = await agent.assigned(2)
        await agent.report(succeeded(key_of(first)))
        stream = api.jobs.SubmitStream()
        batch = pb.SubmitJobsRequest(parent=PARENT, jobs=[echo()])
        await stream.write(pb.SubmitStreamRequest(batch_seq=1, batch=batch))
        streamed = await stream.read()
        assert isinstance(streamed, pb.SubmitStreamResponse)

        stopping = asyncio.create_task(broker.__aexit__(None, None, None))
        assert (await agent.frame_with("go_away")).go_away.reason == "the broker is stopping"
        await stream.write(pb.SubmitStreamRequest(batch_seq=2, batch=batch))
        late = await stream.read()
        assert isinstance(late, pb.SubmitStreamResponse)
        refusal = Refusal(late.error)
        assert (refusal.code, refusal.reason) == (UNAVAILABLE, "BROKER_STOPPING")
        assert "RetryInfo" in refusal.kinds
        status, _, words = await http(broker.metrics_address, "/readyz")
        assert (status, json.loads(words)["checks"]["broker"]) == (503, "stopping")
        await stream.done_writing()
        await stopping
        assert await agent.ending() == (grpc.StatusCode.OK, "")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await api.submit_echo()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    acknowledged = [result.job_key for result in (*results, *streamed.results)]
    assert await stored(tmp_path) == sorted(set(acknowledged) - {first.job_key})
    left = {task.get_name() for task in asyncio.all_tasks() - before}
    assert not {name for name in left if name.startswith(("engine", "probe", "read-", "write-", "submit-stream"))}

    async with Broker(settings_of(tmp_path)) as again, api_of(again) as api:
        states = [(await api.job(result.job_id)).state for result in results]
        assert states.count(job_pb2.JOB_STATE_SUCCEEDED) == 1
        async with agent_on(again.mesh_address, "a2", slots=10) as other:
            # What waited is given to whoever comes; what a1 had been given waits for a1, which has nothing of it now.
            assert {assign.attempt for assign in await other.assigned(3)} == {1}
            async with agent_on(again.mesh_address, slots=1):
                assert {assign.attempt for assign in await other.assigned(2)} == {2}


async def test_agent_that_says_hello_while_the_broker_stops_is_rejected(broker: Broker) -> None:
    await broker.agents.go_away("the broker is stopping")
    async with stream_to(broker.mesh_address) as agent:
        await agent.say(hello("a1"))
        reject = (await agent.frame()).reject
    assert (reject.code, reject.should_retry) == (agent_pb.REJECT_CODE_STOPPING, True)


async def test_stop_does_not_wait_for_ever_for_an_agent_that_does_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.rpc.agents.GO_AWAY_WAIT_S", 0.1)
    monkeypatch.setattr("broker.app.STOP_GRACE_S", 0.1)
    async with asyncio.timeout(WAIT_S), AsyncExitStack() as clients, Broker(settings_of(tmp_path)) as broker:
        api = await clients.enter_async_context(api_of(broker))
        deaf = await clients.enter_async_context(stream_to(broker.mesh_address))
        await deaf.say(hello("a1", slots=40))
        await deaf.welcome()
        (session,) = broker.agents.sessions
        while not session.backlog:
            await api.submit_echo(4, payload=b"x" * 900_000)
    assert broker.agents.count == 0


# --- a store that fails ---------------------------------------------------------------------------------------------


def watched(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set when the store, as it is, has refused a commit."""
    refused_one = asyncio.Event()
    commit = broker.store.commit

    async def spied(request: CommitRequest) -> CommitOutcome:
        outcome = await commit(request)
        if outcome.status is CommitStatus.ROLLED_BACK:
            refused_one.set()
        return outcome

    monkeypatch.setattr(broker.store, "commit", spied)
    return refused_one


async def test_full_store_answers_nothing_falsely_turns_red_and_does_not_hold_up_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.app.SqliteStore", partial(SqliteStore, file_bytes_max=6 << 20))
    monkeypatch.setattr("broker.app.STOP_GRACE_S", 0.1)
    monkeypatch.setattr("broker.app.DRAIN_WAIT_S", 0.1)
    acknowledged: list[int] = []

    async def submit_for_ever(api: Api) -> None:
        while True:
            acknowledged.extend(result.job_key for result in await api.submit_echo(1, payload=b"x" * 900_000))

    async with AsyncExitStack() as clients:  # they outlive the broker
        async with Broker(settings_of(tmp_path)) as broker:
            api = await clients.enter_async_context(api_of(broker))
            is_full = watched(broker, monkeypatch)
            submitting = asyncio.create_task(submit_for_ever(api))
            async with asyncio.timeout(WAIT_S):
                await is_full.wait()
            refusal = await refused(api.submit_echo())
            assert (refusal.code, refusal.reason) == (UNAVAILABLE, "STORE_UNAVAILABLE")
            assert "RetryInfo" in refusal.kinds
            status, _, words = await http(broker.metrics_address, "/readyz")
            assert (status, json.loads(words)["checks"]["store"]) == (503, "the store refuses commits")
            async with stream_to(broker.mesh_address) as agent:
                await agent.say(hello("a1"))
                assert (await agent.frame()).reject.code == agent_pb.REJECT_CODE_STORE_UNAVAILABLE
            assert not submitting.done()
            # What was stored is read all the same.
            assert len(await api.listed()) == len(acknowledged)
        with pytest.raises(grpc.aio.AioRpcError):
            await submitting
    assert len(acknowledged) > 2
    assert await stored(tmp_path) == acknowledged


async def test_store_of_unknown_state_ends_the_broker_and_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(request: CommitRequest) -> CommitOutcome:
        raise StoreFailedError("the disk gave an error")

    async with Broker(settings_of(tmp_path)) as broker, api_of(broker) as api:
        monkeypatch.setattr(broker.store, "commit", lost)
        refusal = await refused(api.submit_echo())
        assert (refusal.code, refusal.reason) == (UNAVAILABLE, "STORE_FAILED")
        with pytest.raises(StoreFailedError):
            await broker.failed()
        status, _, words = await http(broker.metrics_address, "/readyz")
        assert (status, "the engine has stopped" in words) == (503, True)
    assert await stored(tmp_path) == []


# --- a task that fails ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "called"), [("probe", "rpc.server.Listener.probe"), ("lag", "observe.distribution.Distribution.add")]
)
async def test_task_that_fails_is_in_the_log_and_turns_readiness_red(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, called: str
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr("broker.app.PROBE_EVERY_S", 0.01)
    async with Broker(settings_of(tmp_path)) as broker:
        [task] = [task for task in asyncio.all_tasks() if task.get_name() == name]
        with capture_logs() as logs:
            monkeypatch.setattr(f"broker.{called}", fail)
            await asyncio.wait((task,), timeout=WAIT_S)
            status, _, words = await http(broker.metrics_address, "/readyz")
        assert (status, json.loads(words)["checks"].get(name)) == (503, "ended: a mistake")
        assert [(line["task"], line["why"]) for line in logs if line["event"] == "task.failed"] == [(name, "a mistake")]


# --- the process ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("process_logging")
def test_serve_gives_the_exit_code_of_what_is_wrong(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    lock = FileLock(tmp_path / "data" / STORE_FILE)
    lock.acquire()
    assert serve(settings_of(tmp_path)) == 6
    lock.release()
    assert serve(settings_of(tmp_path, dev=False)) == 2
    said = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [(line["event"], line["reason"]) for line in said] == [
        ("broker.refused", "STORE_LOCKED"),
        ("broker.refused", "NOT_BUILT"),
    ]


@pytest.mark.usefixtures("process_logging")
def test_serve_returns_one_when_the_store_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def fail(engine: object) -> None:
        raise StoreFailedError("the disk gave an error")

    monkeypatch.setattr("broker.app.Engine.run", fail)
    assert serve(settings_of(tmp_path)) == 1
    assert '"event": "engine.failed"' in capfd.readouterr().err


class Process:
    """`mesh serve` itself; its log lines are read one by one."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self, event: str) -> dict[str, str]:
        """The next log line of this event."""
        assert self.process.stderr is not None
        async with asyncio.timeout(WAIT_S):
            while content := await self.process.stderr.readline():
                line: dict[str, str] = json.loads(content)
                if line["event"] == event:
                    return line
        raise AssertionError(f"it ended without {event}")

    async def ended(self) -> int:
        async with asyncio.timeout(WAIT_S):
            return await self.process.wait()


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Process]:
    ports = [f"--{name}-listen=127.0.0.1:0" for name in ("mesh", "api", "metrics")]
    command = (sys.executable, "-m", "broker.cli", "serve", "--dev", f"--data={folder / 'data'}", *ports)
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.e2e
async def test_process_stops_in_order_at_a_signal_and_loses_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as broker:
        ready = await broker.line("broker.ready")
        async with channel_to(ready["api"]) as channel:
            results = await Api(channel).submit_echo(3)
        broker.process.send_signal(signal.SIGTERM)
        await broker.line("broker.stopped")
        assert await broker.ended() == 0
    assert await stored(tmp_path) == [result.job_key for result in results]


@pytest.mark.e2e
async def test_process_ends_at_once_at_the_second_signal(tmp_path: Path) -> None:
    async with serving(tmp_path) as broker:
        ready = await broker.line("broker.ready")
        async with channel_to(ready["api"]) as channel:
            watch = Api(channel).jobs.WatchJobs(pb.WatchJobsRequest(parent=ORGANIZATION))
            await watch.initial_metadata()  # a call that goes on holds the stop up
            broker.process.send_signal(signal.SIGINT)
            await broker.line("broker.stopping")
            broker.process.send_signal(signal.SIGINT)
            assert await broker.ended() == 1
            watch.cancel()


# --- history --------------------------------------------------------------------------------------------------------


async def test_broker_removes_by_itself_what_is_past_its_time_and_nothing_that_is_live(tmp_path: Path) -> None:
    # A history of nine microseconds.
    settings = settings_of(tmp_path, store={"history_days": 1e-10}, dispatch={"keys_s": 1e-6})
    async with Broker(settings) as broker, api_of(broker) as api:
        done, waiting = await api.submit(echo(idempotency_key="order-1"), pb.JobSpec(operation="other.one"))
        async with agent_on(broker.mesh_address) as agent:
            (assign,) = await agent.assigned(1)
            await agent.report(succeeded(key_of(assign)))
    async with Broker(settings) as broker, api_of(broker) as api:
        async with asyncio.timeout(WAIT_S):
            await broker.retention.ran.wait()
        refusal = await refused(api.job(done.job_id))
        assert (refusal.reason, broker.retention.jobs_total, broker.retention.keys_total) == ("JOB_NOT_FOUND", 1, 1)
        assert (await api.job(waiting.job_id)).operation == "other.one"
        (again,) = await api.submit(echo(idempotency_key="order-1"))
        assert not again.duplicate


async def test_broker_forgets_by_itself_a_group_that_was_removed_and_whose_history_is_over(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, store={"history_days": 1e-10}, dispatch={"keys_s": 1e-6})
    async with Broker(settings) as broker, api_of(broker) as api:
        group = admin_pb.CreateGroupRequest(parent=ORGANIZATION, group_id="old", group=admin_pb.Group())
        made = await api.admin.CreateGroup(group, timeout=WAIT_S)
        await api.admin.DeleteGroup(admin_pb.DeleteGroupRequest(name=made.name, force=True), timeout=WAIT_S)
        run = await broker.retention.run_once()
        assert (run.names, broker.retention.names_total) == (1, 1)
        assert [row.slug for row in await broker.store.groups()] == ["default"]
        again = await api.admin.CreateGroup(group, timeout=WAIT_S)
        assert (again.name, again.created_at != made.created_at) == (made.name, True)
        assert broker.engine.dispatcher(GroupNo(3)).ledger.group == 3  # number 2 is given to nobody
