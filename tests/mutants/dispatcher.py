"""Defects in the dispatcher."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from broker.dispatch import dispatcher, liveness, matching, operators, placement, recovery, reports, retry
from broker.dispatch.deadlines import Deadlines
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.ledger import Ledger
from broker.dispatch.messages import (
    AttemptFinished,
    AttemptId,
    CancelRequested,
    DrainRequested,
    EnableRequested,
    HeldResolved,
    JobSubmitted,
    RequestDone,
    SessionClosed,
    StopReason,
)
from broker.dispatch.model import LIVE_PHASES, Admin, Agent, Job, JobState, OnLoss, Phase
from broker.dispatch.placement import AgentClass, Placement
from broker.dispatch.queue import LabelSet, Queue
from broker.dispatch.retry import Loss
from tests.mutants import Mutant

Make = Callable[[Any], Any]


def _nothing(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments, **named: None


# --- sessions -------------------------------------------------------------------------------------------------------


def _any_close(on_closed: Callable[..., None]) -> Callable[..., None]:
    def stale(ledger: Ledger, event: SessionClosed) -> None:
        on_closed(ledger, replace(event, session=ledger.agents[event.agent].session))

    return stale


def _no_lease(fence: Callable[..., None]) -> Callable[..., None]:
    return lambda self, job, due_us: fence(self, job, self.now_us)


def _not_missed(miss: Callable[..., None]) -> Callable[..., None]:
    return lambda ledger, agent, listed, **named: None


def _forgets_the_cancel(keeps: Callable[..., bool]) -> Callable[..., bool]:
    """An attempt that was to be cancelled while its agent was away goes on when that is back."""

    def forgetful(ledger: Ledger, agent: Agent, held: AttemptId, *, is_finished: bool) -> bool:
        job = ledger.jobs.get(held.job_key)
        was_asked = job is not None and job.cancel_requested
        if job is not None:
            job.cancel_requested = False
        is_kept = keeps(ledger, agent, held, is_finished=is_finished)
        if job is not None:
            job.cancel_requested = was_asked
        return is_kept

    return forgetful


def _no_strays(miss: Callable[..., None]) -> Callable[..., None]:
    """What an earlier process ran is as lost as if it were repeatable."""

    def rash(ledger: Ledger, agent: Agent, listed: Any, **named: Any) -> None:
        kept = [(job, job.policy) for job in agent.live.values()]
        for job, policy in kept:
            job.policy = replace(policy, exclusive=False)
        miss(ledger, agent, listed, **named)
        for job, policy in kept:
            job.policy = policy

    return rash


def _forgotten(kept: int) -> int:
    """As a bound of what is kept from the end: nothing."""
    return -kept


# --- reports --------------------------------------------------------------------------------------------------------


def _of_any_attempt(on_finished: Callable[..., None]) -> Callable[..., None]:
    def loose(ledger: Ledger, event: AttemptFinished) -> None:
        job = ledger.jobs.get(event.job_key)
        is_old = job is not None and job.agent == event.agent and job.phase in LIVE_PHASES
        on_finished(ledger, replace(event, attempt=job.attempt) if job is not None and is_old else event)

    return loose


def _of_any_agent(on_finished: Callable[..., None]) -> Callable[..., None]:
    def loose(ledger: Ledger, event: AttemptFinished) -> None:
        job = ledger.jobs.get(event.job_key)
        if job is not None and job.attempt == event.attempt and job.phase in LIVE_PHASES:
            event = replace(event, agent=job.agent)
        on_finished(ledger, event)

    return loose


def _in_silence(refuse: Callable[..., None]) -> Callable[..., None]:
    def silent(ledger: Ledger, agent: Agent, job: Job | None, event: AttemptFinished) -> None:
        refuse(ledger, agent, job, event)
        ledger.effects.sends.pop()

    return silent


def _keeps_slot(refuse: Callable[..., None]) -> Callable[..., None]:
    def leaky(ledger: Ledger, agent: Agent, job: Job | None, event: AttemptFinished) -> None:
        was_detached = (event.job_key, event.attempt) in agent.detached
        refuse(ledger, agent, job, event)
        if was_detached:
            agent.detached[event.job_key, event.attempt] = None

    return leaky


# --- operators ------------------------------------------------------------------------------------------------------


def _kills(on_drain: Callable[..., None]) -> Callable[..., None]:
    def impatient(ledger: Ledger, event: DrainRequested) -> None:
        on_drain(ledger, event)
        agent = ledger.agents[event.agent]
        if agent.admin == "draining":
            operators._end_work(ledger, agent, StopReason.DRAIN_KILL)

    return impatient


def _without_end(end_work: Callable[..., None]) -> Callable[..., None]:
    def patient(ledger: Ledger, agent: Agent, reason: str) -> None:
        if agent.admin is not Admin.DRAINING:
            end_work(ledger, agent, reason)

    return patient


def _twice(handler: Callable[..., None]) -> Callable[..., None]:
    def double(self: Dispatcher, event: CancelRequested | HeldResolved) -> None:
        handler(self, event)
        self.ledger.effects.replies.append(self.ledger.effects.replies[-1])

    return double


def _unseen(on_enable: Callable[..., None]) -> Callable[..., None]:
    def quiet(ledger: Ledger, event: EnableRequested) -> None:
        waited = ledger.wants_places
        on_enable(ledger, event)
        agent = ledger.agents.get(event.agent)
        ledger.wants_places = waited
        if agent is not None:
            ledger.placement.withdraw(agent)

    return quiet


def _on_or_off(may_work: Callable[..., bool]) -> Callable[..., bool]:
    return lambda agent: agent.link == "live" and not (agent.is_busy or agent.is_deaf or agent.is_leaving)


def _forgets_to_write(set_admin: Callable[..., None]) -> Callable[..., None]:
    def unwritten(ledger: Ledger, *arguments: Any, **named: Any) -> None:
        set_admin(ledger, *arguments, **named)
        ledger.effects.writes.agents.pop()

    return unwritten


def _keeps_waiting_when_cancelled(handler: Callable[..., None]) -> Callable[..., None]:
    def half(self: Dispatcher, event: CancelRequested) -> None:
        job = self.ledger.jobs.get(event.job_key)
        if job is None or job.state is not JobState.QUEUED:
            handler(self, event)
            return
        self.ledger.effects.replies.append(RequestDone(event.ticket, job.state))

    return half


# --- the books ------------------------------------------------------------------------------------------------------


def _at_the_end(give_back: Callable[..., None]) -> Callable[..., None]:
    def rude(self: Ledger, job: Job, reason: str, actor: str = "") -> None:
        job.order_us = self.now_us
        give_back(self, job, reason, actor)

    return rude


def _quietly(slot_freed: Callable[..., None]) -> Callable[..., None]:
    def quiet(self: Ledger, agent: Agent) -> None:
        waited = self.wants_places
        slot_freed(self, agent)
        self.wants_places = waited

    return quiet


def _same_number(assign: Callable[..., None]) -> Callable[..., None]:
    def again(self: Ledger, job: Job, agent: Agent) -> None:
        if job.attempt == 1:
            job.attempt = 0
        assign(self, job, agent)

    return again


def _leaves_label_set(forget: Callable[..., None]) -> Callable[..., None]:
    def leaky(self: Ledger, job: Job) -> None:
        forget(self, job)
        job.lane.level.label_set.live += 1

    return leaky


def _leaves_limit(note_free: Callable[..., None]) -> Callable[..., None]:
    def leaky(self: Ledger, job: Job, agent: Agent) -> None:
        limit = job.lane.limit_key
        held = set(self.running.get(limit, ()))
        note_free(self, job, agent)
        if limit:
            self.running[limit] = held

    return leaky


def _misses_an_update(flush: Callable[..., None]) -> Callable[..., None]:
    def lossy(self: Ledger) -> None:
        flush(self)
        del self.effects.writes.updates[1:]

    return lossy


def _only_in_memory(handler: Callable[..., None]) -> Callable[..., None]:
    def unwritten(self: Dispatcher, event: CancelRequested) -> None:
        job = self.ledger.jobs.get(event.job_key)
        was_dirty = job is not None and job.key in self.ledger.dirty
        handler(self, event)
        if job is not None and job.key in self.ledger.jobs and not was_dirty:
            self.ledger.dirty.pop(job.key, None)

    return unwritten


def _by_identity(take_effects: Callable[..., Any]) -> Callable[..., Any]:
    """What hash order does to the order of effects: it is another one the next time."""

    def shuffled(self: Dispatcher) -> Any:
        effects = take_effects(self)
        effects.sends.sort(key=lambda send: hash((id(send) >> 4) * 2_654_435_761 % 2**32))
        return effects

    return shuffled


def _own_chance(back_off: Callable[..., None]) -> Callable[..., None]:
    def drawn(ledger: Ledger, job: Job, reason: str) -> None:
        kept, ledger.random = ledger.random, random.SystemRandom()
        back_off(ledger, job, reason)
        ledger.random = kept

    return drawn


def _unarmed(arm_job: Callable[..., None]) -> Callable[..., None]:
    def unarmed(self: Ledger, job: Job) -> None:
        if job.state is not JobState.SCHEDULED:
            arm_job(self, job)

    return unarmed


def _too_late(arm: Callable[..., None]) -> Callable[..., None]:
    return lambda self, owner, due_us: arm(self, owner, due_us + 3_000_000)


def _stays_with_its_agent(release: Callable[..., None]) -> Callable[..., None]:
    def kept(self: Ledger, job: Job, agent: Agent) -> None:
        release(self, job, agent)
        if job.phase is Phase.ADOPTABLE:
            agent.live[job.key] = job

    return kept


def _told_after_the_end(move: Callable[..., None]) -> Callable[..., None]:
    def late(self: Ledger, *arguments: Any, **named: Any) -> None:
        waits, self.untold = self.untold, []
        move(self, *arguments, **named)
        self.untold = waits

    return late


def _still_waits_to_be_written(flush: Callable[..., None]) -> Callable[..., None]:
    def forgetful(self: Ledger) -> None:
        changed_twice = {key: job for key, job in self.lazy.items() if key in self.dirty}
        flush(self)
        self.lazy = changed_twice

    return forgetful


# --- placement ------------------------------------------------------------------------------------------------------


def _by_operation(serves: Callable[..., bool]) -> Callable[..., bool]:
    return lambda self, label_set: label_set.operation in self.operations


def _most_loaded(load_key: Callable[..., int]) -> Callable[..., int]:
    def upside_down(agent: Agent) -> int:
        load = (1 << 32) - (agent.held << 20) // agent.slots
        return load << placement._LOAD_SHIFT | agent.last_assigned_no << placement._AGENT_BITS | agent.no

    return upside_down


def _one_more(refresh: Callable[..., None]) -> Callable[..., None]:
    def generous(self: Placement, agent: Agent) -> None:
        agent.capacity += 1
        refresh(self, agent)
        agent.capacity -= 1

    return generous


def _last_in_first_out(push: Callable[..., None]) -> Callable[..., None]:
    def jumps(self: Queue, job: Job) -> None:
        job.order_us -= 1_000_000 if job.attempt else 0
        push(self, job)

    return jumps


def _as_if_all_were_back(watch: Callable[..., None]) -> Callable[..., None]:
    """After a start of the broker agents that are not back yet count as if they offered nothing."""

    def hasty(ledger: Ledger, label_set: LabelSet) -> None:
        until_us, ledger.recovering_until_us = ledger.recovering_until_us, 0
        watch(ledger, label_set)
        ledger.recovering_until_us = until_us

    return hasty


# --- losses ---------------------------------------------------------------------------------------------------------


def _always_retries(after_loss: Callable[..., None]) -> Callable[..., None]:
    def stubborn(ledger: Ledger, job: Job, agent: Agent, loss: Loss) -> None:
        policy, job.policy = job.policy, replace(job.policy, on_loss=OnLoss.RETRY)
        after_loss(ledger, job, agent, loss)
        job.policy = policy

    return stubborn


def _lost_is_done(after_loss: Callable[..., None]) -> Callable[..., None]:
    def optimistic(ledger: Ledger, job: Job, *others: Any) -> None:
        ledger.end(job, JobState.SUCCEEDED, "done")

    return optimistic


def _uncounted(crashed: Callable[..., None]) -> Callable[..., None]:
    return lambda self, job, agent: None


def _unlimited(after_failure: Callable[..., None]) -> Callable[..., None]:
    def endless(ledger: Ledger, job: Job, *, retryable: bool, reason: str) -> None:
        job.failures = 0
        after_failure(ledger, job, retryable=retryable, reason=reason)

    return endless


# --- recovery -------------------------------------------------------------------------------------------------------


def _recovered_with(change: Callable[[Ledger, Job], None]) -> Make:
    def make(job_of: Callable[..., Job]) -> Callable[..., Job]:
        def wrong(ledger: Ledger, row: Any, policies: Any) -> Job:
            job = job_of(ledger, row, policies)
            change(ledger, job)
            return job

        return wrong

    return make


def _loses_place(ledger: Ledger, job: Job) -> None:
    job.order_us = ledger.now_us


def _loses_number(ledger: Ledger, job: Job) -> None:
    if job.state is JobState.QUEUED:
        job.attempt = 0


def _loses_cancel(ledger: Ledger, job: Job) -> None:
    job.cancel_requested = False


def _forgets_the_rank(agent_of: Callable[..., Agent]) -> Callable[..., Agent]:
    def wrong(ledger: Ledger, row: Any) -> Agent:
        agent = agent_of(ledger, row)
        agent.rank = 0
        return agent

    return wrong


def _from_the_wished_start(on_job_submitted: Callable[..., None]) -> Callable[..., None]:
    def wrong(self: Dispatcher, event: JobSubmitted) -> None:
        late_us = event.total_timeout_us and event.total_timeout_us + event.delay_us
        on_job_submitted(self, replace(event, total_timeout_us=late_us))

    return wrong


def _keeps_the_fresh(flush: Callable[[Ledger], None]) -> Callable[[Ledger], None]:
    def wrong(self: Ledger) -> None:
        fresh = dict(self.fresh)
        flush(self)
        self.fresh.update(fresh)

    return wrong


def _mutant(name: str, promise: str, what: str, owner: Any, member: Any, make: Make) -> Mutant:
    return Mutant(name, "dispatcher", promise, what, owner, member, make)


_REPORTS = dispatcher._AGENT_REPORTS
_OPERATORS = operators.HANDLERS

MUTANTS = (
    _mutant(
        "no-quarantine",
        "liveness",
        "two processes of one agent take the work from one another for ever",
        liveness,
        "QUARANTINED_MAX",
        _forgotten,
    ),
    _mutant(
        "stale-close",
        "liveness",
        "the end of an older stream ends the newer session",
        _REPORTS,
        SessionClosed,
        _any_close,
    ),
    _mutant(
        "no-lease", "P3", "exclusive work is placed anew before its agent's lease is over", Ledger, "fence", _no_lease
    ),
    _mutant("not-missed", "liveness", "what an agent no longer holds is not missed", liveness, "_miss", _not_missed),
    _mutant(
        "cancel-lost-on-return",
        "P2",
        "an attempt that was cancelled while its agent was away goes on when it is back",
        liveness,
        "_keeps",
        _forgets_the_cancel,
    ),
    _mutant("no-strays", "P3", "exclusive work of an earlier process is not waited for", liveness, "_miss", _no_strays),
    _mutant(
        "any-attempt",
        "inv08",
        "an outcome counts for the latest attempt, whichever it names",
        _REPORTS,
        AttemptFinished,
        _of_any_attempt,
    ),
    _mutant("any-agent", "P4", "an outcome counts from whoever reports it", _REPORTS, AttemptFinished, _of_any_agent),
    _mutant("silent-refusal", "inv08", "a refused outcome is not answered", reports, "_refuse", _in_silence),
    _mutant("leaked-slot", "inv11", "a late report does not give its slot back", reports, "_refuse", _keeps_slot),
    _mutant("drain-that-kills", "P6", "a drain ends what runs at once", _OPERATORS, DrainRequested, _kills),
    _mutant(
        "drain-without-end", "inv13", "the deadline of a drain stops nothing", operators, "_end_work", _without_end
    ),
    _mutant("double-reply", "inv08", "a cancel is answered twice", Dispatcher, "_on_cancel_requested", _twice),
    _mutant(
        "enabled-unseen", "inv11", "an enabled agent is not offered anything", _OPERATORS, EnableRequested, _unseen
    ),
    _mutant(
        "work-for-the-drained",
        "P5",
        "placement does not look at what operators said",
        placement,
        "may_work",
        _on_or_off,
    ),
    _mutant(
        "operator-unwritten", "P5", "what an operator says is not on disk", operators, "_set_admin", _forgets_to_write
    ),
    _mutant(
        "cancel-ignored",
        "P2",
        "a cancel of a waiting job is answered and not carried out",
        Dispatcher,
        "_on_cancel_requested",
        _keeps_waiting_when_cancelled,
    ),
    _mutant(
        "back-of-the-queue", "inv14", "returned work goes to the end of its queue", Ledger, "give_back", _at_the_end
    ),
    _mutant("front-of-the-queue", "inv14", "returned work overtakes", Queue, "push", _last_in_first_out),
    _mutant("lost-wake-up", "inv05", "a free slot does not wake what waits", Ledger, "slot_freed", _quietly),
    _mutant(
        "attempt-number-again", "inv03", "a second attempt has the number of the first", Ledger, "assign", _same_number
    ),
    _mutant("finished-stays", "inv11", "a label set counts finished jobs", Ledger, "_forget", _leaves_label_set),
    _mutant("limit-drifts", "inv11", "a limit keeps the token of what has ended", Ledger, "_note_free", _leaves_limit),
    _mutant("update-missed", "inv10", "of several changed jobs one is written", Ledger, "flush", _misses_an_update),
    _mutant(
        "cancel-in-memory", "inv10", "a cancel is not written", Dispatcher, "_on_cancel_requested", _only_in_memory
    ),
    _mutant(
        "hash-order",
        "inv09",
        "effects come in an order that is another one each time",
        Dispatcher,
        "take_effects",
        _by_identity,
    ),
    _mutant("own-chance", "inv09", "jitter comes from outside", retry, "back_off", _own_chance),
    _mutant(
        "taken-and-kept",
        "inv01",
        "what is taken away from an agent is placed anew and still in its hands",
        Ledger,
        "release",
        _stays_with_its_agent,
    ),
    _mutant(
        "told-after-the-end",
        "inv07",
        "a change that may wait is told after the job has ended",
        Ledger,
        "move",
        _told_after_the_end,
    ),
    _mutant(
        "lazily-kept",
        "inv12",
        "a job that changes twice in a batch still waits to be written, finished or not",
        Ledger,
        "flush",
        _still_waits_to_be_written,
    ),
    _mutant("unarmed", "inv06", "a start time is not armed", Ledger, "arm_job", _unarmed),
    _mutant("armed-late", "inv06", "deadlines are armed too late", Deadlines, "arm", _too_late),
    _mutant("labels-ignored", "inv04", "placement looks at operations alone", AgentClass, "serves", _by_operation),
    _mutant("most-loaded", "inv15", "the most loaded agent is chosen", placement, "load_key", _most_loaded),
    _mutant(
        "one-too-many", "inv02", "an agent is offered one more than it has room for", Placement, "refresh", _one_more
    ),
    _mutant(
        "unoffered-too-soon",
        "P1",
        "after a start of the broker jobs fail because their agents are not back yet",
        matching,
        "_watch_unoffered",
        _as_if_all_were_back,
    ),
    _mutant(
        "on-loss-ignored",
        "P3",
        "what is to be held or failed at a loss is tried again",
        liveness,
        "after_loss",
        _always_retries,
    ),
    _mutant("lost-is-done", "P4", "a job whose agent is lost has succeeded", liveness, "after_loss", _lost_is_done),
    _mutant(
        "crashes-uncounted", "liveness", "a job that kills its agents is never given up", Ledger, "crashed", _uncounted
    ),
    _mutant("failures-uncounted", "liveness", "what fails is tried for ever", reports, "after_failure", _unlimited),
    _mutant(
        "place-lost-at-start",
        "inv10",
        "recovered jobs go to the end of the queue",
        recovery,
        "_job_of",
        _recovered_with(_loses_place),
    ),
    _mutant(
        "number-lost-at-start",
        "inv10",
        "recovered jobs begin to count attempts anew",
        recovery,
        "_job_of",
        _recovered_with(_loses_number),
    ),
    _mutant(
        "cancel-lost-at-start",
        "inv10",
        "recovered jobs forget that they are to be cancelled",
        recovery,
        "_job_of",
        _recovered_with(_loses_cancel),
    ),
    _mutant(
        "total-from-start",
        "P1",
        "the total timeout counts from the wished start, not from the acceptance",
        Dispatcher,
        "_on_job_submitted",
        _from_the_wished_start,
    ),
    _mutant("fresh-for-ever", "inv12", "what is written is kept as if it were not", Ledger, "flush", _keeps_the_fresh),
    _mutant(
        "rank-lost-at-start",
        "inv10",
        "recovered agents forget the rank that operators gave them",
        recovery,
        "_agent_of",
        _forgets_the_rank,
    ),
)
