"""The driver of the dispatchers: mailbox -> step -> one commit -> replies, frames, notices -> re-arm.

One engine a broker process. It has three bounded mailboxes (control, reports, submissions), so that a flood of one
kind never starves another; a batch takes at most a slice of each, of all sources in turns, and little of a source that
floods while others have something to say. What arrives while a commit runs shares the next one,
so batches grow with load and a lone event waits for nothing. Nothing is answered or sent before its commit.

If the store fails in a way that leaves the disk unknown, `run` raises and the process must end: crash-only.
"""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol, TypeVar

import structlog

from broker.clock import SECOND_US, ClockBehindError, EngineClock
from broker.dispatch import reasons
from broker.dispatch.batch import Batch, Batcher
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.messages import (
    AgentsHeard,
    AssignJob,
    Effects,
    EndSession,
    Event,
    JobSubmitted,
    KnownJob,
    Notice,
    Reply,
    Send,
    Transition,
)
from broker.dispatch.model import FINAL_STATES, NO_JOB, AgentNo, DispatchPolicy, GroupNo, JobKey, SessionId, group_of
from broker.dispatch.recovery import recover, recover_jobs, seal
from broker.errors import (
    ConfigError,
    FullError,
    NotFoundError,
    NotOwnerError,
    StoreBusyError,
    StoreError,
    StoreFailedError,
)
from broker.mailbox import Mailbox
from broker.settings import LimitSettings
from broker.store.base import Body, CommitRequest, CommitStatus, Store, SubmissionLookup
from broker.store.payloads import PayloadCache
from broker.tally import Tally

LAG_US: Final = 500_000
"""A turn later than this is a stall of ours: liveness deadlines move by it."""
PULSE_US: Final = 250_000
"""So often the engine notes that its loop lives: a standstill is measured from the last time."""
RECOVERY_PAGE: Final = 5_000
SHARE: Final = 64
"""Submissions of one source in a batch while others have something to say: a cycle is short then."""
CROWDED_US: Final = 1_000_000
"""For so long after they had."""
READ_AGAIN_S: Final = 0.1
"""How long a read waits that the store was too busy for."""
NO_BODY: Final = Body(b"")

T = TypeVar("T")
Submissions = list[tuple[GroupNo, JobSubmitted]]

log = structlog.get_logger()


class Outbox(Protocol):
    """The writing side of one session. Both calls return at once; one that raises loses its session, nobody else's."""

    def deliver(self, send: Send) -> None:
        """Queue an order that carries no payload."""

    def assign(self, order: AssignJob, payload: Body, checkpoint: bytes) -> None:
        """Queue an assignment with its payload."""


class Observer(Protocol):
    """Hears what was committed; must be quick and must not raise."""

    def on_batch(self, notices: Sequence[Notice], commit_seq: int) -> None:
        """Notices of one batch, after its commit."""

    def on_commit(self, seconds: float, events: int, rows: int) -> None:
        """One commit took this long for a batch of so many events, and wrote so many rows."""

    def on_full(self, queue: str) -> None:
        """A queue of the mailbox was full."""


class Recorder(Protocol):
    """Writes down every turn, so that it can be done again; must be quick and must not raise."""

    def before(self, now_us: int, dispatchers: Callable[[], Iterable[Dispatcher]]) -> None:
        """A turn begins; the one before is settled."""

    def turn(
        self, at_us: int, lag_us: int, events: Sequence[tuple[GroupNo, Event]], effects: Mapping[GroupNo, Effects]
    ) -> None:
        """What a turn was given and what it ordered, before anything of it is carried out."""

    def added(self, dispatcher: Dispatcher) -> None:
        """A group is driven from the next turn on."""

    def lost(self, groups: Collection[GroupNo]) -> None:
        """These groups are driven no more."""


