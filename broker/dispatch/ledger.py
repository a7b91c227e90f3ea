"""Everything one group's dispatcher knows, and the few moves that change it.

Every change of a job's state goes through `move`, every change of an attempt's phase through `set_phase`, both held to
the tables in `transitions`. What a step changes is collected: jobs that must be written (`dirty`), jobs whose change
may wait for the next commit (`lazy`), replies, sends and notices. The modules beside this one decide; this one keeps
the books, so that every index agrees with the jobs and agents it is derived from (invariant 11).
"""

from typing import Final, Protocol

from broker.dispatch import reasons
from broker.dispatch.deadlines import Deadlines
from broker.dispatch.messages import (
    AgentNoticed,
    AssignJob,
    CancelAttempt,
    Effects,
    Transition,
)
from broker.dispatch.model import (
    FINAL_STATES,
    SECOND_US,
    WAY_BYTES_S,
    Admin,
    Agent,
    AgentNo,
    DispatchPolicy,
    GroupNo,
    Job,
    JobKey,
    JobState,
    Link,
    OperationPolicy,
    Phase,
)
from broker.dispatch.placing import placement_of
from broker.dispatch.projection import row_of, update_of
from broker.dispatch.queue import LabelSet, Queue
from broker.dispatch.rows import AgentRow, AttemptRow, LabelSetRow, TransitionRow
from broker.dispatch.table import JobTable
from broker.dispatch.transitions import ATTEMPT_MOVES, JOB_MOVES, Cause

# Of members that are asked for several times a job: through its class each look-up costs 0.1 us up to Python 3.11.
_SCHEDULED: Final = JobState.SCHEDULED
_QUEUED: Final = JobState.QUEUED
_ASSIGNED: Final = JobState.ASSIGNED
_NONE: Final = Phase.NONE
_SENT: Final = Phase.SENT
_ACCEPTED: Final = Phase.ACCEPTED
_STOPPING: Final = Phase.STOPPING
_ADOPTABLE: Final = Phase.ADOPTABLE
_PLACED: Final = Cause.PLACED
_ENABLED: Final = Admin.ENABLED
_LIVE: Final = Link.LIVE

PLACED: Final = "placed"
LAZY_ROWS_MAX: Final = 1_024
"""So many changes that may wait do not wait for more: one write of all of them would be a long step."""
SUSPECT_CRASHES: Final = 2
"""From how many crashes on a job is a suspect (ADR 0007: a single loss is no suspicion)."""


class Randomness(Protocol):
    """Where jitter comes from: a seeded generator that the driver passes in."""

    def random(self) -> float:
        """A number in [0, 1)."""


