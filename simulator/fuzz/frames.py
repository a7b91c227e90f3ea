"""What the broker writes to an agent, and how what waits is packed into frames (the rules of `broker.rpc.sessions`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_never

from agent_stub.session import AgentSession, Assign, Cancel, Key, Verdict, Welcome
from broker.dispatch.messages import (
    AcceptOutcome,
    AssignJob,
    CancelAttempt,
    DrainAgent,
    EndSession,
    FinishDrain,
    RefuseOutcome,
    RejectAgent,
    Send,
    SetPrefetch,
    UndrainAgent,
    WelcomeAgent,
)
from broker.dispatch.model import DispatchPolicy, DrainEnd


@dataclass
class BrokerFrame:
    """All that is written at once; an agent works the fields in this order."""

    welcome: Welcome | None = None
    reject_retry_us: int | None = None
    """After how long a refused agent may ask again; 0: never."""
    beat: tuple[int, int] | None = None
    resync: bool = False
    acknowledged: list[Key] = field(default_factory=list)
    cancels: list[Cancel] = field(default_factory=list)
    assigns: list[Assign] = field(default_factory=list)
    drain: bool = False
    undrain: bool = False
    drained_to: DrainEnd | None = None
    prefetch: float | None = None


def work(session: AgentSession, now_us: int, frame: BrokerFrame) -> None:
    """Give a frame to a session, but for a refusal: its driver leaves the stream."""
    if frame.welcome is not None:
        session.welcomed(now_us, frame.welcome)
    if frame.beat is not None:
        session.heartbeat_acked(now_us, *frame.beat)
    if frame.resync:
        session.resynced()
    session.acknowledged(frame.acknowledged)
    for cancel in frame.cancels:
        session.cancelled(now_us, cancel)
    for assign in frame.assigns:
        session.assigned(now_us, assign)
    if frame.drain:
        session.drain_started()
    if frame.undrain:
        session.drain_cancelled()
    if frame.drained_to is not None:
        session.drain_done(is_stop=frame.drained_to is DrainEnd.STOP)
    if frame.prefetch is not None:
        session.prefetch_set(frame.prefetch)


class Writer:
    """Orders of one session that have not left: control first, then answers and cancels, then assignments."""

    def __init__(self, epoch: int, policy: DispatchPolicy) -> None:
        self.is_ended = False
        self._epoch = epoch
        self._policy = policy
        self._first: list[BrokerFrame] = []
        self._rest = BrokerFrame()
        self._assigns: dict[Key, AssignJob] = {}

    def beat(self, seq: int) -> None:
        """Answer a heartbeat."""
        self._rest.beat = (seq, self._epoch)

    def resync(self) -> None:
        """Ask for Hello again."""
        self._first.append(BrokerFrame(resync=True))

    def order(self, send: Send) -> None:
        """Take in an order of the dispatcher."""
        if isinstance(send, AssignJob):
            self._assigns[send.job_key, send.attempt] = send
        elif isinstance(send, CancelAttempt):
            self._assigns.pop((send.job_key, send.attempt), None)
            self._rest.cancels.append(Cancel(send.job_key, send.attempt, send.reason, send.grace_us))
        elif isinstance(send, AcceptOutcome | RefuseOutcome):
            self._rest.acknowledged.append((send.job_key, send.attempt))
        elif isinstance(send, WelcomeAgent):
            self._assigns.clear()
            self._first.append(BrokerFrame(welcome=self._welcome(send)))
        elif isinstance(send, RejectAgent):
            self._first.append(BrokerFrame(reject_retry_us=send.retry_after_us))
        elif isinstance(send, DrainAgent):
            self._first.append(BrokerFrame(drain=True))
        elif isinstance(send, SetPrefetch):
            self._first.append(BrokerFrame(prefetch=send.prefetch))
        elif isinstance(send, UndrainAgent):
            self._first.append(BrokerFrame(undrain=True))
        elif isinstance(send, FinishDrain):
            self._first.append(BrokerFrame(drained_to=send.ends))
        elif isinstance(send, EndSession):
            self.is_ended = True
        else:
            assert_never(send)

    def _welcome(self, send: WelcomeAgent) -> Welcome:
        policy = self._policy
        return Welcome(
            send.session,
            self._epoch,
            policy.lease_us,
            policy.margin_us,
            policy.heartbeat_us,
            policy.idle_heartbeat_us,
            [Verdict.KEEP if keep else Verdict.STOP for keep in send.keep],
            prefetch=send.prefetch,
        )

    def pack(self, now_us: int) -> list[BrokerFrame]:
        """All that waits, as frames."""
        frames, self._first = self._first, []
        rest, self._rest = self._rest, BrokerFrame()
        rest.assigns = [
            Assign(
                one.job_key,
                one.attempt,
                one.operation,
                one.exclusive,
                one.run_timeout_us,
                max(1, one.total_by_us - now_us) if one.total_by_us else 0,
            )
            for one in self._assigns.values()
        ]
        self._assigns.clear()
        return [*frames, rest] if rest != BrokerFrame() else frames
