"""The engine over a real SQLite store: nothing leaves before its commit, and a restart loses nothing."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.clock import SECOND_US, EngineClock
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.messages import (
    AgentAdded,
    AgentConnected,
    AssignJob,
    AttemptFinished,
    Effects,
    EndSession,
    Event,
    JobAccepted,
    JobSubmitted,
    RequestDone,
    RequestRefused,
    Send,
)
from broker.dispatch.model import AgentNo, DispatchPolicy, GroupNo, JobKey, OperationPolicy, OutcomeStatus, SessionId
from broker.engine import SHARE, Engine
from broker.errors import ConfigError, FullError, NotOwnerError, StoreBusyError, StoreFailedError
from broker.observe.recording import Recording
from broker.settings import JournalSettings, LimitSettings
from broker.store.base import (
    Body,
    CommitOutcome,
    CommitRequest,
    CommitStatus,
    GroupRow,
    KnownSubmission,
    SubmissionLookup,
)
from broker.store.sqlite import SqliteStore
from broker.tally import LITTLE
from simulator.replay import replay

GROUP = GroupNo(1)
AGENT = AgentNo(1)
SESSION = SessionId(1)
POLICY = OperationPolicy(no=1)
INCARNATION = b"incarnation-0001"
SECOND_NS = 1_000_000_000


class Inbox:
    """What one session was told."""

    def __init__(self) -> None:
        self.sends: list[Send] = []
        self.assigned: list[tuple[AssignJob, Body, bytes]] = []
        self.changed = asyncio.Event()

    def deliver(self, send: Send) -> None:
        self.sends.append(send)
        self.changed.set()

    def assign(self, order: AssignJob, payload: Body, checkpoint: bytes) -> None:
        self.assigned.append((order, payload, checkpoint))
        self.changed.set()

    async def until_assigned(self, count: int) -> list[tuple[AssignJob, Body, bytes]]:
        async with asyncio.timeout(20):
            while len(self.assigned) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.assigned


def submission(engine: Engine, number: int, content: bytes = b"payload") -> JobSubmitted:
    job_id, size = number.to_bytes(16, "big"), len(content)
    return JobSubmitted(engine.ticket(), job_id, "echo", POLICY, content[:16], payload_bytes=size, body=Body(content))


@asynccontextmanager
async def running(
    path: Path,
    limits: LimitSettings | None = None,
    clock: EngineClock | None = None,
) -> AsyncIterator[tuple[Engine, SqliteStore]]:
    store = SqliteStore(path)
    await store.open()
    if not await store.groups():
        organisation = await store.insert_organisation("default", "Default", 1)
        await store.insert_group(
            GroupRow(GroupNo(0), organisation.org_no, "default", "Default", "", "private", True, 1)
        )
    engine = Engine(
        store,
        clock or EngineClock(),
        limits or LimitSettings(),
        DispatchPolicy(),
        broker_id="broker",
        payload_cache_bytes_max=1 << 20,
        seed=1,
    )
    await engine.recover()
    loop = asyncio.create_task(engine.run())
    try:
        yield engine, store
    finally:
        engine.close()
        await loop
        await store.close()


async def connect(engine: Engine, session: SessionId = SESSION, capacity: int = 8, inbox: Inbox | None = None) -> Inbox:
    inbox = inbox or Inbox()
    assert isinstance(await engine.ask(GROUP, lambda ticket: AgentAdded(ticket, AGENT, "a1")), RequestDone)
    engine.attach(GROUP, session, inbox)
    hello = AgentConnected(
        AGENT, session, INCARNATION, int(session), capacity, capacity, 1, frozenset({"echo"}), frozenset()
    )
    await engine.control(GROUP, hello)
    return inbox


async def test_engine_answers_each_submission_in_order_and_delivers_the_payload(tmp_path: Path) -> None:
    async with running(tmp_path / "mesh.db") as (engine, _):
        inbox = await connect(engine)
        replies = await engine.submit(GROUP, [submission(engine, 1, b"first"), submission(engine, 2, b"second")])
        assert [type(reply) for reply in replies] == [JobAccepted, JobAccepted]
        assigned = await inbox.until_assigned(2)
        assert [body.content for _, body, _ in assigned] == [b"first", b"second"]


async def test_engine_knows_a_submission_again_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path / "mesh.db") as (engine, _):
        (first,) = await engine.submit(GROUP, [submission(engine, 1)])
    async with running(tmp_path / "mesh.db") as (engine, _):
        again, other = await engine.submit(GROUP, [submission(engine, 1), submission(engine, 1, b"other content")])
    assert isinstance(first, JobAccepted)
    assert isinstance(again, JobAccepted)
    assert (again.job_key, again.duplicate) == (first.job_key, True)
    assert isinstance(other, RequestRefused)
    assert other.reason == "IDEMPOTENCY_KEY_REUSED"


async def test_engine_settles_two_equal_submissions_of_one_batch(tmp_path: Path) -> None:
    async with running(tmp_path / "mesh.db") as (engine, _):
        first, second = await engine.submit(GROUP, [submission(engine, 1), submission(engine, 1)])
    assert isinstance(first, JobAccepted)
    assert isinstance(second, JobAccepted)
    assert (second.job_key, first.duplicate, second.duplicate) == (first.job_key, False, True)


async def test_engine_gives_the_payload_from_disk_when_the_agent_comes_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path / "mesh.db") as (engine, _):
        await engine.submit(GROUP, [submission(engine, 7, b"x" * 10_000)])
    async with running(tmp_path / "mesh.db") as (engine, _):
        inbox = await connect(engine)
        ((order, body, _),) = await inbox.until_assigned(1)
        assert body.content == b"x" * 10_000
        assert order.attempt == 1


async def test_engine_keeps_an_outcome_and_its_result(tmp_path: Path) -> None:
    async with running(tmp_path / "mesh.db") as (engine, store):
        inbox = await connect(engine)
        await engine.submit(GROUP, [submission(engine, 1)])
        ((order, _, _),) = await inbox.until_assigned(1)
        done = OutcomeStatus.SUCCEEDED
        finished = AttemptFinished(AGENT, SESSION, order.job_key, 1, done, body=Body(b"result", "text/plain"))
        inbox.changed.clear()
        await engine.report(GROUP, [finished])
        await inbox.changed.wait()
        record = await store.job([GROUP], order.job_id)
    assert record is not None
    assert record.row.state == "succeeded"
    assert record.result is not None
    assert (record.result.content, record.result.content_type) == (b"result", "text/plain")


async def test_engine_sends_nothing_before_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path / "mesh.db") as (engine, store):
        inbox = await connect(engine)
        await engine.ask(GROUP, lambda ticket: AgentAdded(ticket, AGENT, "a1"))
        may_commit, is_asked = asyncio.Event(), asyncio.Event()
        commit = store.commit

        async def held(request: CommitRequest) -> CommitOutcome:
            is_asked.set()
            await may_commit.wait()
            return await commit(request)

        monkeypatch.setattr(store, "commit", held)
        waiting = asyncio.create_task(engine.submit(GROUP, [submission(engine, 1)]))
        await is_asked.wait()
        assert not waiting.done()
        assert not inbox.assigned
        may_commit.set()
        await waiting
        await inbox.until_assigned(1)


async def test_engine_tries_the_same_batch_again_when_it_was_rolled_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path / "mesh.db") as (engine, store):
        commit, seen = store.commit, list[int]()

        async def refused_once(request: CommitRequest) -> CommitOutcome:
            seen.append(request.seq)
            if len(seen) == 1:
                return CommitOutcome(CommitStatus.ROLLED_BACK, why="database is full", retry_after_s=0.001)
            return await commit(request)

        monkeypatch.setattr(store, "commit", refused_once)
        (reply,) = await engine.submit(GROUP, [submission(engine, 1)])
        assert isinstance(reply, JobAccepted)
        assert seen[0] == seen[1]
        assert not engine.is_stalled


async def test_engine_looks_the_next_batch_up_beside_a_commit_and_knows_what_that_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path / "mesh.db", LimitSettings(batch_submissions=2)) as (engine, store):
        commit, find = store.commit, store.find_submissions
        may_end, found = asyncio.Event(), asyncio.Event()

        async def commit_slowly(request: CommitRequest) -> CommitOutcome:
            outcome = await commit(request)
            await may_end.wait()
            return outcome

        async def find_and_tell(lookups: Sequence[SubmissionLookup]) -> list[KnownSubmission | None]:
            known = await find(lookups)
            if any(known):
                found.set()
            return known

        monkeypatch.setattr(store, "commit", commit_slowly)
        monkeypatch.setattr(store, "find_submissions", find_and_tell)
        waiting = asyncio.create_task(engine.submit(GROUP, [submission(engine, number) for number in (1, 2, 2, 1, 3)]))
        async with asyncio.timeout(20):
            await found.wait()
        assert not waiting.done()
        may_end.set()
        first, second, second_again, first_again, third = await waiting
    assert isinstance(first, JobAccepted)
    assert isinstance(second, JobAccepted)
    assert second_again == JobAccepted(second_again.ticket, second.job_key, duplicate=True)
    assert first_again == JobAccepted(first_again.ticket, first.job_key, duplicate=True)
    assert isinstance(third, JobAccepted)
    assert not third.duplicate


async def test_engine_looks_up_again_what_it_looked_up_beside_a_commit_that_was_rolled_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path / "mesh.db", LimitSettings(batch_submissions=2)) as (engine, store):
        commit, seen = store.commit, list[int]()

        async def refused_once(request: CommitRequest) -> CommitOutcome:
            seen.append(request.seq)
            if len(seen) == 1:
                return CommitOutcome(CommitStatus.ROLLED_BACK, why="database is full", retry_after_s=0.001)
            return await commit(request)

        monkeypatch.setattr(store, "commit", refused_once)
        first, second, *again = await engine.submit(GROUP, [submission(engine, number) for number in (1, 2, 1, 2)])
    assert isinstance(first, JobAccepted)
    assert isinstance(second, JobAccepted)
    assert again == [
        JobAccepted(again[0].ticket, first.job_key, duplicate=True),
        JobAccepted(again[1].ticket, second.job_key, duplicate=True),
    ]


async def test_engine_leaves_no_look_up_behind_when_the_commit_beside_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_asked = asyncio.Event()

    async def fail(request: CommitRequest) -> CommitOutcome:
        is_asked.set()
        await asyncio.sleep(0)  # the look-up begins
        raise StoreFailedError("the disk is gone")

    async def flood() -> None:
        async with running(tmp_path / "mesh.db", LimitSettings(batch_submissions=1)) as (engine, store):
            monkeypatch.setattr(store, "commit", fail)
            waiting = asyncio.create_task(engine.submit(GROUP, [submission(engine, number) for number in range(3)]))
            async with asyncio.timeout(20):
                await is_asked.wait()
            waiting.cancel()

    with pytest.raises(StoreFailedError, match="the disk is gone"):
        await flood()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "look-ahead"]


async def test_engine_refuses_submissions_beyond_its_mailbox_and_keeps_none_of_them(tmp_path: Path) -> None:
    limits = LimitSettings(mailbox_submissions=4, batch_submissions=4)
    async with running(tmp_path / "mesh.db", limits) as (engine, store):
        with pytest.raises(FullError) as caught:
            await engine.submit(GROUP, [submission(engine, number) for number in range(5)])
        assert caught.value.reason == "MAILBOX_FULL"
        assert not await store.live_jobs(GROUP, JobKey(0), 10)


async def test_engine_refuses_payloads_beyond_the_bytes_of_its_mailbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mib = 1 << 20
    limits = LimitSettings(mailbox_bytes_max=4 * mib, batch_bytes_max=mib)
    async with running(tmp_path / "mesh.db", limits) as (engine, store):
        large = b"x" * mib
        with pytest.raises(FullError) as caught:
            await engine.submit(GROUP, [submission(engine, number, large) for number in range(5)])
        assert caught.value.reason == "MAILBOX_FULL"
        assert not await store.live_jobs(GROUP, JobKey(0), 10)
        commits, commit = list[int](), store.commit

        async def counted(request: CommitRequest) -> CommitOutcome:
            commits.append(len(request.writes[GROUP].inserts))
            return await commit(request)

        monkeypatch.setattr(store, "commit", counted)
        assert len(await engine.submit(GROUP, [submission(engine, number, large) for number in range(4)])) == 4
        assert commits == [1, 1, 1, 1]


async def test_engine_tells_everybody_who_waits_when_another_broker_has_the_group(tmp_path: Path) -> None:
    limits = LimitSettings(batch_submissions=1)
    async with running(tmp_path / "mesh.db", limits) as (engine, _):
        inbox = await connect(engine)
        with closing(sqlite3.connect(tmp_path / "mesh.db")) as other, other:
            other.execute("UPDATE group_epoch SET epoch = epoch + 1")
        async with asyncio.timeout(20):
            in_batch, queued = await asyncio.gather(
                engine.submit(GROUP, [submission(engine, 1)]),
                engine.submit(GROUP, [submission(engine, 2)]),
                return_exceptions=True,
            )
        assert isinstance(in_batch, NotOwnerError)
        assert isinstance(queued, NotOwnerError)
        assert EndSession(SESSION, "not_owner") in inbox.sends
        with pytest.raises(NotOwnerError):
            await engine.ask(GROUP, lambda ticket: AgentAdded(ticket, AgentNo(2), "a2"))


class Broken(Inbox):
    """An outbox with a mistake."""

    def assign(self, order: AssignJob, payload: Body, checkpoint: bytes) -> None:
        raise RuntimeError("a mistake of this session")


async def test_engine_ends_the_session_whose_outbox_fails_and_serves_the_others(tmp_path: Path) -> None:
    async with running(tmp_path / "mesh.db") as (engine, _):
        broken = await connect(engine, inbox=Broken())
        await engine.submit(GROUP, [submission(engine, 1)])
        async with asyncio.timeout(20):
            while EndSession(SESSION, "failed") not in broken.sends:
                broken.changed.clear()
                await broken.changed.wait()
        assert isinstance((await engine.submit(GROUP, [submission(engine, 2)]))[0], JobAccepted)


async def test_engine_that_failed_tells_whoever_still_comes(tmp_path: Path) -> None:
    async with running(tmp_path / "mesh.db") as (engine, _):
        engine.fail(RuntimeError("a mistake"))
        finished = AttemptFinished(AGENT, SESSION, JobKey(1), 1, OutcomeStatus.SUCCEEDED)
        for call in (
            engine.submit(GROUP, [submission(engine, 1)]),
            engine.ask(GROUP, lambda ticket: AgentAdded(ticket, AGENT, "a1")),
            engine.report(GROUP, [finished]),
            engine.control(GROUP, AgentAdded(1, AGENT, "a1")),
        ):
            with pytest.raises(StoreFailedError, match="the engine has stopped"):
                async with asyncio.timeout(20):
                    await call


async def test_engine_stops_when_a_payload_is_missing_and_names_the_job(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    async with running(path) as (engine, _):
        (reply,) = await engine.submit(GROUP, [submission(engine, 1, b"x" * 10_000)])
    assert isinstance(reply, JobAccepted)
    with closing(sqlite3.connect(path)) as other, other:
        assert other.execute("DELETE FROM blob").rowcount == 1
    with pytest.raises(StoreFailedError, match=f"the payload of job {reply.job_key} ") as caught:
        async with running(path) as (engine, _):
            await connect(engine)
    assert caught.value.details == {"job_key": str(reply.job_key)}


async def test_engine_gives_an_empty_payload_when_the_job_has_none(tmp_path: Path) -> None:
    async with running(tmp_path / "mesh.db") as (engine, _):
        await engine.submit(GROUP, [submission(engine, 1, b"")])
    async with running(tmp_path / "mesh.db") as (engine, _):
        inbox = await connect(engine)
        ((_, body, _),) = await inbox.until_assigned(1)
        assert body.content == b""


@pytest.mark.parametrize("read", ["find_submissions", "payloads"])
async def test_engine_reads_again_when_the_store_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    async with running(tmp_path / "mesh.db") as (engine, _):
        await engine.submit(GROUP, [submission(engine, 1)])
    async with running(tmp_path / "mesh.db") as (engine, store):
        reading, refused = getattr(store, read), list[bool]()

        async def busy_once(wanted: Sequence[object]) -> object:
            if not refused:
                refused.append(engine.is_stalled)
                raise StoreBusyError("database is locked")
            refused.append(engine.is_stalled)
            return await reading(wanted)

        monkeypatch.setattr(store, read, busy_once)
        inbox = await connect(engine)
        (again,) = await engine.submit(GROUP, [submission(engine, 1)])
        assert isinstance(again, JobAccepted)
        assert again.duplicate
        await inbox.until_assigned(1)
        assert refused[:2] == [False, True]
        assert not engine.is_stalled


async def test_engine_tells_observers_what_each_commit_worked_and_wrote(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []

    class Commits:
        def on_batch(self, notices: object, commit_seq: int) -> None: ...

        def on_commit(self, seconds: float, events: int, rows: int) -> None:
            heard.append((events, rows))

        def on_full(self, queue: str) -> None: ...

    async with running(tmp_path / "mesh.db") as (engine, _):
        engine.observe(Commits())
        await engine.submit(GROUP, [submission(engine, number) for number in range(3)])
        # Three jobs, and what is new to the group: their operation with its labels, and its policy.
        assert heard == [(3, 5)]


async def test_engine_shows_its_groups_and_what_waits_to_whoever_only_looks(tmp_path: Path) -> None:
    async with running(tmp_path / "mesh.db") as (engine, store):
        other = await store.insert_group(GroupRow(GroupNo(0), 1, "other", "Other", "", "private", True, 1))
        await engine.add_group(other.group_no)
        assert [one.ledger.group for one in engine.dispatchers()] == [GROUP, other.group_no]
        assert engine.dispatcher_of(GROUP) is engine.dispatcher(GROUP)
        assert engine.dispatcher_of(GroupNo(77)) is None
        submitting = asyncio.create_task(engine.submit(GROUP, [submission(engine, 1)]))
        await asyncio.sleep(0)  # it has posted, and the engine has not looked yet
        assert engine.waiting() == {"control": 0, "reports": 0, "submissions": 1}
        await submitting
        assert not any(engine.waiting().values())


async def test_engine_refuses_a_group_that_it_does_not_own(tmp_path: Path) -> None:
    async with running(tmp_path / "mesh.db") as (engine, _):
        with pytest.raises(NotOwnerError):
            await engine.submit(GroupNo(77), [submission(engine, 1)])


async def test_engine_refuses_to_start_when_the_clock_is_far_behind_the_store(tmp_path: Path) -> None:
    async with running(tmp_path / "store") as (engine, _):
        await engine.ask(GROUP, lambda ticket: AgentAdded(ticket, AGENT, "a1"))
    store = SqliteStore(tmp_path / "store")
    await store.open()
    try:
        clock = EngineClock(wall_ns=lambda: 1_000_000_000)
        late = Engine(
            store, clock, LimitSettings(), DispatchPolicy(), broker_id="b1", payload_cache_bytes_max=0, seed=1
        )
        with pytest.raises(ConfigError, match="set the clock right") as caught:
            await late.recover()
        assert caught.value.reason == "CLOCK_BEHIND"
    finally:
        await store.close()


async def test_engine_has_every_turn_written_down_and_a_replay_orders_the_same(tmp_path: Path) -> None:
    recording = Recording(JournalSettings(enabled=True), tmp_path / "journal", seed=1, program="test")
    recording.start()
    async with running(tmp_path / "mesh.db") as (engine, store):
        engine.record(recording)
        inbox = await connect(engine)
        other = await store.insert_group(GroupRow(GroupNo(0), 1, "other", "Other", "", "private", True, 1))
        await engine.add_group(other.group_no)
        await engine.submit(other.group_no, [submission(engine, 7)])
        await engine.submit(GROUP, [submission(engine, number) for number in range(10, 14)])
        for order, _, _ in await inbox.until_assigned(4):
            done = AttemptFinished(AGENT, SESSION, order.job_key, order.attempt, OutcomeStatus.SUCCEEDED)
            await engine.report(GROUP, [done])
        with closing(sqlite3.connect(tmp_path / "mesh.db")) as thief, thief:
            thief.execute("UPDATE group_epoch SET epoch = epoch + 1 WHERE group_no = ?", (other.group_no,))
        with pytest.raises(NotOwnerError):
            await engine.submit(other.group_no, [submission(engine, 8)])
        await engine.submit(GROUP, [submission(engine, 20)])
    recording.stop()
    report = replay(tmp_path / "journal")
    assert (report.segments, report.differing, report.skipped, report.notes) == (1, 0, 0, [])
    assert report.events >= 2 + 1 + 4 + 4 + 1 + 1


class Turns:
    """A recorder that knows what each turn was given, and for how long the engine said that it stood still."""

    def __init__(self) -> None:
        self.lags_us: list[int] = []
        self.events: list[list[tuple[GroupNo, Event]]] = []
        self.changed = asyncio.Event()

    def before(self, now_us: int, dispatchers: Callable[[], Iterable[Dispatcher]]) -> None: ...

    def turn(
        self, at_us: int, lag_us: int, events: Sequence[tuple[GroupNo, Event]], effects: Mapping[GroupNo, Effects]
    ) -> None:
        self.lags_us += [lag_us] if lag_us else []
        self.events.append(list(events))
        self.changed.set()

    def added(self, dispatcher: Dispatcher) -> None: ...

    def lost(self, groups: Collection[GroupNo]) -> None: ...


@pytest.mark.parametrize("stall_s", [2, 9])
async def test_engine_that_stood_still_counts_from_its_last_step_and_not_from_the_next_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stall_s: int
) -> None:
    stopped_ns = 0

    def now_ns() -> int:
        return time.monotonic_ns() + stopped_ns

    turns = Turns()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now_ns() / SECOND_NS)
    async with running(tmp_path / "mesh.db", clock=EngineClock(monotonic_ns=now_ns)) as (engine, _):
        await connect(engine)  # its next deadline is seconds away
        await engine.ask(GROUP, lambda ticket: AgentAdded(ticket, AGENT, "a1"))
        engine.record(turns)
        stopped_ns = stall_s * SECOND_NS
        async with asyncio.timeout(20):
            while not turns.lags_us:
                turns.changed.clear()
                await turns.changed.wait()
    assert turns.lags_us[0] >= stall_s * SECOND_US


@pytest.mark.parametrize("act", ["commit", "find_submissions"])
async def test_engine_that_stood_still_while_the_store_worked_says_for_how_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    stopped_ns = 0

    def now_ns() -> int:
        return time.monotonic_ns() + stopped_ns

    turns = Turns()
    async with running(tmp_path / "mesh.db", clock=EngineClock(monotonic_ns=now_ns)) as (engine, store):
        await connect(engine)
        engine.record(turns)
        real = getattr(store, act)

        async def stopped(*arguments: Any) -> Any:
            nonlocal stopped_ns
            stopped_ns = 9 * SECOND_NS
            return await real(*arguments)

        monkeypatch.setattr(store, act, stopped)
        await engine.submit(GROUP, [submission(engine, 1)])
        await engine.submit(GROUP, [submission(engine, 2)])
    assert len(turns.lags_us) == 1
    assert 9 * SECOND_US <= turns.lags_us[0] < 18 * SECOND_US


async def test_engine_whose_commits_are_slow_finds_a_silent_agent_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loop goes on meanwhile and hears whoever speaks: there is little to forgive."""
    passed_ns = 0
    clock = EngineClock(monotonic_ns=lambda: passed_ns)
    limits = LimitSettings(batch_submissions=1)  # a turn, and a commit, for each
    async with running(tmp_path / "mesh.db", limits, clock) as (engine, store):
        inbox = await connect(engine)
        real = store.commit

        async def slow(request: CommitRequest) -> CommitOutcome:
            nonlocal passed_ns
            for _ in range(6):
                passed_ns += 3 * SECOND_NS // 10
                engine._look_at_clock()  # which it does by itself in real time
            return await real(request)

        monkeypatch.setattr(store, "commit", slow)
        jobs = [replace(submission(engine, number), operation="load") for number in range(20)]  # nothing for the agent
        await asyncio.gather(*(engine.submit(GROUP, [job]) for job in jobs))
    assert EndSession in map(type, inbox.sends)


