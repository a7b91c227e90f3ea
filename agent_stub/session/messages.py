"""What goes into the session and what comes out: frames' contents, and orders to the driver.

Numbers of the enums are those of the wire. Durations and times are whole microseconds of the driver's clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeVar, dataclass_transform

T = TypeVar("T")

Key = tuple[int, int]
"""(job_key, attempt): what every message about a job is known by."""

OWN_PREFETCH = -1.0
"""The prefetch of a group that says none: each agent's own."""
OUTCOME_BYTES = 64
"""What an outcome takes on the wire besides its texts and its result."""
PROGRESS_BYTES = 32


@dataclass_transform(frozen_default=True)
def message(cls: type[T]) -> type[T]:
    """Frozen to the type checker, plain slots at run time (a quarter of the cost of `frozen=True`)."""
    return dataclass(slots=True)(cls)


class Number(IntEnum):
    """A number of the wire. A member is found in a dict as fast as a number: `Enum` hashes by a function of its own."""

    __hash__ = int.__hash__


class OutcomeStatus(Number):
    """How an attempt ended."""

    SUCCEEDED = 1
    FAILED = 2
    CANCELLED = 3
    FENCED = 4


class RejectedReason(Number):
    """Why an attempt is not taken."""

    BUSY = 1
    UNFIT = 2
    LEAVING = 3


class Verdict(Number):
    """What becomes of an attempt that was listed in Hello."""

    KEEP = 1
    STOP = 2


# Broker to agent -----------------------------------------------------------------------------------------------------


@message
class Welcome:
    """The session has begun. `verdicts` answers `Hello.held` in its order, `prefetch` is the group's."""

    session_id: int
    epoch: int
    lease_us: int
    lease_margin_us: int
    heartbeat_us: int
    idle_heartbeat_us: int
    verdicts: Sequence[int] = ()
    frame_bytes_max: int = 1 << 20
    mesh_id: str = ""
    prefetch: float = OWN_PREFETCH


@message
class Assign:
    """Run this. A duration of 0 is no limit; `body` is what the driver needs to run it and is never looked into.

    `is_kept_first`: nothing makes up for its outcome if that is lost.
    """

    job_key: int
    attempt: int
    operation: str
    exclusive: bool = False
    run_timeout_us: int = 0
    total_remaining_us: int = 0
    body: object = None
    is_kept_first: bool = False


@message
class Cancel:
    """Stop an attempt, known or not."""

    job_key: int
    attempt: int
    reason: str = "requested"
    grace_us: int = 0


# Agent to broker -----------------------------------------------------------------------------------------------------


@message
class Outcome:
    """How an attempt ended. `code`, `text` and `retryable` are of a failure; `content` is the result of a success."""

    job_key: int
    attempt: int
    status: OutcomeStatus
    code: str = ""
    text: str = ""
    retryable: bool = False
    content: bytes = b""
    content_type: str = ""
    run_time_us: int = 0

    @property
    def wire_bytes(self) -> int:
        """About what it takes in a frame."""
        return OUTCOME_BYTES + len(self.content) + 4 * len(self.text)


@message
class Progress:
    """How far a running attempt is. An empty checkpoint leaves the one before it in place."""

    job_key: int
    attempt: int
    fraction: float = 0.0
    text: str = ""
    checkpoint: bytes = b""

    def after(self, before: "Progress | None") -> "Progress":
        """This report in the place of one that was not sent: with its checkpoint, if this one has none."""
        if before is None or self.checkpoint or not before.checkpoint:
            return self
        return Progress(self.job_key, self.attempt, self.fraction, self.text, before.checkpoint)

    @property
    def wire_bytes(self) -> int:
        """About what it takes in a frame."""
        return PROGRESS_BYTES + len(self.checkpoint) + 4 * len(self.text)


@message
class Rejected:
    """An attempt that is not taken."""

    job_key: int
    attempt: int
    reason: RejectedReason
    text: str = ""


@message
class Capacity:
    """The most attempts that the agent will hold. `seq` grows with each statement."""

    seq: int
    attempts: int


@message
class Heartbeat:
    """Sign of life. `held` counts unacknowledged outcomes too."""

    seq: int
    held: int


@message
class Hello:
    """What the agent holds at one instant; the driver adds who and where it is.

    `finished` are those of `held` that have succeeded or failed, and whose outcomes follow after Welcome.
    """

    connect_seq: int
    slots: int
    capacity: Capacity
    held: list[Key]
    outcomes: list[Outcome]
    previous_attempts: int
    mesh_id: str = ""
    finished: Sequence[Key] = ()


@dataclass(slots=True)
class Frame:
    """All that is sent at once; within it the broker works the fields in this order."""

    hello: Hello | None = None
    heartbeat: Heartbeat | None = None
    capacity: Capacity | None = None
    accepted: list[Key] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    started: list[Key] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    drain_request: str | None = None
    drain_status: list[Key] | None = None
    goodbye: str | None = None


# Orders to the driver ------------------------------------------------------------------------------------------------


@message
class StartRun:
    """Run it now: a slot is free. Answered with `AgentSession.finished`."""

    assign: Assign


@message
class StopRun:
    """End a run that was started. Answered with `AgentSession.finished`, whatever it came to."""

    job_key: int
    attempt: int
    reason: str
    grace_us: int = 0


@message
class LeaveStream:
    """The stream is of no use: end it, call `disconnected`, dial again."""

    reason: str


@message
class KeepOutcome:
    """Write it where it outlives the process, then call `AgentSession.kept`: it is not sent before."""

    outcome: Outcome


Order = StartRun | StopRun | LeaveStream | KeepOutcome
