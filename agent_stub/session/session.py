"""What an agent holds, runs and owes its broker, over one stream after another.

Rules (the tables of the state machine, "Agent"):

1. Frames of a session whose epoch is below the highest seen are dropped.
2. One attempt of a job runs at a time: a higher number first ends the lower.
3. A Cancel of an unknown attempt is remembered for the session and answered `cancelled`, also when the Assign comes.
4. The lease ends at the agent's own send time of the newest acknowledged heartbeat (or Hello) + lease - margin. Before
   anything is read the lease is looked at: at its end exclusive attempts are stopped and reported `fenced`, and none
   is started; repeatable ones run on.
5. An outcome is kept until it is acknowledged, accepted or refused alike, across any number of streams. With
   `keeps_first`, that of an exclusive attempt, or of one whose loss nobody makes up for (`is_kept_first`), is not sent
   before the driver has written it where it outlives the process.
6. What is unacknowledged counts as held.
7. Goodbye is said only when nothing is held.
8. A Hello is a snapshot: what was sent on an earlier stream and not acknowledged is said again. An outcome that does
   not fit, or is not kept yet, is announced (`Hello.finished`) and follows after Welcome.
9. What is held belongs to the mesh that gave it: another one is not joined before nothing is held.

A verdict STOP takes the attempt out of what is held at once; its run is ended, keeps its slot until it has ended, and
how it ended is said once on the same stream, in case the broker waits for it.

Duties of the driver: call with the time now (microseconds of a clock that does not stand still while the machine
sleeps and never steps back); after each call carry out `take_orders()` in order and send `take_frame()` until it gives
None, one frame at a time; call `timer` at `next_deadline_us()`. Each StartRun is answered with `finished` once. When a
stream ends, call `disconnected` before `hello` on the next one, and hand in nothing that the old one still carries.
"""

from collections import deque
from collections.abc import Container, Iterable
from enum import Enum
from typing import Final

from agent_stub.session.attempts import Attempts
from agent_stub.session.messages import (
    Assign,
    Cancel,
    Capacity,
    Frame,
    Heartbeat,
    Hello,
    Key,
    LeaveStream,
    Order,
    Outcome,
    OutcomeStatus,
    Progress,
    Rejected,
    RejectedReason,
    Verdict,
    Welcome,
)
from agent_stub.session.outbox import Outbox

CAPACITY_MAX = 4_096
FRAME_ITEMS_MAX = 512
FRAME_BYTES_MAX = 1 << 20
HELLO_BYTES_MAX = 1 << 16
"""A broker waits 5 s for a Hello: it has to be there also on a slow way, whatever the outcomes are that wait."""
LARGE_BYTES = 1 << 18
"""An outcome that goes by itself, and takes seconds on a slow way: nothing else is heard meanwhile."""
AHEAD_US = 500_000
WELCOME_TIMEOUT_US = 15_000_000
REMEMBERED_MAX = 65_536
"""Refusals that are not sent yet, and cancels of unknown attempts: with more the stream is left."""


class Phase(Enum):
    """Where the session stands."""

    OFFLINE = "offline"
    GREETING = "greeting"
    LIVE = "live"
    BROKEN = "broken"
    """The driver was told to leave the stream."""
    LEFT = "left"
    """Goodbye is on its way: nothing follows."""


# Of a member that is asked for several times a job: through its class each look-up costs 0.1 us up to Python 3.11.
_LIVE: Final = Phase.LIVE
_WAITED_FOR: Final = (OutcomeStatus.SUCCEEDED, OutcomeStatus.FAILED)
"""Outcomes for whose sake a broker does not give the job to another agent; after any other it has to."""