class _Request:
    """Somebody who waits for the replies to several events of one group."""

    __slots__ = ("future", "group", "missing", "replies")

    def __init__(self, group: GroupNo, size: int) -> None:
        self.group = group
        self.replies: list[Reply | None] = [None] * size
        self.missing = size
        self.future: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()

    def settle(self, index: int, reply: Reply) -> None:
        self.replies[index] = reply
        self.missing -= 1
        if not self.missing and not self.future.done():
            self.future.set_result([one for one in self.replies if one is not None])

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Engine:
    """Drives every dispatcher that this broker owns. Use from one event loop only."""

    def __init__(
        self,
        store: Store,
        clock: EngineClock,
        limits: LimitSettings,
        policy: DispatchPolicy,
        *,
        broker_id: str,
        payload_cache_bytes_max: int,
        seed: int,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.clock = clock
        self.policy = policy
        self.broker_id = broker_id
        self.payloads = PayloadCache(payload_cache_bytes_max)
        self._store = store
        self._limits = limits
        self._seed = seed
        self._observers = list(observers)
        self._recorder: Recorder | None = None
        self._batcher = Batcher(0)
        bytes_max = limits.mailbox_bytes_max
        self._control = Mailbox[Event]("control", limits.mailbox_control, bytes_max, self._tell_full)
        self._reports = Mailbox[Event]("reports", limits.mailbox_reports, bytes_max, self._tell_full)
        self._submissions = Mailbox[JobSubmitted]("submissions", limits.mailbox_submissions, bytes_max, self._tell_full)
        self._tally = Tally()  # of submitters
        self._heard: dict[GroupNo, dict[SessionId, tuple[AgentNo, int]]] = {}
        self._outboxes: dict[SessionId, tuple[GroupNo, Outbox]] = {}
        self._requests: dict[int, tuple[_Request, int]] = {}
        self._tickets = itertools.count(1)
        self._groups: list[GroupNo] = []
        self._gone: set[GroupNo] = set()  # removed, with nothing left to end: no dispatcher is made of them
        self._taken: Submissions = []  # out of the mailbox, not worked yet
        self._ahead: asyncio.Task[Submissions] | None = None  # looks them up
        self._wake = asyncio.Event()
        self._is_closing = False
        self._crowded_until_us = 0
        self._alive_us = clock.now_us()
        self._stood_us = 0
        self._pulses: asyncio.TimerHandle | None = None
        self.is_stalled = False

    # --- start ------------------------------------------------------------------------------------------------------

    async def recover(self) -> None:
        """Take ownership of the store and rebuild every group, in the order that the architecture fixes."""
        owned = await self._store.take_ownership(self.broker_id, self.clock.now_us())
        try:
            self.clock.resume_from(owned.last_committed_us)
        except ClockBehindError as error:
            raise ConfigError(str(error), reason="CLOCK_BEHIND") from error
        self._batcher = Batcher(owned.batch_seq)
        for row in await self._store.groups():
            dispatcher = await self._recovered(row.group_no, owned.epochs[row.group_no])
            if row.removed_us and not dispatcher.ledger.jobs and not dispatcher.ledger.agents:
                self._gone.add(row.group_no)
            else:
                self._drive(dispatcher)

    async def _recovered(self, group: GroupNo, epoch: int) -> Dispatcher:
        dispatcher = Dispatcher(group, self.policy, epoch, random.Random(f"{self._seed}/{group}/{epoch}"))
        state = await self._store.group_state(group)
        recover(
            dispatcher,
            self.clock.now_us(),
            acceptance_no=state.acceptance_no,
            policies=state.policies,
            label_sets=state.label_sets,
            agents=state.agents,
        )
        after = NO_JOB
        while page := await self._store.live_jobs(group, after, RECOVERY_PAGE):
            recover_jobs(dispatcher, page)
            after = page[-1].job_key
        seal(dispatcher)
        return dispatcher

    def _drive(self, dispatcher: Dispatcher) -> None:
        ledger = dispatcher.ledger
        self._batcher.add(ledger.group, dispatcher)
        self._groups.append(ledger.group)
        if self._recorder is not None:
            self._recorder.added(dispatcher)
        live, agents = len(ledger.jobs), len(ledger.agents)
        log.info("group.recovered", group_no=ledger.group, epoch=dispatcher.epoch, live_jobs=live, agents=agents)

    async def add_group(self, group: GroupNo) -> None:
        """Drive a group that was just created."""
        self._drive(await self._recovered(group, await self._store.adopt_group(group)))

    def is_over(self, group: GroupNo) -> bool:
        """Whether a group was removed and has nothing left to end."""
        found = self._batcher.get(group)
        return group in self._gone if found is None else found.ledger.is_over

    def forget(self, group: GroupNo) -> None:
        """Drive a group that is over no longer; its rows are gone."""
        assert self.is_over(group), "what it has must end first"
        self._gone.add(group)
        if self._batcher.get(group) is not None:
            self._batcher.drop(group)
            self._groups.remove(group)
            if self._recorder is not None:
                self._recorder.lost((group,))

    def dispatcher(self, group: GroupNo) -> Dispatcher:
        """The dispatcher of a group, to read. Raises NotOwnerError; NotFoundError if it was removed long ago."""
        found = self._batcher.get(group)
        if group in self._gone:
            raise NotFoundError("the group has been removed", reason=reasons.GROUP_GONE)
        if found is None:
            raise NotOwnerError(f"this broker does not own group number {group}; ask again in a moment")
        return found

    def dispatcher_of(self, group: GroupNo) -> Dispatcher | None:
        """The dispatcher of a group, to read; None if this broker does not drive it."""
        return self._batcher.get(group)

    def dispatchers(self) -> Iterator[Dispatcher]:
        """All that this broker owns, to read, in the order in which it got them."""
        return filter(None, map(self._batcher.get, self._groups))

    def waiting(self) -> Mapping[str, int]:
        """How many events wait in each queue of the mailbox."""
        submissions = len(self._submissions) + len(self._taken)
        return {"control": len(self._control), "reports": len(self._reports), "submissions": submissions}

    @property
    def commit_seq(self) -> int:
        """The number of the newest commit."""
        return self._batcher.seq

    @property
    def live_jobs(self) -> int:
        """Jobs of all groups that are not final."""
        return sum(len(dispatcher.ledger.jobs) for dispatcher in self.dispatchers())

    def observe(self, observer: Observer) -> None:
        """Have an observer hear every batch from now on."""
        self._observers.append(observer)

    def record(self, recorder: Recorder) -> None:
        """Have every turn written down from the next one on."""
        self._recorder = recorder

    # --- what comes in ----------------------------------------------------------------------------------------------

    def attach(self, group: GroupNo, session: SessionId, outbox: Outbox) -> None:
        """Deliver what is ordered for this session of an agent of the group to `outbox`."""
        self._outboxes[session] = (group, outbox)

    def detach(self, session: SessionId) -> None:
        """The session is over: what is ordered for it goes nowhere."""
        self._outboxes.pop(session, None)

    def heard(self, group: GroupNo, agent: AgentNo, session: SessionId) -> None:
        """A frame of this session arrived now. Costs no batch: told with the next one."""
        self._heard.setdefault(group, {})[session] = (agent, self.clock.now_us())

    async def report(
        self,
        group: GroupNo,
        events: Sequence[Event],
        on_taken: Callable[[], None] | None = None,
        session: SessionId | None = None,
    ) -> None:
        """Post what an agent reports. Waits while the mailbox is full: only that agent's reader stands still.

        `on_taken` is called when they wait no longer, unless this raises. Each session is a source of its own.
        """
        await self._reports.put(group, events, on_taken, session)
        self._wake.set()

    async def control(self, group: GroupNo, event: Event) -> None:
        """Post a control event (hello, closed). Waits while the mailbox is full."""
        await self._control.put(group, (event,))
        self._wake.set()

    def post(self, group: GroupNo, event: Event) -> None:
        """Post a control event that must not wait (the end of a session): there is one for each session."""
        self._control.force(group, event)
        self._wake.set()

    async def ask(self, group: GroupNo, make: Callable[[int], Event]) -> Reply:
        """Post a control event that is answered; `make` gets its ticket. Returns after the commit."""
        self.dispatcher(group)
        request, ticket = _Request(group, 1), self.ticket()
        self._requests[ticket] = (request, 0)
        try:
            await self.control(group, make(ticket))
        except BaseException:
            self._requests.pop(ticket, None)
            raise
        return (await request.future)[0]

    def ticket(self) -> int:
        """A number for an event that is answered: each event has its own."""
        return next(self._tickets)

    async def submit(self, group: GroupNo, jobs: Sequence[JobSubmitted], source: str = "") -> list[Reply]:
        """Submit jobs, each with a fresh `ticket`; one reply each, in order, after the commit.

        Those of a `source` are worked in their order, sources in turns.

        Raises FullError if the mailbox has no room for all of them, NotOwnerError (also later: the group was lost, and
        whether they were accepted is not known), StoreFailedError; nothing was accepted when FullError is raised.
        """
        self.dispatcher(group)
        if not self._submissions.offer(group, jobs, source):
            raise FullError("the broker has more submissions waiting than it may; try again", reason="MAILBOX_FULL")
        self._tally.note(source, len(jobs), self.clock.now_us() / SECOND_US)
        request = _Request(group, len(jobs))
        for index, job in enumerate(jobs):
            assert job.ticket not in self._requests, "each submission has a ticket of its own"
            self._requests[job.ticket] = (request, index)
        self._wake.set()
        return await request.future

    def _tell_full(self, queue: str) -> None:
        for observer in self._observers:
            observer.on_full(queue)

    # --- the loop ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End `run` once the mailbox is worked off."""
        self._is_closing = True
        self._wake.set()

    async def run(self) -> None:
        """Work batches until `close`. Raises StoreFailedError: the process must end then."""
        try:
            await self._run()
        finally:
            await self._forget_ahead()

    async def _run(self) -> None:
        self._alive_us = self.clock.now_us()
        self._pulse()
        try:
            while not self._is_idle() or not self._is_closing:
                due_us = await self._wait_for_work()
                limits = self._limits
                submissions = await self._next_submissions()
                events = self._control.take(limits.batch_control, limits.batch_bytes_max)
                events += self._reports.take(limits.batch_reports, limits.batch_bytes_max)
                events += submissions
                batch = self._turn(self._heard_events() + events, self._lag_us(due_us))
                if batch.seq:
                    await self._commit(batch, len(events))
                await self._release(batch)
        finally:
            if self._pulses is not None:
                self._pulses.cancel()

    # The loop may be kept waiting by the store, and answers and sends with it; what comes in is heard meanwhile. Or it
    # stands still as a whole (a stopped process, a machine that sleeps): then nobody was heard for so long.

    def _pulse(self) -> None:
        self._look_at_clock()
        self._pulses = asyncio.get_running_loop().call_later(PULSE_US / SECOND_US, self._pulse)

    def _look_at_clock(self) -> None:
        """Note that the loop lives, and for how long it did not."""
        now_us = self.clock.now_us()
        gap_us = now_us - self._alive_us
        if gap_us > PULSE_US + LAG_US:
            self._stood_us += gap_us
        self._alive_us = now_us

    def _lag_us(self, due_us: int | None) -> int:
        """For how long the loop stood still since the last turn, or how late this one is; 0 if that is no stall."""
        self._look_at_clock()
        stood_us, self._stood_us = self._stood_us, 0
        late_us = 0 if due_us is None else self._alive_us - due_us
        return max(stood_us, late_us if late_us > LAG_US else 0)

    def _turn(self, events: Sequence[tuple[GroupNo, Event]], lag_us: int) -> Batch:
        now_us = self.clock.now_us()
        if self._recorder is None:
            return self._batcher.run(now_us, events, lag_us)
        self._recorder.before(now_us, self.dispatchers)
        batch = self._batcher.run(now_us, events, lag_us)
        self._recorder.turn(now_us, lag_us, events, batch.effects)
        return batch

    def _is_idle(self) -> bool:
        return not (self._control or self._reports or self._submissions or self._taken)

    async def _wait_for_work(self) -> int | None:
        """Wait for an event or the next deadline; when that is."""
        self._wake.clear()
        due_us = self._batcher.next_deadline_us()
        if not self._is_idle() or self._is_closing:
            await asyncio.sleep(0)
        elif due_us is None:
            await self._wake.wait()
        else:
            delay_s = (due_us - self.clock.now_us()) / SECOND_US
            timer = asyncio.get_running_loop().call_later(max(0.0, delay_s), self._wake.set)
            try:
                await self._wake.wait()
            finally:
                timer.cancel()
        return due_us

    def _heard_events(self) -> list[tuple[GroupNo, Event]]:
        if not self._heard:
            return []
        heard, self._heard = self._heard, {}
        return [
            (group, AgentsHeard(tuple((agent, session, at_us) for session, (agent, at_us) in sessions.items())))
            for group, sessions in heard.items()
        ]

    async def _next_submissions(self) -> Submissions:
        """The submissions of this batch, with what the store knows of them."""
        ahead, self._ahead = self._ahead, None
        taken, self._taken = self._taken, []
        if ahead is not None:
            return await ahead
        return await self._known(taken or self._take_submissions())

    def _take_submissions(self) -> Submissions:
        limits, now_us = self._limits, self.clock.now_us()
        if self._submissions.is_mixed(self._tally.says_little):
            self._crowded_until_us = now_us + CROWDED_US
        share = SHARE if now_us < self._crowded_until_us else limits.batch_submissions
        return self._submissions.take(limits.batch_submissions, limits.batch_bytes_max, share)

    def _note_crowd(self, reports: Sequence[tuple[GroupNo, Event]]) -> None:
        """Agents of other groups than those that are submitted to have something to say too."""
        if reports and len(self._submissions) > SHARE and {group for group, _ in reports} - self._submissions.groups():
            self._crowded_until_us = self.clock.now_us() + CROWDED_US

    async def _known(self, submissions: Submissions) -> Submissions:
        """Resolve job ids and idempotency keys of the whole batch in one read of the store."""
        if submissions:
            lookups = [SubmissionLookup(group, job.job_id, job.idempotency_key) for group, job in submissions]
            known = await self._read(lambda: self._store.find_submissions(lookups))
            for index, found in enumerate(known):
                if found is not None:
                    group, job = submissions[index]
                    submissions[index] = (group, replace(job, known=KnownJob(found.job_key, found.digest)))
        return submissions

    def _look_ahead(self) -> None:
        """If a whole batch of submissions waits, look it up beside the commit: then it does not wait for that later.

        The task begins when its maker waits, so after the commit was asked for, and sees what that writes.
        """
        if not self._taken and len(self._submissions) >= self._limits.batch_submissions:
            self._taken = self._take_submissions()
            self._ahead = asyncio.create_task(self._known(self._taken), name="look-ahead")

    async def _forget_ahead(self) -> None:
        """What was looked up may have missed a commit: it is looked up again before it is worked."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)

    async def _commit(self, batch: Batch, events: int) -> None:
        """Make the pending batch durable, however often that must be tried."""
        loop = asyncio.get_running_loop()
        while self._batcher.pending is not None:
            began = loop.time()
            self._look_ahead()
            outcome = await self._store.commit(CommitRequest(batch.seq, batch.at_us, batch.epochs, batch.writes))
            if outcome.status is not CommitStatus.COMMITTED:
                await self._forget_ahead()
            if outcome.status is CommitStatus.UNKNOWN:
                newest = await self._read(lambda: self._store.committed_seq(self.broker_id))
                is_on_disk = newest == batch.seq
                outcome = replace(outcome, status=CommitStatus.COMMITTED if is_on_disk else CommitStatus.ROLLED_BACK)
            if outcome.status is CommitStatus.COMMITTED:
                self._batcher.committed()
                self.is_stalled = False
                seconds, rows = loop.time() - began, _rows_of(batch)
                for observer in self._observers:
                    observer.on_commit(seconds, events, rows)
            elif outcome.status is CommitStatus.STALE:
                log.error("group.lost", group_nos=outcome.stale_groups, why="another broker has a newer epoch")
                self._lose(outcome.stale_groups)
            else:
                self.is_stalled = True
                log.error("commit.rolled_back", why=outcome.why, retry_after_s=outcome.retry_after_s)
                await asyncio.sleep(outcome.retry_after_s)

    def _lose(self, groups: Collection[GroupNo]) -> None:
        """Another broker has these groups: whoever waits for them here is told, and their agents connect there."""
        self._batcher.stale(groups)
        if self._recorder is not None:
            self._recorder.lost(groups)
        error = NotOwnerError("another broker has taken over the group; ask again: the same ids make no job twice")
        lost = {ticket: request for ticket, (request, _) in self._requests.items() if request.group in groups}
        for ticket, request in lost.items():
            del self._requests[ticket]
            request.fail(error)
        for session in [session for session, (group, _) in self._outboxes.items() if group in groups]:
            self._end(session, "not_owner")

    async def _read(self, read: Callable[[], Awaitable[T]]) -> T:
        """What the store answers, however often it must be asked: a busy file ends nothing."""
        while True:
            try:
                found = await read()
            except StoreBusyError as error:
                self.is_stalled = True
                log.warning("read.refused", why=error.text, retry_after_s=READ_AGAIN_S)
                await asyncio.sleep(READ_AGAIN_S)
            else:
                if self.is_stalled and self._batcher.pending is None:
                    self.is_stalled = False
                return found

    async def _release(self, batch: Batch) -> None:
        """Replies, then frames, then notices: everything of this batch is durable now."""
        for writes in batch.writes.values():
            for key, body in writes.payloads.items():
                assert isinstance(body, Body)
                self.payloads.put(key, body)
        for reply in batch.replies():
            request, index = self._requests.pop(reply.ticket)
            request.settle(index, reply)
        sends = list(batch.sends())
        if sends:
            await self._send(sends)
        notices = list(batch.notices())
        for notice in notices:
            if type(notice) is Transition and notice.to_state in FINAL_STATES:
                self.payloads.drop(notice.job_key)
        for observer in self._observers:
            observer.on_batch(notices, self._batcher.seq)

    async def _send(self, sends: list[Send]) -> None:
        bodies, checkpoints = await self._bodies_for(sends)
        outboxes = self._outboxes
        for send in sends:
            found = outboxes.get(send.session)
            if found is None:
                continue
            try:
                if type(send) is AssignJob:
                    found[1].assign(send, bodies[send.job_key], checkpoints.get(send.job_key, b""))
                else:
                    found[1].deliver(send)
            except Exception:  # one session's mistake must not end the others
                log.exception("outbox.failed", session=send.session, order=type(send).__name__)
                self._end(send.session, "failed")

    def _end(self, session: SessionId, reason: str) -> None:
        """Have the stream ended, as if the dispatcher had ordered it: its end is reported like every other."""
        _, outbox = self._outboxes.pop(session)
        try:
            outbox.deliver(EndSession(session, reason))
        except Exception:  # then the agent falls silent, which is noticed too
            log.exception("outbox.failed", session=session, order=EndSession.__name__)

    async def _bodies_for(self, sends: list[Send]) -> tuple[dict[JobKey, Body], dict[JobKey, bytes]]:
        """Payloads of what is assigned, from memory or from the store; checkpoints of what is tried again."""
        bodies: dict[JobKey, Body] = {}
        missing: list[JobKey] = []
        again: list[JobKey] = []
        for send in sends:
            if type(send) is not AssignJob:
                continue
            body = self.payloads.get(send.job_key)
            if body is None:
                missing.append(send.job_key)
            else:
                bodies[send.job_key] = body
            if send.attempt > 1:
                again.append(send.job_key)
        if missing:
            found = await self._read(lambda: self._store.payloads(missing))
            bodies.update((key, found[key] if key in found else self._no_body(key)) for key in missing)
        return bodies, await self._read(lambda: self._store.checkpoints(again)) if again else {}

    def _no_body(self, key: JobKey) -> Body:
        """For a job without a row of its own bytes. Raises StoreFailedError if it was accepted with a payload."""
        job = self.dispatcher(group_of(key)).ledger.jobs.get(key)
        if job is not None and job.payload_bytes:
            text = f"the payload of job {key} ({job.payload_bytes} bytes) is not in the store: restore the file"
            raise StoreFailedError(text, job_key=str(key))
        return NO_BODY

    def fail(self, error: BaseException) -> None:
        """`run` has ended by an error: nobody who waits, and nobody who still comes, may wait for ever."""
        reason = error if isinstance(error, StoreError) else StoreFailedError("the engine has stopped; see its log")
        for mailbox in (self._control, self._reports, self._submissions):
            mailbox.fail(reason)
        waiting = [request for request, _ in self._requests.values()]
        self._requests.clear()
        for request in waiting:
            request.fail(reason)


def _rows_of(batch: Batch) -> int:
    """How many rows the batch writes, payloads and results aside."""
    return sum(
        len(rows)
        for writes in batch.writes.values()
        for rows in (
            *(writes.inserts, writes.updates, writes.attempts, writes.transitions, writes.label_sets, writes.policies),
            *(writes.keys, writes.agents, writes.checkpoints),
        )
    )
