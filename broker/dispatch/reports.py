"""What agents report about attempts: accepted, started, rejected, progress, outcome (rows 2, 3, 5, 13, 14, 18).

A report counts only for the job's latest attempt and only from the agent it was given to; anything else changes
nothing and is answered, so that the agent can forget it. The latest attempt counts also after it was taken away, as
long as it has no successor and the job is not final.
"""

from typing import Final

from broker.dispatch import reasons
from broker.dispatch.ledger import Ledger
from broker.dispatch.messages import (
    AcceptOutcome,
    AttemptAccepted,
    AttemptFinished,
    AttemptProgressed,
    AttemptRejected,
    AttemptStarted,
    CancelAttempt,
    RefuseOutcome,
    RejectCause,
    StopReason,
)
from broker.dispatch.model import LIVE_PHASES, SECOND_US, Agent, AgentNo, Job, JobKey, JobState, OutcomeStatus, Phase
from broker.dispatch.retry import after_bounce, after_failure, give_up
from broker.dispatch.transitions import Cause

# Of members that are asked for several times a job: through its class each look-up costs 0.1 us up to Python 3.11.
_ASSIGNED: Final = JobState.ASSIGNED
_RUNNING: Final = JobState.RUNNING
_SUCCEEDED: Final = JobState.SUCCEEDED
_NONE: Final = Phase.NONE
_SENT: Final = Phase.SENT
_ACCEPTED: Final = Phase.ACCEPTED
_ADOPTABLE: Final = Phase.ADOPTABLE
_ACCEPTANCE: Final = Cause.ACCEPTED
_OUTCOME: Final = Cause.OUTCOME
_SUCCESS: Final = OutcomeStatus.SUCCEEDED
_STOPPED = (OutcomeStatus.CANCELLED, OutcomeStatus.FENCED)


def _live_job(ledger: Ledger, agent_no: AgentNo, key: JobKey, attempt: int) -> Job | None:
    job = ledger.jobs.get(key)
    if job is None or job.attempt != attempt or job.agent != agent_no or job.phase not in LIVE_PHASES:
        return None
    return job


def _hears(ledger: Ledger, agent: Agent) -> None:
    """An agent that reports on work is not deaf: it may be given something again."""
    if agent.is_deaf:
        agent.is_deaf = False
        ledger.slot_freed(agent)


def on_accepted(ledger: Ledger, event: AttemptAccepted | AttemptStarted) -> Job | None:
    """Row 2. An unknown attempt is told to stop (row 18); the job otherwise, for `on_started`."""
    agent = ledger.agents[event.agent]
    _hears(ledger, agent)
    job = _live_job(ledger, event.agent, event.job_key, event.attempt)
    if job is None:
        if (event.job_key, event.attempt) not in agent.detached:
            ledger.effects.sends.append(
                CancelAttempt(event.session, event.job_key, event.attempt, StopReason.SUPERSEDED, 0)
            )
        return None
    if job.phase is _SENT:
        ledger.set_phase(job, _ACCEPTANCE, _ACCEPTED)
        ledger.waits_no_more(job, agent, is_taken=True)
        ledger.touch(job)
    return job


def on_started(ledger: Ledger, event: AttemptStarted) -> None:
    """Row 2: the run deadline counts from here."""
    job = on_accepted(ledger, event)
    if job is None or job.state is not _ASSIGNED:
        return
    job.started_us = ledger.now_us
    if job.phase is _ACCEPTED:
        ledger.move_lazily(job, _RUNNING, "started")
        ledger.arm_job(job)


def on_progressed(ledger: Ledger, event: AttemptProgressed) -> None:
    """Keep the checkpoint for the next attempt; it rides on the next commit."""
    job = _live_job(ledger, event.agent, event.job_key, event.attempt)
    if job is not None and event.body is not None:
        ledger.checkpoints[job.key] = event.body
        ledger.touch(job)


def on_rejected(ledger: Ledger, event: AttemptRejected) -> None:
    """Row 3: back to its place; the agent gets nothing new as the cause says."""
    agent = ledger.agents[event.agent]
    _hears(ledger, agent)
    job = _live_job(ledger, event.agent, event.job_key, event.attempt)
    if job is None or job.phase is not _SENT:
        agent.detached.pop((event.job_key, event.attempt), None)
        ledger.slot_freed(agent)
        return
    if event.cause == RejectCause.UNFIT:
        agent.unfit |= {job.operation}
        ledger.placement.classify(agent)
    else:
        agent.is_busy = True
    ledger.set_phase(job, Cause.REJECTED, _NONE)
    ledger.waits_no_more(job, agent, is_taken=True)
    ledger.release(job, agent)
    ledger.close_attempt(job, f"rejected_{event.cause}", event.text[:200])
    after_bounce(ledger, job, f"rejected_{event.cause}")


