"""What happened to a job, told from its row and the rows beside it.

The hot path writes a row of its own only for what the job's columns cannot say (ADR 0006). So the life of a job is put
together here: its acceptance, each attempt's placement, start and end, and what was recorded between them.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from broker.dispatch.model import FINAL_STATES, LIVE_PHASES, NO_AGENT, JobState, Phase
from broker.dispatch.rows import AttemptRow, TransitionRow
from broker.store.base import JobRecord

ACCEPTED: Final = "accepted"
DUE: Final = "due"
PLACED: Final = "placed"
STARTED: Final = "started"
_TRIED_LATER: Final = frozenset({"failed", "stopped_run_timeout"})
"""Endings after which a job backs off; after all others that are not final it waits at its old place."""


def attempts_of(record: JobRecord) -> list[AttemptRow]:
    """All attempts by number. The latest one has no row of its own while it is live, or if it was the first and good.

    One that was lost, and whose agent came back with it, is live again (`ended_us` 0, no ending), and may succeed.
    """
    row = record.row
    found = {attempt.attempt: attempt for attempt in record.attempts}
    is_live = Phase(row.phase) in LIVE_PHASES
    if row.attempt and (is_live or row.attempt not in found or _has_succeeded_since(record, found[row.attempt])):
        is_final = JobState(row.state) in FINAL_STATES
        found[row.attempt] = AttemptRow(
            row.job_key,
            row.attempt,
            row.agent_no,
            row.assigned_us,
            row.started_us,
            row.finished_us if is_final else 0,
            row.state if is_final else "",
            row.code if is_final else "",
        )
    return [found[number] for number in sorted(found)]


def _has_succeeded_since(record: JobRecord, attempt: AttemptRow) -> bool:
    """Whether the job's latest attempt succeeded after its row had said that it was lost: nobody else decided so."""
    row = record.row
    is_decided = any(step.to_state == JobState.SUCCEEDED for step in record.transitions)
    return row.state == JobState.SUCCEEDED and attempt.ended_us < row.finished_us and not is_decided


def transitions_of(record: JobRecord) -> list[TransitionRow]:
    """The steps from its acceptance to where it stands, in order."""
    attempts = attempts_of(record)
    recorded = list(record.transitions)
    steps = [*_beginning(record), *recorded]
    for attempt in attempts:
        steps += _steps_of(record, attempt, is_recorded=any(_tells_end(one, attempt) for one in recorded))
    if record.row.finished_us and not any(JobState(step.to_state) in FINAL_STATES for step in steps):
        steps.append(_step(record, record.row.finished_us, record.row.state, record.row.code or record.row.state))
    # What is told of one moment is in the order of a life: the sort is stable, and a placement ends what waited.
    steps.sort(key=lambda step: (step.at_us, step.attempt, _PLACES.get(step.reason, 2)))
    return _chained(steps)


_PLACES: Final = {ACCEPTED: -1, DUE: 0, PLACED: 0, STARTED: 1}


def _beginning(record: JobRecord) -> Iterator[TransitionRow]:
    row = record.row
    is_delayed = row.order_us > row.accepted_us
    yield _step(record, row.accepted_us, JobState.SCHEDULED if is_delayed else JobState.QUEUED, ACCEPTED)
    if is_delayed and (row.attempt or row.state not in (JobState.SCHEDULED, *FINAL_STATES)):
        yield _step(record, row.order_us, JobState.QUEUED, DUE)


def _steps_of(record: JobRecord, attempt: AttemptRow, *, is_recorded: bool) -> Iterator[TransitionRow]:
    yield _step(record, attempt.assigned_us, JobState.ASSIGNED, PLACED, attempt)
    if attempt.started_us:
        yield _step(record, attempt.started_us, JobState.RUNNING, STARTED, attempt)
    if attempt.ending and not is_recorded:
        yield _step(record, attempt.ended_us, _state_after(record, attempt), attempt.ending, attempt)


def _state_after(record: JobRecord, attempt: AttemptRow) -> str:
    row = record.row
    if attempt.attempt == row.attempt and row.finished_us == attempt.ended_us:
        return row.state
    return JobState.SCHEDULED if attempt.ending in _TRIED_LATER else JobState.QUEUED


def _tells_end(step: TransitionRow, attempt: AttemptRow) -> bool:
    """Whether the recorded step is what the end of the attempt led to."""
    return step.attempt == attempt.attempt and step.at_us == attempt.ended_us


def _step(record: JobRecord, at_us: int, to: str, reason: str, attempt: AttemptRow | None = None) -> TransitionRow:
    row = record.row
    number, agent_no = (attempt.attempt, attempt.agent_no) if attempt is not None else (0, NO_AGENT)
    if attempt is None and reason not in (ACCEPTED, DUE):
        number = row.attempt
    return TransitionRow(row.group_no, row.job_key, number, at_us, "", to, reason, agent_no, "")


def _chained(steps: list[TransitionRow]) -> list[TransitionRow]:
    """Each step begins where the one before it led, unless it was recorded with its beginning."""
    chained = steps[:1]
    for before, step in pairwise(steps):
        from_state = before.to_state
        if step.reason == PLACED and from_state == JobState.SCHEDULED:
            from_state = JobState.QUEUED  # when a back-off was over is not kept
        chained.append(step if step.from_state else step._replace(from_state=from_state))
    return chained
