"""The one place where a job, an attempt or an agent of a group changes state.

Pure: no clock, no input or output, no randomness but the generator passed in, no wire format, no logging. A driver
(`broker.engine`, `simulator.world`) calls `step` for each event of a batch, `take_effects` once, carries them out in
their order, and calls again at `next_deadline_us`. Same events, same times, same seed: same effects, byte for byte.

What a driver owes: times never go back; `TimerFired` is the last event of a batch; nothing is replied or sent before
the writes are durable; after a take the next step waits until that is known.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from broker.dispatch import groups, liveness, matching, operators, reasons, reports
from broker.dispatch.ledger import Ledger, Randomness
from broker.dispatch.messages import (
    AgentAdded,
    AgentConnected,
    AgentLeaving,
    AgentLeft,
    AgentsHeard,
    AttemptAccepted,
    AttemptFinished,
    AttemptProgressed,
    AttemptRejected,
    AttemptStarted,
    CancelRequested,
    CapacityStated,
    Effects,
    Event,
    HeldDecision,
    HeldResolved,
    JobAccepted,
    JobSubmitted,
    RequestDone,
    RequestRefused,
    SessionClosed,
    StopReason,
    TimerFired,
)
from broker.dispatch.model import (
    LIVE_PHASES,
    Agent,
    AgentNo,
    DispatchPolicy,
    GroupNo,
    Job,
    JobKey,
    JobState,
    Phase,
    job_key,
)
from broker.dispatch.projection import row_of
from broker.dispatch.queue import LabelSet
from broker.dispatch.rows import JobRow, KeyRow
from broker.dispatch.transitions import Cause

# Of members that are asked for several times a job: through its class each look-up costs 0.1 us up to Python 3.11.
_QUEUED: Final = JobState.QUEUED

_AGENT_REPORTS: Final[dict[type, Callable[[Ledger, Any], object]]] = {
    AttemptAccepted: reports.on_accepted,
    AttemptStarted: reports.on_started,
    AttemptRejected: reports.on_rejected,
    AttemptFinished: reports.on_finished,
    AttemptProgressed: reports.on_progressed,
    AgentConnected: liveness.on_connected,
    SessionClosed: liveness.on_closed,
    AgentLeft: liveness.on_left,
    AgentLeaving: liveness.on_leaving,
    CapacityStated: liveness.on_capacity,
}


class Dispatcher:
    """The dispatcher of one agent group. `random` seeds jitter and nothing else."""

    __slots__ = ("_active_us", "_handlers", "_has_active", "ledger")

    def __init__(self, group: GroupNo, policy: DispatchPolicy, epoch: int, random: Randomness) -> None:
        self.ledger = Ledger(group, policy, epoch, random)
        self._active_us = -1
        self._has_active: bool | None = None
        self._handlers: dict[type, Callable[[Any], None]] = {
            JobSubmitted: self._on_job_submitted,
            AgentAdded: self._on_agent_added,
            CancelRequested: self._on_cancel_requested,
            HeldResolved: self._on_held_resolved,
            AgentsHeard: partial(liveness.on_heard, self.ledger),
            TimerFired: self._on_timer_fired,
            **{kind: partial(handler, self.ledger) for kind, handler in operators.HANDLERS.items()},
            **{kind: partial(handler, self.ledger) for kind, handler in groups.HANDLERS.items()},
        }

    @property
    def epoch(self) -> int:
        """The epoch under which this dispatcher writes; it never changes."""
        return self.ledger.epoch

    def step(self, now_us: int, event: Event) -> None:
        """Work one event at engine time `now_us`; its effects gather until `take_effects`."""
        ledger = self.ledger
        assert now_us >= ledger.now_us, "engine time never goes back"
        ledger.now_us = now_us
        ledger.expiries_left = ledger.policy.expiries_step_max
        report = _AGENT_REPORTS.get(type(event))
        if type(event) is not JobSubmitted:
            self._has_active = None
        if report is None:
            self._handlers[type(event)](event)
        elif event.agent in ledger.agents:  # type: ignore[union-attr]  # every report names its agent
            report(ledger, event)
        elif type(event) is AgentConnected:
            ledger.effects.sends.append(liveness.removed(event))
        while ledger.unsettled:
            operators.settle(ledger, ledger.unsettled.popitem()[1])
        if ledger.placement.has_moved:
            ledger.placement.has_moved = False
            ledger.wants_places = None
        while ledger.wants_places is None or ledger.wants_places:
            matching.place(ledger)

    def take_effects(self) -> Effects:
        """All that the steps since the last take order. Lazy writes come only with others, or when they are due."""
        ledger = self.ledger
        if ledger.dirty:
            ledger.flush()
        effects, ledger.effects = ledger.effects, Effects()
        return effects

    def next_deadline_us(self) -> int | None:
        """When `TimerFired` is wanted next, at the latest; the time of the last step if more is due already."""
        ledger = self.ledger
        if ledger.is_unfinished or ledger.unsettled:  # the latter after a start only
            return ledger.now_us
        due_us = ledger.deadlines.next_us(ledger.now_us)
        if ledger.lazy:
            lazy_due_us = ledger.lazy_due_us
            due_us = lazy_due_us if due_us is None else min(due_us, lazy_due_us)
        if ledger.unoffered:
            over_us = min(ledger.unoffered.values()) + ledger.policy.unoffered_grace_us
            due_us = over_us if due_us is None else min(due_us, over_us)
        return due_us

    def durable_view(self) -> dict[JobKey, JobRow]:
        """The rows that a store holds once everything is committed: what recovery must give again (invariant 10)."""
        return {key: row_of(self.ledger.group, job) for key, job in self.ledger.jobs.items()}

    # --- submissions ------------------------------------------------------------------------------------------------

    def _on_job_submitted(self, event: JobSubmitted) -> None:
        ledger = self.ledger
        refused = self._known(event) or self._closed(event) or self._full(event)
        if refused is not None:
            ledger.effects.replies.append(refused)
            return
        label_set = ledger.queue.label_set(event.operation, event.labels)
        if label_set is None:
            self._refuse(event, reasons.LABEL_SETS_FULL, "the group has as many kinds of requirements as it may")
            return
        limit_key = event.limit_key or (event.operation if event.policy.running_max else "")
        lane = ledger.queue.lane(label_set, event.level, event.fairness, limit_key)
        if lane is None:
            self._refuse(event, reasons.LANES_FULL, "the group has as many fairness keys and priorities as it may")
            return
        now_us = ledger.now_us
        ledger.acceptance_no += 1
        start_us = now_us + event.delay_us
        job = Job(
            job_key(ledger.group, ledger.acceptance_no),
            event.job_id,
            lane,
            event.policy,
            event.digest,
            start_us,
            now_us,
            _QUEUED,
            event.environment_no,
            event.payload_bytes,
            start_us if event.delay_us else 0,
            start_us + event.schedule_to_start_us if event.schedule_to_start_us else 0,
            event.run_timeout_us,
            now_us + event.total_timeout_us if event.total_timeout_us else 0,
            event.requeued_from,
        )
        self._accept(event, job, label_set)

    def _accept(self, event: JobSubmitted, job: Job, label_set: LabelSet) -> None:
        ledger = self.ledger
        if not label_set.stored:
            ledger.know_label_set(label_set)
        if event.policy.no not in ledger.policies:
            ledger.know_policy(event.policy)
        ledger.jobs.add(job)
        label_set.live += 1
        ledger.fresh[job.job_id] = job
        ledger.queued_bytes += job.payload_bytes
        if event.idempotency_key:
            ledger.fresh_keys[event.idempotency_key] = job
            ledger.effects.writes.keys.append(
                KeyRow(
                    ledger.group,
                    event.idempotency_key,
                    job.key,
                    job.digest,
                    ledger.now_us + ledger.policy.keys_us,
                )
            )
        if event.body is not None:
            ledger.effects.writes.payloads[job.key] = event.body
        if event.delay_us:
            ledger.admit(job, JobState.SCHEDULED)
            ledger.arm_job(job)
        else:
            ledger.admit(job, _QUEUED)
            ledger.enqueue(job)
        ledger.effects.replies.append(JobAccepted(event.ticket, job.key))

    def _known(self, event: JobSubmitted) -> JobAccepted | RequestRefused | None:
        """The same submission again: its job, or a refusal if the content is another (promise P7)."""
        known = event.known
        if known is None:
            fresh = self.ledger.fresh.get(event.job_id)
            if fresh is None and event.idempotency_key:
                fresh = self.ledger.fresh_keys.get(event.idempotency_key)
            if fresh is None:
                return None
            key, digest = fresh.key, fresh.digest
        else:
            key, digest = known
        if digest == event.digest:
            return JobAccepted(event.ticket, key, duplicate=True)
        text = "this job id or idempotency key was used for other content; choose a new one"
        return RequestRefused(event.ticket, reasons.KEY_REUSED, text, key)

    def _closed(self, event: JobSubmitted) -> RequestRefused | None:
        """The group takes nothing: it is being removed, or it refuses work that no agent could start now."""
        ledger = self.ledger
        if ledger.is_removed:
            return RequestRefused(event.ticket, reasons.GROUP_GONE, "the group has been removed")
        if ledger.policy.refuses_inactive and not self._is_active():
            text = "no agent of the group is active, and it refuses jobs while that is so: try again when one is"
            return RequestRefused(event.ticket, reasons.NO_ACTIVE_AGENT, text)
        return None

    def _is_active(self) -> bool:
        """Whether an agent of the group is active; asked of all agents once between two other events."""
        if self._has_active is None:
            self._has_active = any(agent.is_active for agent in self.ledger.agents.values())
        return self._has_active

    def _full(self, event: JobSubmitted) -> RequestRefused | None:
        ledger, policy = self.ledger, self.ledger.policy
        if len(ledger.jobs) >= policy.queue_jobs_max:
            text = f"the group holds {policy.queue_jobs_max} live jobs, as many as it may"
            return RequestRefused(event.ticket, reasons.QUEUE_FULL, text)
        if ledger.queued_bytes + event.payload_bytes > policy.queue_bytes_max:
            text = f"payloads of the group's live jobs fill {policy.queue_bytes_max} bytes, as many as they may"
            return RequestRefused(event.ticket, reasons.QUEUE_BYTES_FULL, text)
        return None

    def _refuse(self, event: JobSubmitted | AgentAdded, reason: str, text: str) -> None:
        self.ledger.effects.replies.append(RequestRefused(event.ticket, reason, text))

    # --- agents and cancels -----------------------------------------------------------------------------------------

    def _on_agent_added(self, event: AgentAdded) -> None:
        ledger = self.ledger
        if ledger.is_removed:
            self._refuse(event, reasons.GROUP_GONE, "the group has been removed")
            return
        if event.agent not in ledger.agents:
            agent = ledger.agents[event.agent] = Agent(event.agent, event.agent_id, created_us=ledger.now_us)
            agent.rank, agent.operator_labels = event.rank, frozenset(event.labels)
            agent.relabel()
            ledger.write_agent(agent)
            if event.request is not None:
                ledger.effects.writes.requests.append(event.request)
        ledger.effects.replies.append(RequestDone(event.ticket))

    def _on_cancel_requested(self, event: CancelRequested) -> None:
        """Rows 11 and 20."""
        ledger = self.ledger
        job = ledger.jobs.get(event.job_key)
        if job is None:
            text = "the job is unknown or finished; finished is final"
            ledger.effects.replies.append(RequestRefused(event.ticket, reasons.JOB_FINAL, text))
            return
        job.cancel_requested = True
        ledger.cancelled_by.setdefault(job.key, event.actor)
        if job.phase not in LIVE_PHASES:
            ledger.leave_waiting(job)
            ledger.cancel(job, "cancelled", event.actor)
        elif job.phase in (Phase.SENT, Phase.ACCEPTED):
            ledger.stop(job, ledger.agents[job.agent], Cause.CANCEL, StopReason.REQUESTED)
        else:
            ledger.dirty[job.key] = job
        ledger.effects.replies.append(RequestDone(event.ticket, job.state))

    def _on_held_resolved(self, event: HeldResolved) -> None:
        """A person has looked at a held job: again, or an end of their choice."""
        ledger = self.ledger
        job = ledger.jobs.get(event.job_key)
        if job is None or job.state is not JobState.HELD:
            text = "the job is not held: there is nothing to decide"
            ledger.effects.replies.append(RequestRefused(event.ticket, reasons.JOB_NOT_HELD, text))
            return
        if event.decision == HeldDecision.RETRY:
            ledger.give_back(job, reasons.RESOLVED, event.actor)
        else:
            state = JobState.SUCCEEDED if event.decision == HeldDecision.SUCCEED else JobState.FAILED
            # Why is kept with who decided; of a success there is no failure to tell.
            is_good = state is JobState.SUCCEEDED
            job.code, job.message = ("", "") if is_good else (reasons.RESOLVED, event.comment or job.message)
            ledger.end(job, state, reasons.RESOLVED, event.actor)
            ledger.record(job, JobState.HELD, reasons.RESOLVED, event.actor)
        ledger.effects.replies.append(RequestDone(event.ticket, job.state))

    # --- time -------------------------------------------------------------------------------------------------------

    def _on_timer_fired(self, event: TimerFired) -> None:
        ledger = self.ledger
        ledger.is_unfinished = False
        self._active_us = -1
        if event.lag_us:
            self._forgive(event.lag_us)
        ledger.deadlines.advance(ledger.now_us, ledger.due_of)
        while ledger.expiries_left > 0:
            owner = ledger.deadlines.pop_due(ledger.now_us)
            if owner is None:
                break
            ledger.expiries_left -= 1
            if owner > 0:
                self._on_job_due(ledger.jobs[JobKey(owner)])
            else:
                agent = ledger.agents[AgentNo(-owner)]
                agent.due_us = 0
                if agent.admin_due_us and agent.admin_due_us <= ledger.now_us:
                    operators.on_due(ledger, agent)
                liveness.on_agent_due(ledger, agent)
        else:
            ledger.is_unfinished = True
        if ledger.is_removed:
            groups.go_on_removing(ledger)
        elif ledger.unoffered:
            matching.fail_unoffered(ledger)
        if ledger.lazy and ledger.lazy_due_us <= ledger.now_us:
            ledger.dirty, ledger.lazy = ledger.lazy | ledger.dirty, {}
        ledger.wants_places = None

    def stood_still(self, now_us: int, lag_us: int) -> None:
        """The driver has not stepped for so long: known before the events that waited meanwhile are worked."""
        ledger = self.ledger
        if 2 * lag_us >= ledger.policy.lease_us:  # who heard nothing from us for so long has left, or is about to
            ledger.shaken_until_us = now_us + ledger.policy.reconnect_grace_us

    def _forgive(self, lag_us: int) -> None:
        """A stall of ours is never a loss of theirs: what we could not hear counts as heard."""
        ledger = self.ledger
        for agent in ledger.agents.values():
            if agent.is_present:
                agent.heard_us = min(agent.heard_us + lag_us, ledger.now_us)
                for key, there_us in agent.sent.items():
                    agent.sent[key] = max(there_us, min(there_us + lag_us, ledger.now_us))
            elif agent.live and agent.closed_us < ledger.now_us:
                agent.away_until_us += lag_us
            elif not agent.stray_until_us:  # its end was worked in this turn: its work waits from now on, not longer
                for job in agent.live.values():
                    job.fence_us -= lag_us
            if agent.stray_until_us:
                agent.stray_until_us += lag_us
        ledger.stalled_us += lag_us
        self.stood_still(ledger.now_us, lag_us)

    def _on_job_due(self, job: Job) -> None:
        """A deadline of the job fired, perhaps early: see what its state asks for, and arm the next one."""
        ledger, now_us = self.ledger, self.ledger.now_us
        job.due_us = 0
        due_us = ledger.job_due_us(job)
        if not due_us or due_us > now_us:
            ledger.arm_job(job)
            return
        if job.phase is Phase.STOPPING:
            liveness.unconfirmed(ledger, job)
        elif job.phase in (Phase.SENT, Phase.ACCEPTED):
            is_total = bool(job.total_by_us) and job.total_by_us + ledger.policy.run_slack_us <= now_us
            reason = StopReason.TOTAL_TIMEOUT if is_total else StopReason.RUN_TIMEOUT
            ledger.stop(job, ledger.agents[job.agent], Cause.DEADLINE, reason)
        elif job.phase is not Phase.AWAY:
            self._expire_waiting(job)

    def _last_active_us(self) -> int:
        """Until when the group was active; asked of all agents once a timer."""
        if self._active_us < 0:
            self._active_us = self.ledger.last_active_us()
        return self._active_us

    def _expire_waiting(self, job: Job) -> None:
        """A job without a live attempt: its total deadline, its wait for the first start, or its start time."""
        ledger = self.ledger
        if job.total_by_us and job.total_by_us <= ledger.now_us:
            ledger.leave_waiting(job)
            job.code = reasons.DEADLINE_EXCEEDED
            ledger.end(job, JobState.FAILED, reasons.DEADLINE_EXCEEDED)
        elif job.state is JobState.SCHEDULED:
            ledger.move(job, _QUEUED, "due")
            ledger.enqueue(job)
        else:
            ledger.leave_waiting(job)
            is_inactive = self._last_active_us() <= job.order_us
            job.code = reasons.GROUP_INACTIVE if is_inactive else reasons.NOT_STARTED_IN_TIME
            ledger.end(job, JobState.FAILED, job.code)