class AgentSession:
    """The agent's side of the stream.

    Args:
        slots: attempts that run at the same time.
        prefetch: attempts that wait here, per slot, unless the group says it; capacity is `slots * (1 + prefetch)`.
        operations: what the agent can run; None: everything.
        keeps_first: order KeepOutcome for the attempts of rule 5.
        hello_bytes_max: about the most bytes of outcomes in a Hello; those that do not fit follow after Welcome.
    """

    __slots__ = (
        "_attempts",
        "_beat_sent_us",
        "_beat_seq",
        "_beats",
        "_cancelled",
        "_capacity_seq",
        "_connect_seq",
        "_contact_us",
        "_drain_reason",
        "_epoch_seen",
        "_failed_connects",
        "_forgotten",
        "_frame_bytes_max",
        "_given_us",
        "_goodbye_reason",
        "_held",
        "_hello_bytes_max",
        "_hello_sent_us",
        "_is_capacity_due",
        "_is_capacity_owed",
        "_is_drain_request_due",
        "_is_drained_by_broker",
        "_is_resync_due",
        "_listed",
        "_operations",
        "_outbox",
        "_phase",
        "_prefetch",
        "_room",
        "_status_sent",
        "_taken_max",
        "_welcome",
        "_welcome_timeout_us",
        "capacity",
        "capacity_max",
        "frames_dropped",
        "mesh_id",
        "slots",
    )

    def __init__(
        self,
        slots: int,
        prefetch: int = 0,
        *,
        operations: Container[str] | None = None,
        keeps_first: bool = False,
        hello_bytes_max: int = HELLO_BYTES_MAX,
        frame_items_max: int = FRAME_ITEMS_MAX,
        frame_bytes_max: int = FRAME_BYTES_MAX,
        welcome_timeout_us: int = WELCOME_TIMEOUT_US,
    ) -> None:
        if slots < 1 or prefetch < 0 or slots * (1 + prefetch) > CAPACITY_MAX:
            raise ValueError(f"slots >= 1, prefetch >= 0 and slots * (1 + prefetch) <= {CAPACITY_MAX} are needed")
        self.slots = slots
        self.capacity = self.capacity_max = slots * (1 + prefetch)
        self._prefetch = prefetch
        self._room = CAPACITY_MAX  # what `limit` said
        self._taken_max = self.capacity  # what the broker may have given before it knew of less
        self.frames_dropped = 0
        self._operations = operations
        self._hello_bytes_max = hello_bytes_max
        self._frame_bytes_max = frame_bytes_max
        self._welcome_timeout_us = welcome_timeout_us

        self._outbox = Outbox(frame_items_max, frame_bytes_max)
        self._attempts = Attempts(slots, self._outbox, keeps_first=keeps_first)
        self._held = self._attempts.held
        self._forgotten = self._attempts.forgotten

        self._phase = Phase.OFFLINE
        self._connect_seq = 0
        self._failed_connects = 0
        self._epoch_seen = 0
        self._hello_sent_us = 0
        self._listed: list[Key] | None = None  # Hello.held while a Welcome is awaited
        self._cancelled: set[Key] = set()  # rule 3
        self.mesh_id = ""
        """Which mesh it last was in; an earlier process may have told."""
        self._welcome = Welcome(0, 0, 0, 0, 0, 0)
        self._given_us = 0  # when the last assignment, or Welcome, was read
        self._contact_us = 0  # send time of the newest acknowledged heartbeat or Hello
        self._beats: deque[tuple[int, int]] = deque()  # (seq, sent_us), unacknowledged
        self._beat_seq = 0
        self._beat_sent_us = 0
        self._capacity_seq = 0
        self._is_capacity_owed = False
        self._is_capacity_due = False
        self._is_resync_due = False
        self._drain_reason: str | None = None  # its own drain (SIGTERM)
        self._is_drain_request_due = False
        self._is_drained_by_broker = False
        self._goodbye_reason: str | None = None
        self._status_sent: list[Key] | None = None

    # Questions -------------------------------------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """Where the session stands."""
        return self._phase

    @property
    def is_live(self) -> bool:
        """Whether the broker has welcomed this stream."""
        return self._phase is _LIVE

    @property
    def held(self) -> int:
        """Attempts that the agent answers for, unacknowledged outcomes included."""
        return len(self._held)

    @property
    def running(self) -> int:
        """Slots in use."""
        return self._attempts.running

    def holds(self, key: Key) -> bool:
        """Whether the agent answers for this attempt."""
        return key in self._held

    @property
    def unacknowledged(self) -> list[Outcome]:
        """Outcomes that no broker has acknowledged, the oldest attempt first."""
        return [attempt.outcome for attempt in self._held.values() if attempt.outcome is not None]

    @property
    def has_only_outcomes(self) -> bool:
        """Nothing waits or runs: all that is held has its outcome."""
        return not self._forgotten and all(attempt.outcome is not None for attempt in self._held.values())

    @property
    def is_idle(self) -> bool:
        """Nothing is held and nothing runs any more."""
        return not self._held and not self._forgotten

    @property
    def is_leaving(self) -> bool:
        """The agent is on its way out: it asked for its drain, or a drain to stop is complete."""
        return self._drain_reason is not None or self._goodbye_reason is not None

    @property
    def epoch(self) -> int:
        """The highest epoch seen."""
        return self._epoch_seen

    @property
    def lease_end_us(self) -> int:
        """When exclusive attempts must have ended unless a newer heartbeat is acknowledged."""
        return self._contact_us + self._welcome.lease_us - self._welcome.lease_margin_us

    def next_deadline_us(self) -> int | None:
        """When `timer` or `take_frame` has something to do; None: not before something else happens."""
        run_us = self._attempts.next_deadline_us
        due = [] if run_us is None else [run_us]
        if self._attempts.exclusive:
            due.append(self.lease_end_us)
        if self._listed is not None:
            due.append(self._hello_sent_us + self._welcome_timeout_us)
        if self._phase is _LIVE:
            due += (self._beat_due_us(), self._silent_at_us())
            if self._outbox.progress_due_us is not None:
                due.append(self._outbox.progress_due_us)
        return min(due, default=None)

    # The stream ------------------------------------------------------------------------------------------------------

    def hello(self, now_us: int) -> Hello:
        """A new stream is open: what to say first on it. The old one is not read any more."""
        self._enter(Phase.GREETING)
        self._outbox.clear()
        self._cancelled.clear()
        self._beats.clear()
        return self._snapshot(now_us)

    def welcomed(self, now_us: int, welcome: Welcome) -> None:
        """The broker's answer to Hello: verdicts are worked, and what did not fit into Hello is due."""
        listed = self._listed
        if self._phase not in (Phase.GREETING, _LIVE) or listed is None:
            self.frames_dropped += 1
            return
        self._check_lease(now_us)
        is_another = bool(welcome.mesh_id and self.mesh_id and welcome.mesh_id != self.mesh_id)
        fault = _fault_of(welcome, 0 if is_another else self._epoch_seen, len(listed))
        if is_another and not self.is_idle:
            fault = f"this is mesh {welcome.mesh_id}, and the agent holds work of mesh {self.mesh_id}"
        if fault is not None:
            self._leave(fault)
            return
        self._begin(now_us, welcome)
        for key, verdict in zip(listed, welcome.verdicts, strict=True):
            if verdict == Verdict.STOP and key in self._held:
                self._attempts.forget_by_verdict(self._held[key])
        for attempt in self._held.values():
            if attempt.is_sayable and not attempt.is_sent:
                self._attempts.send_outcome(attempt)

    def resynced(self) -> None:
        """The broker has lost track: say Hello again on this stream."""
        if self._is_read():
            self._is_resync_due = True

    def disconnected(self, now_us: int) -> None:
        """The stream has ended, or was refused. Work goes on; what was not acknowledged is kept."""
        if self._phase is Phase.GREETING:
            self._failed_connects += 1
        self._enter(Phase.OFFLINE)
        self._listed = None
        self._is_resync_due = False
        self._is_drained_by_broker = False
        self._status_sent = None
        self._check_lease(now_us)

    # From the broker -------------------------------------------------------------------------------------------------

    def assigned(self, now_us: int, assign: Assign) -> None:
        """Take an attempt (run it, or let it wait for a slot), or refuse it."""
        if not self._is_read():
            return
        self._given_us = now_us
        if self._listed is not None:
            # It crossed our Hello, which does not name it: the broker takes it back and may give it to another agent.
            self.frames_dropped += 1
            return
        self._check_lease(now_us)
        key = (assign.job_key, assign.attempt)
        known = self._held.get(key)
        if known is not None:
            self._attempts.answer_again(known)
            return
        if key in self._cancelled or key in self._forgotten:
            self._attempts.add_ended(key)
            return
        refusal = self._refusal(now_us, assign)
        if refusal is None:
            self._attempts.take(now_us, assign)
        else:
            self._reject(key, *refusal)

    def cancelled(self, now_us: int, cancel: Cancel) -> None:
        """End an attempt: at once if it waits, by the driver if it runs; one that is unknown is remembered."""
        if not self._is_read():
            return
        self._check_lease(now_us)
        key = (cancel.job_key, cancel.attempt)
        attempt = self._held.get(key)
        if attempt is not None:
            if attempt.outcome is None:
                self._attempts.stop(attempt, cancel.reason, cancel.grace_us)
        elif key not in self._forgotten:
            if len(self._cancelled) >= REMEMBERED_MAX:
                self._leave("too many cancels of unknown attempts")
                return
            self._cancelled.add(key)
            self._attempts.add_ended(key)

    def acknowledged(self, keys: Iterable[Key]) -> None:
        """The broker has these outcomes, accepted or refused: they are no longer held."""
        if not self._is_read():
            return
        self._attempts.acknowledge(keys)
        self._restate_capacity()

    def heartbeat_acked(self, now_us: int, seq: int, epoch: int) -> None:
        """The broker has heard heartbeat `seq`: the lease runs from its send time."""
        if not self._is_read():
            return
        self._check_lease(now_us)
        if epoch < self._epoch_seen or seq > self._beat_seq:
            self.frames_dropped += 1
            return
        self._epoch_seen = epoch
        while self._beats and self._beats[0][0] <= seq:
            self._contact_us = max(self._contact_us, self._beats.popleft()[1])
        if now_us < self.lease_end_us:
            self._restate_capacity()

    def prefetch_set(self, prefetch: float) -> None:
        """So many attempts wait here, per slot, from now on; below 0: as many as the agent says itself."""
        if self._is_read():
            self._prefetch_by_group(prefetch)

    def drain_started(self) -> None:
        """An operator drains the agent: its progress is reported; the broker gives it nothing new."""
        if self._is_read():
            self._is_drained_by_broker = True

    def drain_cancelled(self) -> None:
        """The operator took the drain back."""
        if self._is_read():
            self._is_drained_by_broker = False
            self._status_sent = None

    def drain_done(self, is_stop: bool) -> None:
        """The operator's drain is complete; after one to stop the agent leaves, after one to pause it stays."""
        if self._is_read():
            self._is_drained_by_broker = False
            if is_stop:
                self._goodbye_reason = "drained"

    # From the agent itself -------------------------------------------------------------------------------------------

    def finished(self, now_us: int, outcome: Outcome) -> None:
        """A run that was started has ended: its slot is free."""
        self._check_lease(now_us)
        self._attempts.finish(now_us, outcome)

    def kept(self, key: Key) -> None:
        """The outcome that KeepOutcome named outlives the process now: it may be sent."""
        self._attempts.kept(key)

    def restore(self, outcomes: Iterable[Outcome], mesh_id: str = "") -> None:
        """What an earlier process of this agent kept and no broker has acknowledged; before the first `hello`."""
        self.mesh_id = mesh_id
        self._attempts.restore(outcomes)

    def limit(self, attempts: int) -> None:
        """Hold no more than so many, nor than `capacity_max`; what is held already stays."""
        self._room = max(attempts, 0)
        self._limit_capacity()

    def progressed(self, progress: Progress) -> None:
        """A run says how far it is; sent at most once a second, the latest of each attempt."""
        attempt = self._held.get((progress.job_key, progress.attempt))
        if attempt is not None and attempt.is_running:
            self._outbox.add_progress(progress)

    def drain(self, reason: str) -> None:
        """Leave in good order: nothing new, finish what is held, then Goodbye."""
        if self._drain_reason is None:
            self._drain_reason = reason
            self._is_drain_request_due = self._phase is _LIVE

    def timer(self, now_us: int) -> None:
        """Work what is due: the lease, deadlines of runs, a Welcome that does not come, a broker that is silent."""
        self._check_lease(now_us)
        self._attempts.stop_overdue(now_us)
        if self._phase is _LIVE and now_us >= self._silent_at_us():
            self._leave("nothing was heard for a lease")
        elif self._listed is not None and now_us >= self._hello_sent_us + self._welcome_timeout_us:
            self._leave("no answer to Hello")

    # To the driver ---------------------------------------------------------------------------------------------------

    def take_orders(self) -> list[Order]:
        """What the driver must do, in this order."""
        orders = self._attempts.orders
        if orders:
            self._attempts.orders = []
        return orders

    def take_frame(self, now_us: int) -> Frame | None:
        """The next frame to send, with all that waits and fits; None if nothing is due."""
        if self._phase is not _LIVE:
            return None
        if self._is_resync_due and self._listed is None:  # one Hello at a time: a Welcome does not say which it answers
            self._is_resync_due = False
            self._outbox.clear()
            return Frame(hello=self._snapshot(now_us))
        if not (self._outbox or self._is_control_due(now_us)):
            return None
        frame = Frame()
        is_due = self._add_control(frame, now_us)
        if self._outbox and not (frame.heartbeat is not None and self._outbox.is_large(LARGE_BYTES)):
            self._outbox.pack(frame, now_us)
            is_due = is_due or bool(frame.outcomes or frame.accepted or frame.started or frame.rejected)
            is_due = is_due or bool(frame.progress)
        if self.is_leaving and self.is_idle and not self._outbox:
            frame.goodbye = self._goodbye_reason or self._drain_reason
            self._enter(Phase.LEFT)
            return frame
        return frame if is_due else None

    # Inside ----------------------------------------------------------------------------------------------------------

    def _is_read(self) -> bool:
        """Whether what the stream carries counts; before Welcome and after a broken session it does not."""
        if self._phase is _LIVE:
            return True
        self.frames_dropped += 1
        return False

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._attempts.is_heard = phase is _LIVE

    def _leave(self, reason: str) -> None:
        if self._phase is Phase.GREETING:
            self._failed_connects += 1
        self._enter(Phase.BROKEN)
        self._listed = None
        self._attempts.orders.append(LeaveStream(reason))

    def _begin(self, now_us: int, welcome: Welcome) -> None:
        self._listed = None
        self._enter(_LIVE)
        self._failed_connects = 0
        self._epoch_seen = welcome.epoch
        self.mesh_id = welcome.mesh_id or self.mesh_id
        self._prefetch_by_group(welcome.prefetch)
        self._welcome = welcome
        self._outbox.bytes_max = min(self._frame_bytes_max, welcome.frame_bytes_max or self._frame_bytes_max)
        # It may have waited for its turn among thousands: the lease is short then, the stream is not silent.
        self._given_us = now_us
        # A Hello that was answered is contact like a heartbeat that was.
        self._contact_us = max(self._contact_us, self._hello_sent_us)
        self._is_drain_request_due = self._drain_reason is not None

    def _prefetch_by_group(self, prefetch: float) -> None:
        ahead = self.slots * (self._prefetch if prefetch < 0 else prefetch)
        self.capacity_max = self.slots + int(min(ahead, CAPACITY_MAX - self.slots))
        self._limit_capacity()

    def _limit_capacity(self) -> None:
        capacity = min(self._room, self.capacity_max)
        if capacity != self.capacity:
            self.capacity = capacity
            self._is_capacity_owed = False
            self._is_capacity_due = self._phase is _LIVE
        # Less by the group holds where it is said: what was on its way then is taken. For want of room it is not.
        self._taken_max = min(self._room, max(self._taken_max, capacity))

    def _snapshot(self, now_us: int) -> Hello:
        self._connect_seq += 1
        self._hello_sent_us = self._beat_sent_us = now_us
        self._is_capacity_owed = self._is_capacity_due = False  # Hello states it
        self._taken_max = self.capacity
        held: list[Key] = []
        finished: list[Key] = []
        outcomes: list[Outcome] = []
        room = self._hello_bytes_max
        for key, attempt in self._held.items():
            outcome = attempt.outcome
            attempt.is_sent = outcome is not None and attempt.is_kept and outcome.wire_bytes <= room
            if outcome is None or not attempt.is_sent:
                held.append(key)
                if outcome is not None and outcome.status in _WAITED_FOR:
                    finished.append(key)
            else:
                room -= outcome.wire_bytes
                outcomes.append(outcome)
                self._outbox.forget(key)
        self._listed = held
        capacity = self._state_capacity()
        failed, mesh_id = self._failed_connects, self.mesh_id
        return Hello(self._connect_seq, self.slots, capacity, held, outcomes, failed, mesh_id, finished)

    def _state_capacity(self) -> Capacity:
        self._capacity_seq += 1
        return Capacity(self._capacity_seq, self.capacity)

    def _refusal(self, now_us: int, assign: Assign) -> tuple[RejectedReason, str] | None:
        if self._operations is not None and assign.operation not in self._operations:
            return RejectedReason.UNFIT, "this agent has no such operation"
        if self.is_leaving:
            return RejectedReason.LEAVING, "the agent is leaving"
        if assign.exclusive and now_us >= self.lease_end_us:
            return RejectedReason.LEAVING, "the agent's lease is over"
        if len(self._held) >= self._taken_max:
            return RejectedReason.BUSY, f"holds {len(self._held)} of {self._taken_max}"
        return None

    def _restate_capacity(self) -> None:
        # After a refusal for want of room or lease the broker gives nothing before it hears of room again.
        if self._is_capacity_owed and len(self._held) < self.capacity:
            self._is_capacity_owed = False
            self._is_capacity_due = True

    def _reject(self, key: Key, reason: RejectedReason, text: str) -> None:
        if len(self._outbox.rejects) >= REMEMBERED_MAX:
            self._leave("too many refusals that the broker does not read")
            return
        if reason is not RejectedReason.UNFIT and not self.is_leaving:
            self._is_capacity_owed = True
        self._outbox.rejects[key] = Rejected(*key, reason, text)

    def _check_lease(self, now_us: int) -> None:
        """Rule 4."""
        if self._attempts.exclusive and now_us >= self.lease_end_us:
            self._attempts.fence()

    def _beat_due_us(self) -> int:
        every_us = self._welcome.heartbeat_us
        if self._outbox.is_large(LARGE_BYTES):
            every_us = min(every_us, AHEAD_US)
        elif not self._held:
            every_us = max(every_us, self._welcome.idle_heartbeat_us)
        return self._beat_sent_us + every_us

    def _silent_at_us(self) -> int:
        """When the stream is of no use. On a slow way acknowledgements wait behind payloads, but those arrive."""
        return max(self._contact_us, self._given_us) + self._welcome.lease_us

    def _is_control_due(self, now_us: int) -> bool:
        """Whether something of the session itself may have to be said: looked at far more often than it has."""
        return (
            now_us >= self._beat_due_us()
            or self._is_capacity_due
            or self._is_drain_request_due
            or self._is_drained_by_broker
            or self.is_leaving
        )

    def _add_control(self, frame: Frame, now_us: int) -> bool:
        """Put in what is of the session itself; whether anything is."""
        is_due = False
        if now_us >= self._beat_due_us():
            self._beat_seq += 1
            self._beat_sent_us = now_us
            self._beats.append((self._beat_seq, now_us))
            frame.heartbeat = Heartbeat(self._beat_seq, len(self._held))
            is_due = True
        if self._is_capacity_due:
            self._is_capacity_due = False
            frame.capacity = self._state_capacity()
            is_due = True
        if self._is_drain_request_due:
            self._is_drain_request_due = False
            frame.drain_request = self._drain_reason
            is_due = True
        if self._is_drained_by_broker or self._drain_reason is not None:
            is_due |= self._add_drain_status(frame)
        return is_due

    def _add_drain_status(self, frame: Frame) -> bool:
        # With each heartbeat at most: a list of thousands in every frame would cost more than the jobs.
        if self._status_sent is not None and frame.heartbeat is None:
            return False
        remaining = list(self._held)
        if remaining == self._status_sent:
            return False
        self._status_sent = frame.drain_status = remaining
        return True


def _fault_of(welcome: Welcome, epoch_seen: int, listed: int) -> str | None:
    """Why a session cannot begin with this Welcome; None if it can."""
    if welcome.epoch < epoch_seen:
        return f"epoch {welcome.epoch} is older than {epoch_seen}"
    if len(welcome.verdicts) != listed:
        return f"{len(welcome.verdicts)} verdicts for {listed} attempts"
    if not 0 <= welcome.lease_margin_us < welcome.lease_us or welcome.heartbeat_us <= 0:
        return "Welcome without lease or heartbeat interval"
    return None
