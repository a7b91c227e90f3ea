"""The driver of the dispatchers: mailbox -> step -> one commit -> replies, frames, notices -> re-arm.

One engine a broker process. Its mailbox is three bounded queues (control, reports, submissions), so that a flood of
one kind never starves another; a batch takes at most a slice of each. What arrives while a commit runs shares the next
one, so batches grow with load and a lone event waits for nothing. Nothing is answered or sent before its commit.

If the store fails in a way that leaves the disk unknown, `run` raises and the process must end: crash-only.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final, Protocol, TypeVar

import structlog

from broker.clock import SECOND_US, ClockBehindError, EngineClock
from broker.dispatch.batch import Batch, Batcher
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.messages import (
    AgentsHeard,
    AssignJob,
    Event,
    JobSubmitted,
    KnownJob,
    Notice,
    Reply,
    Send,
    Transition,
)
from broker.dispatch.model import FINAL_STATES, NO_JOB, AgentNo, DispatchPolicy, GroupNo, JobKey, SessionId
from broker.dispatch.recovery import recover, recover_jobs, seal
from broker.errors import ConfigError, FullError, NotOwnerError, StoreError, StoreFailedError
from broker.settings import LimitSettings
from broker.store.base import Body, CommitRequest, CommitStatus, Store, SubmissionLookup
from broker.store.payloads import PayloadCache

LAG_US: Final = 500_000
"""A turn later than this is a stall of ours: liveness deadlines move by it."""
RECOVERY_PAGE: Final = 5_000
NO_BODY: Final = Body(b"")

E = TypeVar("E")

log = structlog.get_logger()


class Outbox(Protocol):
    """The writing side of one session. Both calls return at once and never raise."""

    def deliver(self, send: Send) -> None:
        """Queue an order that carries no payload."""

    def assign(self, order: AssignJob, payload: Body, checkpoint: bytes) -> None:
        """Queue an assignment with its payload."""


class Observer(Protocol):
    """Hears what was committed; must be quick and must not raise."""

    def on_batch(self, notices: Sequence[Notice], commit_seq: int) -> None:
        """Notices of one batch, after its commit."""

    def on_commit(self, seconds: float, events: int) -> None:
        """One commit took this long for a batch of so many events."""

    def on_full(self, queue: str) -> None:
        """A queue of the mailbox was full."""


class _Request:
    """Somebody who waits for the replies to several events."""

    __slots__ = ("future", "missing", "replies")

    def __init__(self, size: int, future: "asyncio.Future[list[Reply]]") -> None:
        self.replies: list[Reply | None] = [None] * size
        self.missing = size
        self.future = future

    def settle(self, index: int, reply: Reply) -> None:
        self.replies[index] = reply
        self.missing -= 1
        if not self.missing and not self.future.done():
            self.future.set_result([one for one in self.replies if one is not None])


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
        self._batcher = Batcher(0)
        self._control: deque[tuple[GroupNo, Event]] = deque()
        self._reports: deque[tuple[GroupNo, Event]] = deque()
        self._submissions: deque[tuple[GroupNo, JobSubmitted]] = deque()
        self._heard: dict[GroupNo, dict[AgentNo, tuple[SessionId, int]]] = {}
        self._outboxes: dict[SessionId, Outbox] = {}
        self._requests: dict[int, tuple[_Request, int]] = {}
        self._ticket = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._is_closing = False
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
        for group in await self._store.groups():
            await self._recover_group(group.group_no, owned.epochs[group.group_no])

    async def _recover_group(self, group: GroupNo, epoch: int) -> None:
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
        after, live = NO_JOB, 0
        while page := await self._store.live_jobs(group, after, RECOVERY_PAGE):
            recover_jobs(dispatcher, page)
            after = page[-1].job_key
            live += len(page)
        seal(dispatcher)
        self._batcher.add(group, dispatcher)
        log.info("group.recovered", group_no=group, epoch=epoch, live_jobs=live, agents=len(state.agents))

    async def add_group(self, group: GroupNo) -> None:
        """Drive a group that was just created."""
        await self._recover_group(group, await self._store.adopt_group(group))

    def dispatcher(self, group: GroupNo) -> Dispatcher:
        """The dispatcher of a group, to read. Raises NotOwnerError."""
        found = self._batcher.get(group)
        if found is None:
            raise NotOwnerError(f"this broker does not own group number {group}; ask again in a moment")
        return found

    @property
    def commit_seq(self) -> int:
        """The number of the newest commit."""
        return self._batcher.seq

    def observe(self, observer: Observer) -> None:
        """Have an observer hear every batch from now on."""
        self._observers.append(observer)

    # --- what comes in ----------------------------------------------------------------------------------------------

    def attach(self, session: SessionId, outbox: Outbox) -> None:
        """Deliver what is ordered for this session to `outbox`."""
        self._outboxes[session] = outbox

    def detach(self, session: SessionId) -> None:
        """The session is over: what is ordered for it goes nowhere."""
        self._outboxes.pop(session, None)

    def heard(self, group: GroupNo, agent: AgentNo, session: SessionId) -> None:
        """A frame of this session arrived now. Costs no batch: told with the next one."""
        self._heard.setdefault(group, {})[agent] = (session, self.clock.now_us())

    async def report(self, group: GroupNo, events: Iterable[Event]) -> None:
        """Post what an agent reports. Waits while the queue is full: only that agent's reader stands still."""
        while len(self._reports) >= self._limits.mailbox_reports:
            await self._wait_for_room("reports")
        self._reports.extend((group, event) for event in events)
        self._wake.set()

    async def control(self, group: GroupNo, event: Event) -> None:
        """Post a control event (hello, closed). Waits while the queue is full."""
        while len(self._control) >= self._limits.mailbox_control:
            await self._wait_for_room("control")
        self._control.append((group, event))
        self._wake.set()

    def post(self, group: GroupNo, event: Event) -> None:
        """Post a control event that must not wait (the end of a session): there is one for each session."""
        self._control.append((group, event))
        self._wake.set()

    async def ask(self, group: GroupNo, make: Callable[[int], Event]) -> Reply:
        """Post a control event that is answered; `make` gets its ticket. Returns after the commit."""
        self.dispatcher(group)
        request = _Request(1, asyncio.get_running_loop().create_future())
        await self.control(group, make(self._tickets_for(request, 1)))
        return (await request.future)[0]

    async def submit(self, group: GroupNo, jobs: Sequence[JobSubmitted]) -> list[Reply]:
        """Submit jobs; one reply each, in order, after the commit. Tickets are set here.

        Raises FullError if the mailbox has no room for all of them, NotOwnerError; nothing was accepted then.
        """
        self.dispatcher(group)
        if len(self._submissions) + len(jobs) > self._limits.mailbox_submissions:
            for observer in self._observers:
                observer.on_full("submissions")
            raise FullError("the broker has more submissions waiting than it may; try again", reason="MAILBOX_FULL")
        request = _Request(len(jobs), asyncio.get_running_loop().create_future())
        ticket = self._tickets_for(request, len(jobs))
        for job in jobs:
            object.__setattr__(job, "ticket", ticket)  # fresh from `convert`: the engine numbers tickets
            ticket += 1
            self._submissions.append((group, job))
        self._wake.set()
        return await request.future

    def _tickets_for(self, request: _Request, count: int) -> int:
        first = self._ticket + 1
        self._ticket += count
        for index in range(count):
            self._requests[first + index] = (request, index)
        return first

    async def _wait_for_room(self, queue: str) -> None:
        for observer in self._observers:
            observer.on_full(queue)
        self._room.clear()
        await self._room.wait()

    # --- the loop ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End `run` once the mailbox is worked off."""
        self._is_closing = True
        self._wake.set()

    async def run(self) -> None:
        """Work batches until `close`. Raises StoreFailedError: the process must end then."""
        while not self._is_idle() or not self._is_closing:
            lag_us = await self._wait_for_work()
            submissions = self._take(self._submissions, self._limits.batch_submissions)
            await self._find_known(submissions)
            events = self._take(self._control, self._limits.batch_control)
            events += self._take(self._reports, self._limits.batch_reports)
            events += submissions
            self._room.set()
            batch = self._batcher.run(self.clock.now_us(), self._heard_events() + events, lag_us)
            if batch.seq:
                await self._commit(batch, len(events))
            await self._release(batch)

    def _is_idle(self) -> bool:
        return not (self._control or self._reports or self._submissions)

    async def _wait_for_work(self) -> int:
        """Wait for an event or the next deadline; how late the turn is, in microseconds, if that is a stall."""
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
        if due_us is None:
            return 0
        lag_us = self.clock.now_us() - due_us
        return lag_us if lag_us > LAG_US else 0

    @staticmethod
    def _take(queue: "deque[E]", most: int) -> "list[E]":
        return [queue.popleft() for _ in range(min(most, len(queue)))]

    def _heard_events(self) -> list[tuple[GroupNo, Event]]:
        if not self._heard:
            return []
        heard, self._heard = self._heard, {}
        return [
            (group, AgentsHeard(tuple((agent, session, at_us) for agent, (session, at_us) in agents.items())))
            for group, agents in heard.items()
        ]

    async def _find_known(self, submissions: list[tuple[GroupNo, JobSubmitted]]) -> None:
        """Resolve job ids and idempotency keys of the whole batch in one read of the store."""
        if not submissions:
            return
        lookups = [SubmissionLookup(group, job.job_id, job.idempotency_key) for group, job in submissions]
        known = await self._store.find_submissions(lookups)
        for index, found in enumerate(known):
            if found is not None:
                group, job = submissions[index]
                submissions[index] = (group, replace(job, known=KnownJob(found.job_key, found.digest)))

    async def _commit(self, batch: Batch, events: int) -> None:
        """Make the pending batch durable, however often that must be tried."""
        loop = asyncio.get_running_loop()
        while self._batcher.pending is not None:
            began = loop.time()
            outcome = await self._store.commit(CommitRequest(batch.seq, batch.at_us, batch.epochs, batch.writes))
            if outcome.status is CommitStatus.UNKNOWN:
                is_on_disk = await self._store.committed_seq(self.broker_id) == batch.seq
                outcome = replace(outcome, status=CommitStatus.COMMITTED if is_on_disk else CommitStatus.ROLLED_BACK)
            if outcome.status is CommitStatus.COMMITTED:
                self._batcher.committed()
                self.is_stalled = False
                for observer in self._observers:
                    observer.on_commit(loop.time() - began, events)
            elif outcome.status is CommitStatus.STALE:
                log.error("group.lost", group_nos=outcome.stale_groups, why="another broker has a newer epoch")
                self._batcher.stale(outcome.stale_groups)
            else:
                self.is_stalled = True
                log.error("commit.rolled_back", why=outcome.why, retry_after_s=outcome.retry_after_s)
                await asyncio.sleep(outcome.retry_after_s)

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
            outbox = outboxes.get(send.session)
            if outbox is None:
                continue
            if type(send) is AssignJob:
                outbox.assign(send, bodies[send.job_key], checkpoints.get(send.job_key, b""))
            else:
                outbox.deliver(send)

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
            found = await self._store.payloads(missing)
            bodies.update((key, found.get(key, NO_BODY)) for key in missing)
        return bodies, await self._store.checkpoints(again) if again else {}

    def fail(self, error: BaseException) -> None:
        """`run` has ended by an error: nobody who waits may wait for ever."""
        waiting = {id(request): request for request, _ in self._requests.values()}
        self._requests.clear()
        reason = error if isinstance(error, StoreError) else StoreFailedError("the engine has stopped; see its log")
        for request in waiting.values():
            if not request.future.done():
                request.future.set_exception(reason)