class Ledger:
    """The books of one group. `now_us` is the time of the step that runs."""

    __slots__ = (
        "_assigned_no",
        "acceptance_no",
        "agents",
        "cancelled_by",
        "checkpoints",
        "deadlines",
        "dirty",
        "effects",
        "ending",
        "epoch",
        "expiries_left",
        "freed_limits",
        "fresh",
        "fresh_keys",
        "group",
        "is_removed",
        "is_unfinished",
        "jobs",
        "lazy",
        "lazy_since_us",
        "now_us",
        "placement",
        "policies",
        "policy",
        "queue",
        "queued_bytes",
        "random",
        "recovering_until_us",
        "removed_by",
        "removed_to",
        "running",
        "shaken_until_us",
        "stalled_us",
        "unoffered",
        "unsettled",
        "untold",
        "wants_places",
    )

    def __init__(self, group: GroupNo, policy: DispatchPolicy, epoch: int, random: Randomness) -> None:
        assert policy.expiries_step_max > 1, "a step must be able to do more than to find out that it is full"
        self.group = group
        self.policy = policy
        self.epoch = epoch
        self.random = random
        self.now_us = 0
        self.acceptance_no = 0
        self._assigned_no = 0
        self.jobs = JobTable()
        self.agents: dict[AgentNo, Agent] = {}
        self.queue = Queue(policy)
        self.placement = placement_of(policy, self.agents, random)
        self.deadlines = Deadlines(self._is_armed)
        self.policies: dict[int, OperationPolicy] = {}
        self.effects = Effects()
        self.dirty: dict[JobKey, Job] = {}
        self.lazy: dict[JobKey, Job] = {}
        self.lazy_since_us = 0
        self.untold: list[Transition] = []  # of jobs in `lazy`
        self.checkpoints: dict[JobKey, object] = {}  # ride with the lazy writes
        self.fresh: dict[bytes, Job] = {}  # accepted since the last take: the store does not know them yet
        self.fresh_keys: dict[str, Job] = {}
        self.cancelled_by: dict[JobKey, str] = {}  # who asked, of jobs whose attempt has to end first
        self.queued_bytes = 0  # payloads of all live jobs
        self.running: dict[str, set[JobKey]] = {}  # jobs with a live attempt, by limit key
        self.freed_limits: dict[str, int] = {}  # how many of a limit ended since places were last looked for
        self.is_unfinished = False
        self.expiries_left = 0
        self.wants_places: dict[int, LabelSet] | None = {}  # None: a slot became free, all that wait may be placed
        self.unoffered: dict[int, int] = {}  # label set: since when no agent that is there offers it
        self.unsettled: dict[AgentNo, Agent] = {}  # operators want something of them: look at the end of the step
        self.recovering_until_us = 0
        self.ending: set[AgentNo] = set()  # operators ended their work, and a step was too short for all of it
        self.stalled_us = 0  # how long we have stood still since the start: fences move by it
        self.shaken_until_us = 0  # streams that end until then may have ended because we stood still
        self.is_removed = False
        self.removed_by = ""
        self.removed_to = 0  # the newest job that the removal has looked at

    # --- states and phases ------------------------------------------------------------------------------------------

    def move(self, job: Job, to: JobState, reason: str, actor: str = "") -> None:
        """Change the state of a job, tell it, and have it written. A final job leaves the books."""
        assert to in JOB_MOVES[job.state], f"job {job.key}: {job.state} -> {to} ({reason})"
        if self.untold:
            self._tell()
        self.effects.notices.append(
            Transition(
                self.group,
                job.key,
                job.attempt,
                self.now_us,
                job.state,
                to,
                reason,
                job.agent,
                actor,
                job.accepted_us,
                job.order_us,
                job.started_us,
            )
        )
        job.state = to
        self.dirty[job.key] = job
        if to in FINAL_STATES:
            self._forget(job)

    def move_lazily(self, job: Job, to: JobState, reason: str) -> None:
        """The same for a change that nobody waits for: it is written and told with the next commit."""
        assert to in JOB_MOVES[job.state], f"job {job.key}: {job.state} -> {to} ({reason})"
        self.untold.append(
            Transition(
                self.group,
                job.key,
                job.attempt,
                self.now_us,
                job.state,
                to,
                reason,
                job.agent,
                "",
                job.accepted_us,
                job.order_us,
                job.started_us,
            )
        )
        job.state = to
        self.touch(job)

    def _tell(self) -> None:
        """What was told late comes before what follows it; all of it is in this batch, and so in its commit."""
        self.effects.notices += self.untold
        self.untold = []

    def admit(self, job: Job, state: JobState) -> None:
        """Tell that a new job is accepted, and have it written."""
        job.state = state
        at_us = self.now_us
        self.effects.notices.append(
            Transition(self.group, job.key, 0, at_us, None, state, "accepted", job.agent, "", at_us, job.order_us)
        )
        self.dirty[job.key] = job

    def _forget(self, job: Job) -> None:
        job.finished_us = self.now_us
        if job.phase is _ADOPTABLE:
            job.phase = _NONE  # row 20: nothing of a final job is adopted
        assert job.phase is _NONE, f"job {job.key} ended with a live attempt"
        if job.due_us:
            due_us, job.due_us = job.due_us, 0
            self.deadlines.disarm(job.key, due_us)
        del self.jobs[job.key]
        if self.cancelled_by:
            self.cancelled_by.pop(job.key, None)
        job.lane.level.label_set.live -= 1
        self.queued_bytes -= job.payload_bytes

    def record(self, job: Job, from_state: str, reason: str, actor: str = "") -> None:
        """Write a transition whose facts are not columns of the job."""
        self.effects.writes.transitions.append(
            TransitionRow(
                self.group, job.key, job.attempt, self.now_us, from_state, job.state, reason, job.agent, actor
            )
        )

    def set_phase(self, job: Job, cause: Cause, to: Phase) -> None:
        """Change what is known of the latest attempt, along a row of the table."""
        assert to in ATTEMPT_MOVES[job.phase, cause], f"job {job.key}: {job.phase} -> {to} ({cause})"
        job.phase = to

    @property
    def is_over(self) -> bool:
        """Whether the group was removed, and all that it had has ended."""
        return self.is_removed and not self.jobs and not self.agents

    @property
    def lazy_due_us(self) -> int:
        """When what may wait is written at the latest: after a while, or now if that makes a batch."""
        is_batch = len(self.lazy) >= LAZY_ROWS_MAX
        return self.now_us if is_batch else self.lazy_since_us + self.policy.lazy_write_us

    def touch(self, job: Job) -> None:
        """Have the job written with the next commit, whenever that is."""
        if not self.lazy:
            self.lazy_since_us = self.now_us
        self.lazy[job.key] = job

    # --- attempts ---------------------------------------------------------------------------------------------------

    def assign(self, job: Job, agent: Agent) -> None:
        """Row 1: make the next attempt of the job that heads its queue, on this agent."""
        now_us = self.now_us
        self.queue.take(job)
        self.set_phase(job, _PLACED, _SENT)
        job.attempt += 1
        job.agent = agent.no
        job.assigned_us = now_us
        job.started_us = 0
        job.loss_counted = job.is_taken_over = False
        self._assigned_no += 1
        agent.last_assigned_no = self._assigned_no
        agent.live[job.key] = job
        if job.is_suspect or job.lane.limit_key:
            self._note_held(job, agent)
        agent.sent[job.key] = max(self._there_us(job), next(reversed(agent.sent.values()), 0))
        self.placement.refresh(agent)
        if not agent.due_us or agent.due_us > now_us + self.policy.accept_timeout_us:
            self.arm_agent(agent)
        self.move(job, _ASSIGNED, PLACED)
        self.effects.sends.append(
            AssignJob(
                agent.session,
                job.key,
                job.attempt,
                job.job_id,
                job.lane.level.label_set.operation,
                job.run_timeout_us,
                job.total_by_us,
                job.policy.exclusive,
                job.policy.on_loss,
            )
        )

    def hold(self, job: Job, agent: Agent) -> None:
        """The agent holds the job's attempt from now on."""
        agent.live[job.key] = job
        if job.is_suspect or job.lane.limit_key:
            self._note_held(job, agent)

    def _note_held(self, job: Job, agent: Agent) -> None:
        if job.is_suspect:
            agent.suspects.add(job.key)
        if job.lane.limit_key:
            self.running.setdefault(job.lane.limit_key, set()).add(job.key)

    def _let_go(self, job: Job, agent: Agent) -> None:
        del agent.live[job.key]
        self.waits_no_more(job, agent)
        if agent.suspects or job.lane.limit_key:
            self._note_free(job, agent)

    def waits_no_more(self, job: Job, agent: Agent, *, is_taken: bool = False) -> None:
        """Nobody waits for its acceptance any more. What comes behind it on the wire may be as late as it might have
        been, and is on its way only now if the agent has taken it.
        """
        sent = agent.sent
        if job.key not in sent:
            return
        is_first = next(iter(sent)) == job.key
        at_us = sent.pop(job.key)
        if is_first and sent:
            following = next(iter(sent))
            there_us = self._there_us(self.jobs[following]) if is_taken else 0
            sent[following] = max(sent[following], at_us, there_us)

    def _there_us(self, job: Job) -> int:
        """When a job that is sent now has arrived, at the latest: its payload may take its time, and nobody is deaf."""
        return self.now_us + job.payload_bytes * SECOND_US // WAY_BYTES_S

    def _note_free(self, job: Job, agent: Agent) -> None:
        agent.suspects.discard(job.key)
        limit = job.lane.limit_key
        if limit:
            self.running[limit].discard(job.key)
            if not self.running[limit]:
                del self.running[limit]
            self.limit_freed(limit)

    def limit_freed(self, limit: str) -> None:
        """One job fewer runs, or waits in service, under this limit: what it holds back is looked at again."""
        self.freed_limits[limit] = self.freed_limits.get(limit, 0) + 1
        self.wants_places = None

    def release(self, job: Job, agent: Agent) -> None:
        """The attempt no longer occupies its agent."""
        del agent.live[job.key]
        self.waits_no_more(job, agent)
        if agent.suspects or job.lane.limit_key:
            self._note_free(job, agent)
        self.slot_freed(agent)

    def detach(self, job: Job, agent: Agent) -> None:
        """The job moves on, the slot stays taken until the agent reports or its session ends."""
        self._let_go(job, agent)
        agent.detached[job.key, job.attempt] = None

    def slot_freed(self, agent: Agent) -> None:
        """An agent may have room now: look at all that waits at the end of the step."""
        if agent.admin is not _ENABLED:
            self.unsettled[agent.no] = agent
        self.placement.refresh(agent)
        self.wants_places = None

    def close_attempt(self, job: Job, ending: str, code: str = "") -> None:
        """Write the row of an attempt that ended badly or was not the first."""
        self.effects.writes.attempts.append(
            AttemptRow(job.key, job.attempt, job.agent, job.assigned_us, job.started_us, self.now_us, ending, code)
        )

    def stop(self, job: Job, agent: Agent, cause: Cause, reason: str) -> None:
        """Rows 11 and 12: tell the agent to stop the attempt; the slot is kept until it confirms."""
        self.set_phase(job, cause, _STOPPING)
        self.waits_no_more(job, agent)
        job.stop_reason = reason
        grace_us = job.policy.cancel_grace_us
        job.stop_by_us = self.now_us + grace_us + self.policy.stop_slack_us
        self.dirty[job.key] = job
        self.arm_job(job)
        self.effects.sends.append(CancelAttempt(agent.session, job.key, job.attempt, reason, grace_us))

    def crashed(self, job: Job, agent: Agent) -> None:
        """Count the crash of its agent; from the second on the job is a suspect. The attempt must be closed."""
        job.crashes += 1
        job.crashes_alone = job.crashes_alone + 1 if agent.culprit == job.key else 0
        job.is_suspect = job.crashes >= SUSPECT_CRASHES
        job.loss_counted = True

    def crash_taken_back(self, job: Job) -> None:
        """Its agent came back with it: there was no crash. The attempt must not be held yet."""
        if job.loss_counted:
            job.crashes -= 1
            job.crashes_alone = max(0, job.crashes_alone - 1)
            job.is_suspect = job.crashes >= SUSPECT_CRASHES
            job.loss_counted = False

    def limit_reached(self, job: Job) -> bool:
        """Whether as many jobs of its limit run as may."""
        running = self.running.get(job.lane.limit_key)
        return bool(job.policy.running_max) and running is not None and len(running) >= job.policy.running_max

    # --- the way back -----------------------------------------------------------------------------------------------

    def give_back(self, job: Job, reason: str, actor: str = "") -> None:
        """*Back*: cancelled if that was asked for, failed if its time is over, else queued at its old place."""
        before = job.state
        if job.cancel_requested:
            self.cancel(job, reason)  # whoever ended its attempt did not ask for that
            return
        if job.total_by_us and job.total_by_us <= self.now_us:
            job.code = reasons.DEADLINE_EXCEEDED
            self.end(job, JobState.FAILED, reasons.DEADLINE_EXCEEDED, actor)
        else:
            job.stop_reason, job.stop_by_us = "", 0
            self.move(job, _QUEUED, reason, actor)
            self.enqueue(job)
        self.record(job, before, reason, actor)

    def enqueue(self, job: Job) -> None:
        """Put a queued job in its place and look for an agent at the end of the step."""
        self.queue.push(job)
        label_set = job.lane.level.label_set
        if self.wants_places is not None:
            self.wants_places[label_set.no] = label_set
        self.arm_job(job)

    def leave_waiting(self, job: Job) -> None:
        """Take a job out of the queue for something else than a placement."""
        if job.state is _QUEUED:
            self.queue.remove(job)
            if job.lane.limit_key:
                self.limit_freed(job.lane.limit_key)  # its lane may be the only one of the limit that was served

    def cancel(self, job: Job, reason: str, actor: str = "") -> None:
        """Make the job final as cancelled, by `actor`, or else by who had asked for it.

        In a group that is removed that is the reason, however the job's last attempt ended.
        """
        before = job.state
        if self.is_removed:
            reason = job.code = reasons.GROUP_REMOVED
            actor, job.message = self.removed_by, ""
        actor = actor or self.cancelled_by.get(job.key, "")
        self.end(job, JobState.CANCELLED, reason, actor)
        self.record(job, before, reason, actor)

    def end(self, job: Job, state: JobState, reason: str, actor: str = "") -> None:
        """Make the job final. Its attempt must be closed or adoptable."""
        job.stop_by_us = 0
        self.move(job, state, reason, actor)

    # --- deadlines --------------------------------------------------------------------------------------------------

    def _is_armed(self, owner: int, due_us: int) -> bool:
        if owner > 0:
            job = self.jobs.get(JobKey(owner))
            return job is not None and job.due_us == due_us
        agent = self.agents.get(AgentNo(-owner))
        return agent is not None and agent.due_us == due_us

    def due_of(self, owner: int) -> int:
        """The armed deadline of a job (its key) or an agent (minus its number)."""
        return self.jobs[JobKey(owner)].due_us if owner > 0 else self.agents[AgentNo(-owner)].due_us

    def arm_job(self, job: Job) -> None:
        """Arm the job's earliest deadline, if it is earlier than what is armed; a later one waits for that to fire."""
        due_us = self.job_due_us(job)
        if due_us and (not job.due_us or due_us < job.due_us):
            if job.due_us:
                old_us, job.due_us = job.due_us, 0
                self.deadlines.disarm(job.key, old_us)
            job.due_us = due_us
            self.deadlines.arm(job.key, due_us)

    def job_due_us(self, job: Job) -> int:
        """The earliest time at which something must happen to the job by itself; 0: none."""
        state = job.state
        total_us = job.total_by_us
        if state is _QUEUED:
            first_us = job.schedule_by_us if not job.attempt else 0
        elif state is _SCHEDULED:
            first_us = job.not_before_us
        elif job.phase is _STOPPING:
            return job.stop_by_us
        elif job.phase not in (_SENT, _ACCEPTED):
            first_us = 0  # held: its run is over, adoptable or not
        else:
            first_us = 0
            slack_us = self.policy.run_slack_us
            if job.started_us and job.run_timeout_us:
                first_us = job.started_us + job.run_timeout_us + slack_us
            if total_us:
                total_us += slack_us
        if first_us and total_us:
            return min(first_us, total_us)
        return first_us or total_us

    def fence(self, job: Job, due_us: int) -> None:
        """Fix when an exclusive attempt that is away now is taken away."""
        job.fence_us = due_us - self.stalled_us

    def fence_us(self, job: Job) -> int:
        """When an exclusive attempt that is away is taken away: what we stood still since then does not count."""
        return job.fence_us + self.stalled_us

    def take_away_us(self, job: Job, agent: Agent) -> int:
        """When an attempt that is away is taken away."""
        return self.fence_us(job) if job.policy.exclusive else agent.away_until_us

    def arm_agent(self, agent: Agent) -> None:
        """Arm the agent's earliest deadline, if it is earlier than what is armed."""
        due_us = self.agent_due_us(agent)
        if due_us and (not agent.due_us or due_us < agent.due_us):
            if agent.due_us:
                old_us, agent.due_us = agent.due_us, 0
                self.deadlines.disarm(-agent.no, old_us)
            agent.due_us = due_us
            self.deadlines.arm(-agent.no, due_us)

    def agent_due_us(self, agent: Agent) -> int:
        """When something must happen to the agent by itself: suspicion, loss, accept timeout, take-away. 0: nothing."""
        policy = self.policy
        if agent.is_present:
            wait_us = policy.suspect_us if agent.link is _LIVE else policy.lease_us
            due_us = agent.heard_us + wait_us
            if agent.sent:
                due_us = min(due_us, next(iter(agent.sent.values())) + policy.accept_timeout_us)
            if agent.stray_until_us:
                due_us = min(due_us, agent.stray_until_us)
        elif agent.live:
            due_us = min(self.take_away_us(job, agent) for job in agent.live.values())
        else:
            return agent.admin_due_us
        return min(due_us, agent.admin_due_us) if agent.admin_due_us else due_us

    # --- agents -----------------------------------------------------------------------------------------------------

    def deactivate(self, agent: Agent) -> None:
        """Call before the agent may stop being active: remember until when it was."""
        if agent.is_active:
            agent.active_until_us = self.now_us

    def last_active_us(self) -> int:
        """Until when the group was active: now if one of its agents is, 0 if none ever was."""
        last_us = 0
        for agent in self.agents.values():
            if agent.is_active:
                return self.now_us
            last_us = max(last_us, agent.active_until_us)
        return last_us

    def notice_agent(self, agent: Agent, why: str, actor: str = "") -> None:
        """Tell that something about an agent changed."""
        self.effects.notices.append(AgentNoticed(self.group, agent.no, self.now_us, agent.link, why, actor))

    def write_agent(self, agent: Agent) -> None:
        """Have the agent's row written."""
        self.effects.writes.agents.append(
            AgentRow(
                agent.no,
                self.group,
                agent.agent_id,
                agent.admin,
                agent.admin_us,
                agent.admin_actor,
                agent.admin_reason,
                agent.admin_due_us,
                agent.drain_ends,
                agent.drain_then,
                agent.link,
                agent.rank,
                agent.stray_until_us,
                agent.created_us,
                agent.connected_us,
                agent.incarnation,
                tuple(sorted(agent.operator_labels)),
            )
        )

    # --- writing ----------------------------------------------------------------------------------------------------

    def know_label_set(self, label_set: LabelSet) -> None:
        """Have a new label set written before the first job that uses it."""
        if not label_set.stored:
            label_set.stored = True
            self.effects.writes.label_sets.append(
                LabelSetRow(self.group, label_set.no, label_set.operation, tuple(sorted(label_set.labels)))
            )

    def know_policy(self, policy: OperationPolicy) -> None:
        """Have a new operation policy written before the first job that uses it."""
        if policy.no not in self.policies:
            self.policies[policy.no] = policy
            self.effects.writes.policies.append(policy)

    def flush(self) -> None:
        """Turn the jobs to be written into rows, each once however often it changed."""
        writes = self.effects.writes
        jobs = self.dirty
        if self.untold:
            self._tell()
        if self.lazy:
            jobs = self.lazy | jobs
            self.lazy = {}
        for job in jobs.values():
            if job.stored:
                writes.updates.append(update_of(job))
            else:
                writes.inserts.append(row_of(self.group, job))
                job.stored = True
        if self.checkpoints:
            writes.checkpoints.update(self.checkpoints)
            self.checkpoints = {}
        self.dirty = {}
        self.fresh.clear()
        self.fresh_keys.clear()