def on_finished(ledger: Ledger, event: AttemptFinished) -> None:
    """Rows 5, 13, 14 and 18: the outcome of an attempt, answered exactly once."""
    job = ledger.jobs.get(event.job_key)
    agent = ledger.agents[event.agent]
    _hears(ledger, agent)
    if job is None or job.attempt != event.attempt or job.agent != event.agent or job.phase is _NONE:
        _refuse(ledger, agent, job, event)
        return
    was_taken_away = job.phase is _ADOPTABLE
    if was_taken_away:
        if event.status in _STOPPED or _is_counted(job, event):
            _end_adoptable(ledger, agent, job, event)
            return
        ledger.leave_waiting(job)
        if agent.detached.pop((job.key, job.attempt), 0) is None:
            ledger.slot_freed(agent)
    else:
        ledger.waits_no_more(job, agent, is_taken=True)
        ledger.release(job, agent)
    ledger.effects.sends.append(AcceptOutcome(event.session, job.key, job.attempt))
    if job.stop_reason and event.status in _STOPPED:
        confirm_stop(ledger, job, Cause.STOP_CONFIRMED if job.phase is Phase.STOPPING else _OUTCOME)
        return
    ledger.set_phase(job, _OUTCOME, _NONE)
    if event.status is _SUCCESS:
        if job.attempt > 1 or was_taken_away:  # its row says that it was lost
            ledger.close_attempt(job, "succeeded")
        if event.body is not None:
            ledger.effects.writes.results[job.key] = event.body
        job.code = job.message = ""
        ledger.move(job, _SUCCEEDED, "succeeded")
        return
    ledger.close_attempt(job, event.status, event.code)
    if event.status is OutcomeStatus.FAILED:
        job.code, job.message = event.code or "failed", event.text
        after_failure(ledger, job, retryable=event.retryable, reason="failed")
    elif event.status is OutcomeStatus.FENCED:
        ledger.give_back(job, "fenced")
    else:
        after_bounce(ledger, job, "stopped_by_agent")


def _is_counted(job: Job, event: AttemptFinished) -> bool:
    """Whether the run was given up as a failure already (row 15, run deadline) and waits for its next try."""
    return job.state is JobState.SCHEDULED and event.status is OutcomeStatus.FAILED and event.retryable


def _end_adoptable(ledger: Ledger, agent: Agent, job: Job, event: AttemptFinished) -> None:
    """Rows 5 and 14: an attempt that was taken away has ended. Its job went on at that time and stays where it is."""
    if agent.detached.pop((job.key, job.attempt), 0) is None:
        ledger.slot_freed(agent)
    ledger.set_phase(job, _OUTCOME, _NONE)
    ledger.dirty[job.key] = job
    ledger.effects.sends.append(AcceptOutcome(event.session, job.key, job.attempt))


def _refuse(ledger: Ledger, agent: Agent, job: Job | None, event: AttemptFinished) -> None:
    """Row 18: it does not count; a detached attempt gives its slot back."""
    if agent.detached.pop((event.job_key, event.attempt), 0) is None:
        ledger.slot_freed(agent)
    if job is None:
        why = reasons.OUTCOME_FINAL
    elif job.attempt == event.attempt and job.agent != event.agent:
        why = reasons.OUTCOME_FOREIGN
    else:
        why = reasons.OUTCOME_SUPERSEDED
    ledger.effects.sends.append(RefuseOutcome(event.session, event.job_key, event.attempt, why))


_OF_OPERATORS: Final = frozenset(
    {StopReason.DRAIN_REQUEUE, StopReason.DRAIN_KILL, StopReason.DISABLED, StopReason.REMOVED}
)
"""What an operator's word for the agent stops."""


def confirm_stop(ledger: Ledger, job: Job, cause: Cause = Cause.STOP_CONFIRMED, to: Phase = _NONE) -> None:
    """Row 14 (and 15, 16): the stop is confirmed or given up; the reason for it says what follows."""
    reason = job.stop_reason
    ledger.set_phase(job, cause, to)
    if cause is Cause.STOP_UNCONFIRMED:
        ledger.close_attempt(job, reasons.STOP_UNCONFIRMED, reason)
    else:
        ledger.close_attempt(job, f"stopped_{reason}")
    actor = ledger.agents[job.agent].admin_actor if reason in _OF_OPERATORS else ""
    if job.cancel_requested:
        ledger.cancel(job, "cancelled")
    elif reason == StopReason.RUN_TIMEOUT:
        job.code, job.message = reasons.RUN_TIMEOUT, f"ran longer than {job.run_timeout_us / SECOND_US:g} s"
        after_failure(ledger, job, retryable=True, reason=reasons.RUN_TIMEOUT)
    elif reason == StopReason.TOTAL_TIMEOUT:
        before = job.state
        job.code = reasons.DEADLINE_EXCEEDED
        ledger.end(job, JobState.FAILED, reasons.DEADLINE_EXCEEDED)
        ledger.record(job, before, reasons.DEADLINE_EXCEEDED)
    elif reason == StopReason.DRAIN_KILL:
        before = job.state
        job.code, job.message = reasons.KILLED, "it still ran at the deadline of a drain"
        ledger.end(job, JobState.FAILED, reasons.KILLED, actor)
        ledger.record(job, before, reasons.KILLED, actor)
    elif reason == StopReason.ACCEPT_TIMEOUT and job.bounces >= job.policy.bounces_max:
        give_up(ledger, job, reasons.BOUNCES_USED)
    else:
        ledger.give_back(job, reason, actor)
