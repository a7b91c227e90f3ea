"""How soon the work of an agent that is gone begins on another one, by the histories and the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tests.e2e.history import Entry, Fault, attempt_key
from tests.e2e.stored import SECOND_US, StoredAttempt, StoredJob, percentile


class Moved(NamedTuple):
    """From the fault until each attempt's successor began to run, in milliseconds."""

    unaccepted_ms: list[float]
    """Of what the agent had been sent and had not begun."""
    accepted_ms: list[float]


def moved(entries: Sequence[Entry], jobs: Sequence[StoredJob], fault: Fault) -> Moved:
    """What the agent of the fault held at that moment and others ran then."""
    begun: dict[str, float] = {}
    for entry in entries:
        if (entry.op, entry.phase) == ("run", "invoke"):
            begun.setdefault(entry.key, entry.t)
    found = Moved([], [])
    for job in jobs:
        for attempt in job.attempts:
            later = [
                begun[key]
                for number in range(attempt.number + 1, job.attempt + 1)
                if (key := attempt_key(job.job_key, number)) in begun
            ]
            if later and _is_held(attempt, fault):
                was_begun = attempt_key(job.job_key, attempt.number) in begun
                (found.accepted_ms if was_begun else found.unaccepted_ms).append(1_000 * (later[0] - fault.t))
    return found


def _is_held(attempt: StoredAttempt, fault: Fault) -> bool:
    since_s, until_s = attempt.assigned_us / SECOND_US, attempt.ended_us / SECOND_US
    return attempt.agent == fault.key and since_s < fault.t and (not until_s or fault.t < until_s)


def too_late(what: str, figures_ms: Sequence[float], limit_ms: float, *, share: float = 0.99) -> list[str]:
    """A violation if fewer than this share came as soon as promised; 1: each of them must."""
    if not figures_ms or (late_ms := percentile(figures_ms, share)) <= limit_ms:
        return []
    which = f"p{100 * share:.0f} of {len(figures_ms)}" if share < 1 else f"the slowest of {len(figures_ms)}"
    return [f"{what} {late_ms:.0f} ms ({which}) after the fault, promised are {limit_ms:.0f} ms"]
