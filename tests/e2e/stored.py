"""What a broker's store says of jobs and of all their attempts, read from its file while no broker uses it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from broker.dispatch.model import LIVE_PHASES
from mesh_client import FINAL_STATES

SECOND_US: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class StoredAttempt:
    """An attempt that was given out. `ending` is "" for one that is live and for a first one that went well."""

    number: int
    agent: str
    assigned_us: int = 0
    ended_us: int = 0
    ending: str = ""


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A job as it lies in the store, with its attempts by their number. Times are microseconds since the epoch."""

    job_key: int
    job_id: bytes
    state: str
    attempt: int
    phase: str = "none"
    accepted_us: int = 0
    finished_us: int = 0
    failures: int = 0
    crashes: int = 0
    bounces: int = 0
    group: str = "default/default"
    attempts: tuple[StoredAttempt, ...] = ()

    @property
    def is_final(self) -> bool:
        """Whether it has an outcome, and nobody holds an attempt of it."""
        return self.state in FINAL_STATES and self.phase not in LIVE_PHASES

    @property
    def latency_s(self) -> float:
        """From its acceptance to its end."""
        return (self.finished_us - self.accepted_us) / SECOND_US


def percentile_s(jobs: Sequence[StoredJob], share: float) -> float:
    """The time within which this share of the jobs ended."""
    return percentile((job.latency_s for job in jobs), share)


def percentile(values: Iterable[float], share: float) -> float:
    """The value that this share of them does not exceed (by nearest rank). Raises IndexError if there is none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


_JOBS: Final = """
SELECT j.job_key, job_id, state, attempt, phase, accepted_us, finished_us, failures, crashes, bounces,
       o.slug || '/' || l.slug, coalesce(g.agent_id, ''), assigned_us
FROM job j JOIN agent_group l USING (group_no) JOIN organisation o USING (org_no)
LEFT JOIN agent g ON g.group_no = j.group_no AND g.agent_no = j.agent_no ORDER BY j.job_key
"""
_ATTEMPTS: Final = """
SELECT a.job_key, a.attempt, coalesce(g.agent_id, ''), a.assigned_us, a.ended_us, a.ending
FROM attempt a JOIN job j USING (job_key)
LEFT JOIN agent g ON g.group_no = j.group_no AND g.agent_no = a.agent_no ORDER BY a.job_key, a.attempt
"""
_AGENTS: Final = """
SELECT agent_id FROM agent a JOIN agent_group l USING (group_no) JOIN organisation o USING (org_no)
WHERE o.slug || '/' || l.slug = ? AND (a.admin = 'removed') = ? ORDER BY agent_id
"""


def read_agents(file: Path, group: str, *, are_removed: bool = False) -> list[str]:
    """The names of the agents of a group (`organisation/group`) that are there, or of those that were removed."""
    with closing(_opened(file)) as database:
        return [name for (name,) in database.execute(_AGENTS, (group, are_removed))]


def read_store(file: Path) -> list[StoredJob]:
    """All jobs in the order of their acceptance."""
    with closing(_opened(file)) as database:
        attempts: dict[int, dict[int, StoredAttempt]] = {}
        for job_key, *columns in database.execute(_ATTEMPTS):
            attempts.setdefault(job_key, {})[columns[0]] = StoredAttempt(*columns)
        jobs = []
        for *columns, agent, assigned_us in database.execute(_JOBS):
            job = StoredJob(*columns)
            known = attempts.get(job.job_key, {})
            if job.attempt:
                # The first one that goes well has no row of its own.
                known.setdefault(job.attempt, StoredAttempt(job.attempt, agent, assigned_us, job.finished_us))
            jobs.append(replace(job, attempts=tuple(known[number] for number in sorted(known))))
        return jobs


def _opened(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
