"""What a broker's store holds of jobs and attempts, read from its file while no broker uses it."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ENDED_BY_LOSS: Final = ("lost", "incarnation_ended")
NEVER_ARRIVED: Final = "not_listed"
"""A broker was killed between the commit of an assignment and its frame: the agent never had the attempt."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A stored job. `attempts` are all but a first and good one: (number, agent, how it ended)."""

    job_key: int
    job_id: bytes
    state: str
    attempt: int
    agent: str
    accepted_us: int
    finished_us: int
    attempts: tuple[tuple[int, str, str], ...]

    @property
    def lost_agents(self) -> tuple[str, ...]:
        """Whose attempts of this job were cut off."""
        return tuple(agent for _, agent, ending in self.attempts if ending in ENDED_BY_LOSS)

    @property
    def undelivered(self) -> int:
        """Attempts that were given out and never reached their agent."""
        return sum(ending == NEVER_ARRIVED for _, _, ending in self.attempts)

    @property
    def assigned_to(self) -> Counter[str]:
        """How many attempts each agent was given."""
        given = {number: agent for number, agent, _ in self.attempts}
        if self.attempt:
            given[self.attempt] = self.agent
        return Counter(given.values())


def store_file(data: Path) -> Path:
    """The database in a broker's data directory."""
    [found] = data.glob("*.sqlite")
    return found


def read_jobs(file: Path) -> list[JobRecord]:
    """All jobs by the order of their acceptance."""
    with _reading(file) as database:
        attempts: dict[int, list[tuple[int, str, str]]] = {}
        rows = "SELECT a.job_key, a.attempt, g.agent_id, a.ending FROM attempt a JOIN job j USING (job_key) {}"
        for job_key, number, agent, ending in database.execute(rows.format(_agent_of("a")) + " ORDER BY a.attempt"):
            attempts.setdefault(job_key, []).append((number, agent, ending))
        rows = (
            "SELECT j.job_key, job_id, state, attempt, coalesce(agent_id, ''), accepted_us, finished_us FROM job j {}"
        )
        return [
            JobRecord(*columns, attempts=tuple(attempts.get(columns[0], ())))  # type: ignore[misc]
            for columns in database.execute(rows.format(_agent_of("j")) + " ORDER BY j.job_key")
        ]


def count_held(file: Path) -> int:
    """Attempts that agents hold as far as the store knows: what a kill interrupts."""
    with _reading(file) as database:
        query = "SELECT count(*) FROM job WHERE phase IN ('sent', 'accepted', 'away', 'stopping')"
        [(held,)] = database.execute(query)
        return int(held)


def _agent_of(table: str) -> str:
    return f"LEFT JOIN agent g ON g.group_no = j.group_no AND g.agent_no = {table}.agent_no"


@contextmanager
def _reading(file: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
        yield database
