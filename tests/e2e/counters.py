"""Whether the metrics page of a broker says what its store says of the same span: the life of its last process.

Counters begin at 0 with each process, and an earlier one was gone before this one was started. So whatever the store
dates after that moment was done by this one, and counted: acceptances, assignments and ends of jobs are written with
the commit that tells them, and one commit is of one process.

Some figures cannot be exact, and are bounded or left out:

- `mesh_jobs_returned_total`, at least: an attempt that was taken away may come back with its agent and be taken away
  again or succeed, and has one row for all of that.
- `mesh_job_run_seconds` and what is said of reports: starts are written lazily, and refusals not at all.
- `mesh_attempts_held` and `mesh_sessions`: attempts whose agent has not confirmed that it stopped them still occupy it
  when no job runs any more, and whether a cut agent is back by then depends on its back-off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import eq, ge
from typing import Final, NamedTuple

from broker import series
from broker.dispatch import reasons
from mesh_client import FINAL_STATES
from tests.e2e.stored import StoredAttempt, StoredJob

GROUP: Final = "default/default"
CLOCKS_US: Final = 10_000
"""By how much the clock of the earlier process, read once at its start, may have been ahead: none is up so soon."""
RETURNED_AS: Final = {
    "lost": reasons.AGENT_LOST,
    "taken_over": reasons.AGENT_LOST,
    "incarnation_ended": reasons.AGENT_LOST,
    "left": "agent_left",
    "not_listed": "not_listed",
    "accept_timeout": "accept_timeout",
}
"""Why a job went back whose attempt ended so, while it was in the hands of its agent."""
WAITING: Final = (series.JOBS_WAITING, series.OLDEST_AGE_SECONDS)
WAITS, LATENCIES = (f"{one.name}_count" for one in (series.WAIT_SECONDS, series.LATENCY_SECONDS))
COMPARED: Final = frozenset(
    {
        *(one.name for one in (series.JOBS_SUBMITTED, series.JOBS_FINISHED, series.JOBS_RETURNED, *WAITING)),
        *(one.name for one in (series.ATTEMPTS_ASSIGNED, series.AGENT_ASSIGNED, series.AGENTS)),
        *(WAITS, LATENCIES),
    }
)


Samples = Mapping[str, Mapping[tuple[str, ...], float]]
"""Figures by the name of the sample, and by its labels but the group."""


class Page(NamedTuple):
    """What the page said of one group when all was quiet, and since when its broker counted."""

    since_us: int
    samples: Samples
    agents: Sequence[str] = ()
    """The names of the group's agents that the store has in the end; nobody has removed them."""
    removed: Sequence[str] = ()
    """Of those that were removed. Another one may have the name now, and counts from 0; attempts tell names only."""


def differences(page: Page, jobs: Sequence[StoredJob]) -> list[str]:
    """Where the page and the store do not agree: a text for each figure."""
    return [*_of_jobs(page, jobs), *_of_attempts(page, jobs), *_of_quiet(page)]


def _of_jobs(page: Page, jobs: Sequence[StoredJob]) -> Iterator[str]:
    after_us = page.since_us + CLOCKS_US
    accepted = sum(job.accepted_us > after_us for job in jobs)
    ended = Counter(job.state for job in jobs if job.finished_us > after_us)
    yield from _unlike(page, series.JOBS_SUBMITTED.name, {(): accepted})
    yield from _unlike(page, series.JOBS_FINISHED.name, {(state,): ended[state] for state in FINAL_STATES})
    yield from _unlike(page, LATENCIES, {(): ended["succeeded"]})


def _of_attempts(page: Page, jobs: Sequence[StoredJob]) -> Iterator[str]:
    after_us = page.since_us + CLOCKS_US
    given = [attempt for job in jobs for attempt in job.attempts if attempt.assigned_us > after_us]
    by_agent = Counter(attempt.agent for attempt in given)
    yield from _unlike(page, series.ATTEMPTS_ASSIGNED.name, {(): len(given)})
    yield from _unlike(page, WAITS, {(): sum(attempt.number == 1 for attempt in given)})
    told = page.samples.get(series.AGENT_ASSIGNED.name, {})  # large groups have none
    to_each = {labels: by_agent[labels[0]] for labels in told if labels[0] not in page.removed}
    yield from _unlike(page, series.AGENT_ASSIGNED.name, to_each)
    back = Counter(
        RETURNED_AS[attempt.ending]
        for job in jobs
        for attempt in job.attempts
        if _went_back(job, attempt) and attempt.ended_us > after_us
    )
    at_least: dict[tuple[str, ...], float] = {(reason,): number for reason, number in back.items()}
    yield from _unlike(page, series.JOBS_RETURNED.name, at_least, ge)


def _went_back(job: StoredJob, attempt: StoredAttempt) -> bool:
    return attempt.ending in RETURNED_AS and attempt.number < job.attempt


def _of_quiet(page: Page) -> Iterator[str]:
    for one in WAITING:
        yield from _unlike(page, one.name, dict.fromkeys(page.samples.get(one.name, {()}), 0))
    known = sum(page.samples.get(series.AGENTS.name, {}).values())
    if known != len(page.agents):
        yield f"{series.AGENTS.name}: told {known:g}, stored {len(page.agents)}"


def _unlike(
    page: Page,
    name: str,
    stored: Mapping[tuple[str, ...], float],
    agrees: Callable[[float, float], bool] = eq,
) -> Iterator[str]:
    told = page.samples.get(name, {})
    for labels, number in stored.items():
        figure = told.get(labels, -1.0)
        if not agrees(figure, number):
            words = f"told {figure:g}" if labels in told else "not told"
            yield f"{name}{{{','.join(labels)}}}: {words}, stored {number:g}"
