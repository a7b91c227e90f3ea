"""Where a job goes after an attempt that did not succeed: the three budgets, apart from each other.

*Failures* are what the operation reports as retryable; *crashes* are agents that died while they ran it (at the limit
it is dead only if the last two can have had no other reason: the innocent survive); *bounces* are placements that never
came to a run, or that were cut short because another process took the agent's name. Each has its own limit, at which
the job is `dead` with the limit's name.
"""

from enum import StrEnum
from typing import Final

from broker.dispatch import reasons
from broker.dispatch.ledger import Ledger
from broker.dispatch.model import Agent, Job, JobState, OnLoss


def after_failure(ledger: Ledger, job: Job, *, retryable: bool, reason: str) -> None:
    """A failed run (rows 5, 13, 14): again after a back-off, or the end. The attempt is closed already."""
    if not retryable:
        ledger.end(job, JobState.FAILED, reason)
        return
    job.failures += 1
    if job.cancel_requested:
        ledger.cancel(job, reason)
    elif job.failures >= job.policy.failures_max:
        give_up(ledger, job, reasons.ATTEMPTS_USED)
    else:
        back_off(ledger, job, reason)


def back_off(ledger: Ledger, job: Job, reason: str) -> None:
    """Schedule the next attempt: delays double, and the upper half of each is jitter. Its place is kept."""
    policy = job.policy
    delay_us = min(policy.backoff_first_us << (job.failures - 1), policy.backoff_max_us)
    job.not_before_us = ledger.now_us + delay_us // 2 + int(ledger.random.random() * (delay_us // 2))
    job.stop_reason, job.stop_by_us = "", 0
    ledger.move(job, JobState.SCHEDULED, reason)
    ledger.arm_job(job)


def after_bounce(ledger: Ledger, job: Job, reason: str) -> None:
    """A placement that came to nothing (rows 3, 4, 8): back, or dead when all are used unless cancelled."""
    job.bounces += 1
    if job.bounces >= job.policy.bounces_max and not job.cancel_requested:
        give_up(ledger, job, reasons.BOUNCES_USED)
    else:
        ledger.give_back(job, reason)


def give_up(ledger: Ledger, job: Job, reason: str) -> None:
    """A budget is used up: the job is a dead letter. It keeps the code of its latest failure, if it had one."""
    before = job.state
    if not job.code:
        job.code = reason
        job.message = _WHY_DEAD[reason]
    ledger.end(job, JobState.DEAD, reason)
    ledger.record(job, before, reason)


_WHY_DEAD: Final = {
    reasons.ATTEMPTS_USED: "its attempts failed",
    reasons.CRASHED_AGENTS: "agents ended while they ran it, the last of them with no other job to blame",
    reasons.BOUNCES_USED: "its placements came to nothing; its attempts say how each ended",
}

CRASHES_ALONE_MAX: Final = 2
"""Crashes in a row in which no other job can have been the reason, before a job is given up for its crashes."""


class Loss(StrEnum):
    """How an agent was lost: what counts against the jobs that it ran."""

    ASKED = "asked"
    """Somebody asked for it, or it is we who were away: nothing."""
    TAKEN_OVER = "taken_over"
    """Another process has its name now, while it was heard: no crash, but it may go on like this for ever."""
    CRASHED = "crashed"


def after_loss(ledger: Ledger, job: Job, agent: Agent, loss: Loss) -> None:
    """Its agent is lost (rows 9, 10): what the job type's `on_loss` says. The phase is closed or adoptable already."""
    before = job.state
    if loss is Loss.CRASHED and job.started_us:
        ledger.crashed(job, agent)
    elif loss is not Loss.ASKED:
        job.bounces += 1  # it may have started before anybody heard of it: without a count it could do so for ever
    if job.cancel_requested:
        ledger.give_back(job, reasons.AGENT_LOST)
    elif job.policy.on_loss is OnLoss.FAIL:
        job.code = reasons.AGENT_LOST
        ledger.end(job, JobState.FAILED, reasons.AGENT_LOST)
        ledger.record(job, before, reasons.AGENT_LOST)
    elif job.policy.on_loss is OnLoss.HOLD:
        ledger.move(job, JobState.HELD, reasons.AGENT_LOST)
        ledger.record(job, before, reasons.AGENT_LOST)
        ledger.arm_job(job)
    elif job.crashes >= job.policy.crashes_max and job.crashes_alone >= min(CRASHES_ALONE_MAX, job.policy.crashes_max):
        give_up(ledger, job, reasons.CRASHED_AGENTS)
    elif job.bounces >= job.policy.bounces_max:
        give_up(ledger, job, reasons.BOUNCES_USED)
    else:
        ledger.give_back(job, reasons.AGENT_LOST)
