"""Options of commands about many jobs: which ones. All that is given must hold."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from broker.cli.access import Flag, Words
from broker.cli.durations import with_unit
from broker.cli.exits import UsageError

if TYPE_CHECKING:
    from mesh_client import JobChoice

State = Literal["scheduled", "queued", "assigned", "running", "held", "succeeded", "failed", "cancelled", "dead"]


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Choice:
    """Which jobs. A time is `30m`, `2h`, `7d` (so long ago) or a date, with a time of this machine's zone if wanted."""

    state: State | None = None
    """Only jobs in this state."""
    dead: Flag = False
    """Only dead letters: --state dead."""
    group: str | None = None
    """Only jobs of this group."""
    environment: str | None = None
    """Only jobs that were sent to this environment."""
    operation: str | None = None
    """Only jobs of this operation."""
    agent: str | None = None
    """Only jobs that this agent has, or had last."""
    code: str | None = None
    """Only jobs whose latest failure has this code."""
    fairness_key: str | None = None
    """Only jobs with this fairness key."""
    key: str | None = None
    """Only jobs with this business key."""
    since: str | None = None
    """Only jobs accepted at this time or later."""
    until: str | None = None
    """Only jobs accepted before this time."""
    finished_since: str | None = None
    """Only jobs that ended at this time or later."""
    finished_until: str | None = None
    """Only jobs that ended before this time."""
    filter: Annotated[Words, Parameter(name="--filter")] = ""
    """More conditions, as the API takes them: FIELD = VALUE joined by AND."""

    def chosen(self) -> JobChoice:
        """What the client takes. Raises UsageError."""
        if self.dead and self.state not in (None, "dead"):
            raise UsageError(f"--dead is --state dead; leave one of --dead and --state {self.state} out")
        choice: JobChoice = {
            "state": "dead" if self.dead else self.state,
            "group": self.group,
            "environment": self.environment,
            "operation": self.operation,
            "agent": self.agent,
            "code": self.code,
            "fairness_key": self.fairness_key,
            "idempotency_key": self.key,
            "accepted_since": time_of("--since", self.since),
            "accepted_until": time_of("--until", self.until),
            "finished_since": time_of("--finished-since", self.finished_since),
            "finished_until": time_of("--finished-until", self.finished_until),
            "filter": self.filter,
        }
        return choice

    @property
    def is_all(self) -> bool:
        """Whether nothing was chosen."""
        return self == Choice()


def time_of(option: str, text: str | None, now: datetime | None = None) -> datetime | None:
    """The time that an option says: a date, or so long ago. Raises UsageError."""
    return None if text is None else _moment(option, text, now or datetime.now(UTC), -1)


def start_of(option: str, text: str | None, now: datetime | None = None) -> datetime | None:
    """The time to come that an option says: a date, or so long from now. Raises UsageError."""
    if text is None:
        return None
    now = now or datetime.now(UTC)
    at = _moment(option, text, now, 1)
    if at < now:
        raise UsageError(f"{option} {text}: this is over. Leave it out to start at once, or give a time to come")
    return at


def _moment(option: str, text: str, now: datetime, direction: int) -> datetime:
    try:
        if (apart_s := with_unit(text)) is not None:
            return now + direction * timedelta(seconds=apart_s)
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        apart = "30m, 2h, 7d (from now)" if direction > 0 else "30m, 2h, 7d (ago)"
        example = f"{apart}, 2026-11-21, 2026-11-21T10:00 or 2026-11-21T10:00:00Z"
        raise UsageError(f"{option} {text}: give a time such as {example}") from error
