"""The rules of jobs and attempts as tables: what may become what, and because of which cause.

A job is in one state; its latest attempt is in one phase. A *live* attempt (sent, accepted, away, stopping) occupies
capacity of its agent. When an agent is lost its attempts are *away*; at the take-away time they become *adoptable*:
the job goes on without them, but as long as no newer attempt exists their outcome still counts (promise P4).
An attempt whose job has moved on while the agent may still run it is *detached*: it keeps a slot and has no job.

`ROWS` names each row of the design's table by its number; `ATTEMPT_MOVES` and `JOB_MOVES` are derived from it or
listed here, and `Ledger` refuses (asserts) every move that is not in them. A stale message is never a move.
"""

from typing import Final, NamedTuple

from broker.dispatch.model import FINAL_STATES, JobState, Phase, Word


class Cause(Word):
    """What moves an attempt from one phase to another."""

    PLACED = "placed"
    ACCEPTED = "accepted"
    STARTED = "started"
    REJECTED = "rejected"
    ACCEPT_TIMEOUT = "accept_timeout"
    OUTCOME = "outcome"
    SESSION_ENDED = "session_ended"
    LISTED = "listed"
    NOT_LISTED = "not_listed"
    NEW_INCARNATION = "new_incarnation"
    TAKEN_AWAY = "taken_away"
    CANCEL = "cancel"
    DEADLINE = "deadline"
    STOP_CONFIRMED = "stop_confirmed"
    STOP_UNCONFIRMED = "stop_unconfirmed"
    GOODBYE = "goodbye"
    JOB_ENDED = "job_ended"
    RECOVERED = "recovered"


class Row(NamedTuple):
    """One row of the table of attempts: in one of `phases`, `cause` leads to one of `to`."""

    number: int
    phases: tuple[Phase, ...]
    cause: Cause
    to: tuple[Phase, ...]


_N, _S, _A, _W, _P, _D = Phase.NONE, Phase.SENT, Phase.ACCEPTED, Phase.AWAY, Phase.STOPPING, Phase.ADOPTABLE

ROWS: Final = (
    Row(1, (_N, _D), Cause.PLACED, (_S,)),
    Row(2, (_S,), Cause.ACCEPTED, (_A,)),
    Row(2, (_S, _A), Cause.STARTED, (_A,)),
    Row(3, (_S,), Cause.REJECTED, (_N,)),
    Row(4, (_S,), Cause.ACCEPT_TIMEOUT, (_D, _P)),
    Row(5, (_S, _A, _W, _D, _P), Cause.OUTCOME, (_N,)),
    Row(6, (_S, _A), Cause.SESSION_ENDED, (_W,)),
    Row(7, (_W, _D), Cause.LISTED, (_A, _P)),
    Row(8, (_W,), Cause.NOT_LISTED, (_N,)),
    Row(9, (_W,), Cause.NEW_INCARNATION, (_N, _W)),
    Row(10, (_W,), Cause.TAKEN_AWAY, (_D, _N)),
    Row(11, (_S, _A), Cause.CANCEL, (_P,)),
    Row(11, (_W,), Cause.CANCEL, (_W,)),
    Row(12, (_S, _A), Cause.DEADLINE, (_P,)),
    Row(14, (_P,), Cause.STOP_CONFIRMED, (_N,)),
    Row(15, (_P,), Cause.STOP_UNCONFIRMED, (_D,)),
    Row(16, (_P,), Cause.SESSION_ENDED, (_N, _W)),
    Row(19, (_S, _A, _W, _P), Cause.GOODBYE, (_N,)),
    Row(20, (_D,), Cause.JOB_ENDED, (_N,)),
    Row(0, (_S, _A, _P, _W), Cause.RECOVERED, (_W,)),
)
"""Rows of the design's table. Row 4's exclusive case and row 14's `stopping` share `_P`; 0 is session row p."""

ATTEMPT_MOVES: Final[dict[tuple[Phase, Cause], frozenset[Phase]]] = {
    (phase, cause): frozenset(to for row in ROWS if phase in row.phases and row.cause is cause for to in row.to)
    for phase in Phase
    for cause in Cause
    if any(phase in row.phases and row.cause is cause for row in ROWS)
}

_BACK = {JobState.QUEUED, JobState.SCHEDULED, JobState.HELD}

JOB_MOVES: Final[dict[JobState | None, frozenset[JobState]]] = {
    None: frozenset({JobState.SCHEDULED, JobState.QUEUED}),
    JobState.SCHEDULED: frozenset({JobState.QUEUED, JobState.RUNNING, *FINAL_STATES}),
    JobState.QUEUED: frozenset({JobState.ASSIGNED, JobState.RUNNING, JobState.SCHEDULED, *FINAL_STATES}),
    JobState.ASSIGNED: frozenset({JobState.RUNNING, *_BACK, *FINAL_STATES}),
    JobState.RUNNING: frozenset({*_BACK, *FINAL_STATES}),
    JobState.HELD: frozenset({JobState.QUEUED, JobState.RUNNING, JobState.SCHEDULED, *FINAL_STATES}),
    **{state: frozenset[JobState]() for state in FINAL_STATES},
}
"""Finished is final: from the last four there is no way on, ever (invariant 7)."""
