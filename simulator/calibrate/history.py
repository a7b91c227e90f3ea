"""The history part of a profile: when jobs arrive in a week, how long they run, how often they fail.

From the API of a broker, or from a file with what `mesh jobs list` printed as JSON. Attempts that an agent lost tell
nothing of how long the work takes, so durations are those of jobs that ended by themselves at the first attempt, from
when it was heard to run until its end; jobs that were never tried again have no other.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np

from mesh_client import JobView, MeshClient
from simulator.calibrate.live import law_of
from simulator.emulate.play import Tell
from simulator.profile import MINUTES, ProfileError, WorkHistory

MINUTE_S: Final = 60
WEEK_S: Final = MINUTES * MINUTE_S
MONDAY: Final = datetime(1970, 1, 5, tzinfo=UTC)
JOBS_MIN: Final = 20
"""Work of fewer jobs says too little."""
TOLD_EVERY: Final = 20_000


@dataclass(slots=True, frozen=True)
class Past:
    """What of a job is used. Times are None for what never was."""

    operation: str
    accepted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    state: str
    attempt: int
    failures: int


@dataclass(slots=True)
class _Tally:
    accepted: list[datetime] = field(default_factory=list)
    ran_s: list[float] = field(default_factory=list)
    attempts: int = 0
    failures: int = 0


def read_history(source: str, back: timedelta, tell: Tell) -> dict[str, WorkHistory]:
    """The work of a broker (HOST:PORT) or of a file, by operation. Raises ProfileError, MeshClientError, OSError."""
    path = Path(source)
    if path.is_file():
        jobs = list(_of_file(path))
    elif ":" in source:
        jobs = asyncio.run(_of_broker(source, back, tell))
    else:
        raise ProfileError(f"`{source}` is neither a file nor HOST:PORT of a broker's API, such as 127.0.0.1:7402")
    tell(f"{len(jobs)} jobs")
    return work_of(jobs)


async def _of_broker(target: str, back: timedelta, tell: Tell) -> list[Past]:
    found: list[Past] = []
    async with MeshClient(target) as client:
        async for view in client.list(accepted_since=datetime.now(UTC) - back):
            past = _of_view(view)
            found += [past] if past is not None else []
            if len(found) % TOLD_EVERY == 0:
                tell(f"{len(found)} jobs, back to {view.accepted_at}")
    return found


def _of_view(view: JobView) -> Past | None:
    if view.accepted_at is None:
        return None
    return Past(
        view.operation,
        view.accepted_at,
        view.started_at,
        view.finished_at,
        view.state.value,
        view.attempt,
        view.failures,
    )


def _of_file(path: Path) -> Iterator[Past]:
    for number, row in enumerate(_rows(path), 1):
        try:
            accepted_at = _time(row["accepted_at"])
            if accepted_at is not None:
                steps = (_time(row.get("started_at")), _time(row.get("finished_at")))
                counts = (int(row.get("attempt") or 0), int(row.get("failures") or 0))
                yield Past(str(row["operation"]), accepted_at, *steps, str(row["state"]), *counts)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProfileError(f"{path}: job {number} is not what `mesh jobs list` prints: {error!r}") from error


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Jobs of one JSON list, or of one JSON object a line. Raises ProfileError."""
    text = path.read_text("utf-8")
    try:
        yield from json.loads(text)
    except ValueError:
        for number, line in enumerate(text.splitlines(), 1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ProfileError(f"{path}:{number}: this is not JSON: {error}") from error


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def work_of(jobs: Iterable[Past]) -> dict[str, WorkHistory]:
    """The work of these jobs by operation. Raises ProfileError: there are too few of all."""
    tallies: dict[str, _Tally] = defaultdict(_Tally)
    for job in jobs:
        tally = tallies[job.operation]
        tally.accepted.append(job.accepted_at)
        tally.attempts += max(1, job.attempt)
        tally.failures += max(job.failures, job.state == "failed")
        is_whole = job.attempt == 1 and job.state in ("succeeded", "failed")
        if is_whole and job.started_at is not None and job.finished_at is not None:
            tally.ran_s.append((job.finished_at - job.started_at).total_seconds())
    found = {name: _history(tally) for name, tally in sorted(tallies.items()) if len(tally.ran_s) >= JOBS_MIN}
    if not found:
        raise ProfileError(f"no operation has {JOBS_MIN} jobs that ended at the first attempt: there is no history yet")
    return found


def _history(tally: _Tally) -> WorkHistory:
    law = law_of(np.asarray(tally.ran_s))
    assert law.empirical is not None
    return WorkHistory.model_construct(
        jobs=len(tally.accepted),
        weeks=round(_weeks(tally.accepted), 6),
        failure=min(1.0, tally.failures / tally.attempts),
        quantiles=law.empirical.quantiles,
        per_minute=tuple(per_minute(tally.accepted)),
    )


def _weeks(times: Iterable[datetime]) -> float:
    known = sorted(times)
    return max((known[-1] - known[0]).total_seconds(), 2 * MINUTE_S) / WEEK_S


def per_minute(times: list[datetime]) -> list[float]:
    """Mean arrivals in each minute of the week: how many there were, over how often that minute came.

    A minute of the week that the history never saw has the mean of those that it saw.
    """
    at_min = np.asarray([int((at - MONDAY).total_seconds()) // MINUTE_S for at in times], np.int64)
    first, last = int(at_min.min()), int(at_min.max())
    seen = np.arange(first, last + 1) % MINUTES
    often = np.bincount(seen, minlength=MINUTES)
    counts = np.bincount(at_min % MINUTES, minlength=MINUTES)
    whole = len(times) / len(seen)
    return [round(float(value), 4) for value in np.where(often > 0, counts / np.maximum(1, often), whole)]