async def test_engine_takes_little_of_a_source_that_floods_while_others_have_something_to_say(tmp_path: Path) -> None:
    turns = Turns()
    async with running(tmp_path / "mesh.db") as (engine, _):
        engine.record(turns)
        flood = [submission(engine, number) for number in range(3_000)]
        flooding = [asyncio.create_task(engine.submit(GROUP, flood[at::10], "flood")) for at in range(10)]
        await asyncio.sleep(0)
        good = await asyncio.create_task(engine.submit(GROUP, [submission(engine, 1 << 64)], "good"))
        await asyncio.gather(*flooding)
    assert isinstance(good[0], JobAccepted)
    batches = [[event.job_id for _, event in events if isinstance(event, JobSubmitted)] for events in turns.events]
    batches = [batch for batch in batches if batch]
    came = next(at for at, batch in enumerate(batches) if (1 << 64).to_bytes(16, "big") in batch)
    assert came <= 2  # one is worked, one is looked up
    assert max(map(len, batches[came:])) <= SHARE + 1
    assert sum(map(len, batches)) == 3_001


async def test_engine_takes_whole_batches_of_two_bulk_loads_also_when_one_of_them_ends(tmp_path: Path) -> None:
    turns, whole = Turns(), LimitSettings().batch_submissions
    async with running(tmp_path / "mesh.db") as (engine, _):
        engine.record(turns)
        jobs = [submission(engine, number) for number in range(10 * whole)]
        short = 2 * whole + 20  # said much, and 20 of it are alone in its last batch
        assert short > LITTLE
        loads = engine.submit(GROUP, jobs[:short], "short"), engine.submit(GROUP, jobs[short:], "long")
        await asyncio.gather(*loads)
    assert [len(events) for events in turns.events if events] == [whole] * 10


async def test_engine_takes_whole_batches_of_a_source_that_is_alone(tmp_path: Path) -> None:
    turns = Turns()
    async with running(tmp_path / "mesh.db") as (engine, _):
        engine.record(turns)
        await engine.submit(GROUP, [submission(engine, number) for number in range(3_000)], "flood")
    batches = [len(events) for events in turns.events if events]
    assert max(batches) == LimitSettings().batch_submissions
