"""Sessions of agents: Hello, loss, silence, return (rows 6 to 10, 16, 19 and session rows c to i).

The end of a stream says nothing about the work: attempts become *away* and are taken away at the take-away time, for
repeatable jobs `closed + reconnect_grace`, for exclusive ones a full lease after the agent was last heard. What the
agent lists when it comes back in time goes on as if nothing had happened.
"""

from typing import Final

from broker.dispatch import reasons
from broker.dispatch.ledger import Ledger
from broker.dispatch.messages import (
    AgentConnected,
    AgentLeaving,
    AgentLeft,
    AgentsHeard,
    AttemptId,
    CancelAttempt,
    CapacityStated,
    DrainAgent,
    EndSession,
    FinishDrain,
    RejectAgent,
    SessionClosed,
    StopReason,
    WelcomeAgent,
)
from broker.dispatch.model import (
    NO_JOB,
    NO_SESSION,
    Admin,
    Agent,
    DrainEnd,
    DrainThen,
    Job,
    JobKey,
    JobState,
    Link,
    Phase,
)
from broker.dispatch.reports import confirm_stop, on_finished
from broker.dispatch.retry import Loss, after_bounce, after_loss
from broker.dispatch.transitions import Cause

# Of members that are asked for several times a job: through its class each look-up costs 0.1 us up to Python 3.11.
_SUSPECT: Final = Link.SUSPECT

STUCK: Final = "stuck"
"""Why an agent is noticed that does not confirm a stop: a person may want to look at it."""
REJECTED_RETRY_LEASES: Final = 3
"""After so many leases a disabled agent, or one that another process has taken over from, may ask again."""
QUARANTINED_MAX: Final = 8
"""Processes of one agent that are remembered as taken over from."""
_GIVEN_UP: Final = (StopReason.TOTAL_TIMEOUT, StopReason.DRAIN_KILL)


def on_connected(ledger: Ledger, event: AgentConnected) -> None:
    """Session rows c and d, in the order that the table fixes."""
    agent = ledger.agents[event.agent]
    is_same = agent.incarnation == event.incarnation
    refused = _refusal(ledger, agent, event)
    if refused is not None:
        ledger.effects.sends.append(refused)
        return
    if not is_same:
        # A process that was heard just now has not died of its work: there are two of this name.
        agent.was_taken_over = agent.is_present and agent.link is not _SUSPECT
        others = tuple(one for one in agent.quarantined if one != event.incarnation)
        agent.quarantined = (*others, agent.incarnation)[-QUARANTINED_MAX:] if agent.is_present else others
    if agent.is_present and agent.session != event.session:
        end = EndSession(agent.session, "superseded") if is_same else EndSession(agent.session, "taken_over")
        ledger.effects.sends.append(end)
    end_session(ledger, agent, ledger.policy.reconnect_grace_us)
    loss = _loss(agent)
    _begin_session(ledger, agent, event)
    for outcome in event.outcomes:
        on_finished(ledger, outcome)
    finished = set(event.finished)
    keep = tuple(_keeps(ledger, agent, held, is_finished=held in finished) for held in event.held)
    _miss(ledger, agent, set(event.held), is_same=is_same, loss=loss)
    ledger.effects.sends.append(WelcomeAgent(event.session, keep, ledger.policy.prefetch))
    _remind(ledger, agent)
    ledger.slot_freed(agent)
    ledger.arm_agent(agent)
    ledger.notice_agent(agent, "connected")


def _refusal(ledger: Ledger, agent: Agent, event: AgentConnected) -> RejectAgent | None:
    """Rows b and c, as far as they are the dispatcher's.

    The agent is removed, or disabled and with nothing to settle; a newer stream, or a newer process, is here.
    """
    if agent.admin is Admin.REMOVED:
        return removed(event)
    retry_us = REJECTED_RETRY_LEASES * ledger.policy.lease_us
    if agent.is_present and agent.session != event.session:
        if agent.incarnation == event.incarnation and event.connect_seq <= agent.connect_seq:
            return RejectAgent(event.session, "SUPERSEDED", "a newer stream of this agent is live; this one is older")
        if event.incarnation in agent.quarantined:
            text = "another process of this agent has taken over: two run under one name; end this one, or rename it"
            return RejectAgent(event.session, "QUARANTINED", text, retry_us)
    if agent.admin is Admin.DISABLED and not (agent.live or event.held or event.outcomes):
        text = "an operator has disabled this agent; it is let in when it is enabled again"
        return RejectAgent(event.session, "AGENT_DISABLED", text, retry_us)
    return None


def removed(event: AgentConnected) -> RejectAgent:
    """Row b: there is no such agent in the group any more."""
    text = "this agent is not in its group: it was removed; `mesh agents add` lets its name in again"
    return RejectAgent(event.session, "REMOVED", text)


def _loss(agent: Agent) -> Loss:
    """Whether the end of the agent's process is a crash: nobody had asked for it, and it is not we who were away."""
    is_unasked = bool(agent.closed_us) and agent.admin is Admin.ENABLED and not agent.is_leaving
    if not is_unasked:
        return Loss.ASKED
    return Loss.TAKEN_OVER if agent.was_taken_over else Loss.CRASHED


def _remind(ledger: Ledger, agent: Agent) -> None:
    """What operators said while the agent was away."""
    if agent.admin is Admin.DRAINING:
        left_us = max(1, agent.admin_due_us - ledger.now_us) if agent.admin_due_us else 0
        order = DrainAgent(
            agent.session, agent.drain_ends, agent.drain_then, left_us, agent.admin_actor, agent.admin_reason
        )
        ledger.effects.sends.append(order)
    elif agent.link is Link.STOPPED:
        ledger.effects.sends.append(FinishDrain(agent.session, DrainEnd.STOP))


def on_leaving(ledger: Ledger, event: AgentLeaving) -> None:
    """The agent drains itself (SIGTERM): nothing new in this session."""
    agent = ledger.agents[event.agent]
    if agent.session == event.session:
        agent.is_leaving = True
        ledger.placement.refresh(agent)
        ledger.notice_agent(agent, "leaving")


def _begin_session(ledger: Ledger, agent: Agent, event: AgentConnected) -> None:
    is_new = agent.incarnation != event.incarnation
    agent.session = event.session
    agent.incarnation = event.incarnation
    agent.connect_seq = event.connect_seq
    agent.heard_us = agent.connected_us = ledger.now_us
    is_stored = not is_new and agent.link in (Link.LIVE, _SUSPECT, Link.GONE)
    agent.link = Link.STOPPED if agent.link is Link.STOPPED and not is_new else Link.LIVE
    agent.slots = event.slots
    if is_new or event.capacity_seq >= agent.capacity_seq:
        agent.stated, agent.capacity_seq = event.capacity, event.capacity_seq
    agent.bound(ledger.policy.prefetch)
    agent.operations, agent.claims = event.operations, event.labels
    agent.relabel()
    agent.unfit = frozenset()
    agent.is_busy = agent.is_deaf = agent.is_leaving = False
    agent.detached.clear()
    ledger.placement.classify(agent)
    if not is_stored:
        ledger.write_agent(agent)


def _keeps(ledger: Ledger, agent: Agent, held: AttemptId, *, is_finished: bool) -> bool:
    """Row 7: whether an attempt that the agent lists goes on; else it is stopped and forgotten (row 18).

    One that was taken away and has finished is waited for also where nothing may run on, as long as for a stop.
    """
    job = ledger.jobs.get(held.job_key)
    if job is None or job.attempt != held.attempt or job.agent != agent.no:
        return False
    unwanted = ""
    if job.phase is Phase.ADOPTABLE:
        unwanted = _unwanted(agent)
        if unwanted and not is_finished:
            return False
        ledger.leave_waiting(job)
        ledger.crash_taken_back(job)
        ledger.hold(job, agent)
        ledger.dirty[job.key] = job
    elif job.phase is not Phase.AWAY:
        return job.phase is not Phase.NONE
    ledger.set_phase(job, Cause.LISTED, Phase.ACCEPTED)
    agent.sent.pop(job.key, None)
    if not job.started_us:
        job.started_us = ledger.now_us
    if job.state is not JobState.RUNNING:
        ledger.move(job, JobState.RUNNING, "adopted")
    if job.cancel_requested:
        ledger.stop(job, agent, Cause.CANCEL, StopReason.REQUESTED)
    elif job.total_by_us and job.total_by_us <= ledger.now_us:
        ledger.stop(job, agent, Cause.DEADLINE, StopReason.TOTAL_TIMEOUT)
    elif job.stop_reason:
        ledger.stop(job, agent, Cause.DEADLINE, job.stop_reason)
    elif unwanted:
        ledger.stop(job, agent, Cause.DEADLINE, unwanted)
    else:
        ledger.arm_job(job)
    return True


def _unwanted(agent: Agent) -> str:
    """Why an attempt that was taken away may not run on there: operators want the agent empty by now. Empty: it may."""
    if agent.admin is Admin.DRAINING:
        is_over = not agent.admin_due_us and agent.drain_then is not DrainThen.FINISH
        return StopReason.DRAIN_REQUEUE if is_over else ""
    return StopReason.DISABLED if agent.admin is Admin.DISABLED else ""


def _miss(ledger: Ledger, agent: Agent, listed: set[AttemptId], *, is_same: bool, loss: Loss) -> None:
    """Rows 8 and 9: what it should hold and does not name. An exclusive one stays away if the process is another."""
    strays: list[Job] = []
    for job in list(agent.live.values()):
        if job.phase is not Phase.AWAY or (job.key, job.attempt) in listed:
            continue
        if job.policy.exclusive and (agent.stray_until_us or not is_same):
            strays.append(job)
            job.is_taken_over = job.is_taken_over or loss is Loss.TAKEN_OVER
            agent.sent.pop(job.key, None)  # nobody waits for the acceptance of a process that is gone
            continue
        had_accepted = job.key not in agent.sent
        ledger.set_phase(job, Cause.NOT_LISTED if is_same else Cause.NEW_INCARNATION, Phase.NONE)
        ledger.release(job, agent)
        ended = reasons.TAKEN_OVER if loss is Loss.TAKEN_OVER else "incarnation_ended"
        ledger.close_attempt(job, "not_listed" if is_same else ended)
        if job.stop_reason and not job.cancel_requested:
            job.stop_reason = ""
        if not is_same:
            after_loss(ledger, job, agent, loss)
        elif had_accepted:
            after_bounce(ledger, job, "not_listed")
        else:
            ledger.give_back(job, "not_listed")
    if strays:
        agent.stray_until_us = min(ledger.fence_us(job) for job in strays)
        ledger.write_agent(agent)


def on_closed(ledger: Ledger, event: SessionClosed) -> None:
    """Session rows h and i: the end of another session than the current one changes nothing.

    One that ends right after we stood still is as after a start: the agent left us, and finds us when it asks again.
    """
    agent = ledger.agents[event.agent]
    if agent.session == event.session:
        policy = ledger.policy
        is_ours = ledger.now_us < ledger.shaken_until_us
        end_session(ledger, agent, policy.recovery_grace_us if is_ours else policy.reconnect_grace_us)
        _lose(ledger, agent, "closed")


def _lose(ledger: Ledger, agent: Agent, why: str) -> None:
    agent.was_taken_over = False
    ledger.deactivate(agent)
    if agent.link is not Link.STOPPED:
        agent.link = Link.GONE
    ledger.placement.refresh(agent)
    take_away_due(ledger, agent)
    ledger.arm_agent(agent)
    ledger.notice_agent(agent, why)


def end_session(ledger: Ledger, agent: Agent, grace_us: int) -> None:
    """Rows 6 and 16: what it holds is away, or, if it was to stop, settled. Detached attempts give their slot back.

    `grace_us` is how long repeatable work may come back.
    """
    if not agent.is_present:
        return
    agent.session = NO_SESSION
    agent.closed_us = ledger.now_us
    agent.culprit = _culprit(agent)
    agent.away_until_us = ledger.now_us + grace_us
    fence_us = max(agent.heard_us + ledger.policy.lease_us, agent.away_until_us)
    agent.detached.clear()
    ledger.placement.withdraw(agent)
    if agent.admin is not Admin.ENABLED:
        ledger.unsettled[agent.no] = agent
    for job in list(agent.live.values()):
        if job.phase is Phase.STOPPING and not job.policy.exclusive:
            ledger.release(job, agent)
            confirm_stop(ledger, job, Cause.SESSION_ENDED)
        elif job.phase is not Phase.AWAY:  # a stray of an earlier process is away already
            ledger.set_phase(job, Cause.SESSION_ENDED, Phase.AWAY)
            ledger.fence(job, fence_us)


def _culprit(agent: Agent) -> JobKey:
    """The only job that can crash the agent if it is crashing now: its only suspect, or the only one that runs."""
    if agent.suspects:
        return next(iter(agent.suspects)) if len(agent.suspects) == 1 else NO_JOB
    started = [key for key, job in agent.live.items() if job.started_us and job.phase is not Phase.AWAY]
    return started[0] if len(started) == 1 else NO_JOB


def take_away_due(ledger: Ledger, agent: Agent) -> None:
    """Row 10 for everything whose take-away time has come; what was never accepted goes at once, if repeatable."""
    now_us = ledger.now_us
    is_heard_of = agent.closed_us >= ledger.shaken_until_us  # else acceptances may have gone with the stream
    for job in list(agent.live.values()):
        if job.phase is not Phase.AWAY:
            continue
        due_us = ledger.take_away_us(job, agent)
        is_unaccepted = is_heard_of and job.key in agent.sent and not job.policy.exclusive
        if due_us > now_us and not is_unaccepted:
            continue
        if ledger.expiries_left <= 0:
            ledger.is_unfinished = True
            return
        ledger.expiries_left -= 1
        _take_away(ledger, agent, job)


def _take_away(ledger: Ledger, agent: Agent, job: Job) -> None:
    if job.stop_reason:  # row 16, exclusive: the stop is as good as confirmed once the lease is over
        ledger.release(job, agent)
        confirm_stop(ledger, job, Cause.TAKEN_AWAY)
        return
    ledger.set_phase(job, Cause.TAKEN_AWAY, Phase.ADOPTABLE)
    ledger.release(job, agent)
    ledger.close_attempt(job, "lost")
    after_loss(ledger, job, agent, Loss.TAKEN_OVER if job.is_taken_over else _loss(agent))


def on_left(ledger: Ledger, event: AgentLeft) -> None:
    """Row 19: a clean leave. What the broker still thought it held goes back, uncounted."""
    agent = ledger.agents[event.agent]
    if agent.session != event.session:
        return
    for job in list(agent.live.values()):
        if job.phase is Phase.AWAY:
            continue  # a stray: this process cannot speak for the one before it
        ledger.set_phase(job, Cause.GOODBYE, Phase.NONE)
        ledger.release(job, agent)
        ledger.close_attempt(job, "left")
        ledger.give_back(job, "agent_left")
    ledger.deactivate(agent)
    end_session(ledger, agent, ledger.policy.reconnect_grace_us)
    if agent.link is not Link.STOPPED:
        agent.link = Link.LEFT
    ledger.write_agent(agent)
    ledger.placement.refresh(agent)
    ledger.arm_agent(agent)
    ledger.notice_agent(agent, "left")


def on_heard(ledger: Ledger, event: AgentsHeard) -> None:
    """Session row e: contact. A suspect agent is trusted again."""
    for agent_no, session, at_us in event.heard:
        agent = ledger.agents.get(agent_no)
        if agent is None:
            continue
        if agent.session != session:
            _prolong(ledger, agent, at_us)
            continue
        agent.heard_us = max(agent.heard_us, at_us)
        if agent.link is _SUSPECT:
            agent.link = Link.LIVE
            ledger.slot_freed(agent)
            ledger.notice_agent(agent, "heard")


def _prolong(ledger: Ledger, agent: Agent, at_us: int) -> None:
    """A stream that we have ended was still heard, and that acknowledged: that process has a lease from then on."""
    for job in agent.live.values():
        if job.phase is Phase.AWAY and job.policy.exclusive:
            ledger.fence(job, max(ledger.fence_us(job), at_us + ledger.policy.lease_us))


def on_capacity(ledger: Ledger, event: CapacityStated) -> None:
    """A new capacity; an older statement is ignored, and lowering takes nothing back."""
    agent = ledger.agents[event.agent]
    if agent.session == event.session and event.seq > agent.capacity_seq:
        agent.stated, agent.capacity_seq = event.capacity, event.seq
        agent.bound(ledger.policy.prefetch)
        agent.is_busy = False
        ledger.slot_freed(agent)


def on_agent_due(ledger: Ledger, agent: Agent) -> None:
    """The agent's deadline fired: accept timeout (row 4), suspicion (f), silence (g) or take-away (row 10)."""
    now_us, policy = ledger.now_us, ledger.policy
    if agent.stray_until_us and agent.stray_until_us <= now_us:
        take_away_due(ledger, agent)
        fences = [ledger.fence_us(job) for job in agent.live.values() if job.phase is Phase.AWAY]
        agent.stray_until_us = min(fences, default=0)
    if not agent.is_present:
        take_away_due(ledger, agent)
    else:
        _time_out_accepts(ledger, agent)
        if agent.heard_us + policy.lease_us <= now_us:
            ledger.expiries_left -= len(agent.live)  # thousands may fall silent at once
            ledger.effects.sends.append(EndSession(agent.session, "silent"))
            end_session(ledger, agent, grace_us=0)
            _lose(ledger, agent, "silent")
        elif agent.link is Link.LIVE and agent.heard_us + policy.suspect_us <= now_us:
            ledger.deactivate(agent)
            agent.link = _SUSPECT
            ledger.placement.refresh(agent)
            ledger.notice_agent(agent, "silent")
    ledger.arm_agent(agent)


def _time_out_accepts(ledger: Ledger, agent: Agent) -> None:
    """Row 4: the agent is deaf until it reports on work; the job goes elsewhere, an exclusive one is stopped first."""
    until_us = ledger.now_us - ledger.policy.accept_timeout_us
    for key, there_us in list(agent.sent.items()):
        if there_us > until_us:
            break
        job = ledger.jobs[key]
        agent.is_deaf = True
        if job.policy.exclusive:
            job.bounces += 1
            ledger.stop(job, agent, Cause.ACCEPT_TIMEOUT, StopReason.ACCEPT_TIMEOUT)
            continue
        ledger.set_phase(job, Cause.ACCEPT_TIMEOUT, Phase.ADOPTABLE)
        ledger.detach(job, agent)
        ledger.close_attempt(job, "accept_timeout")
        ledger.effects.sends.append(
            CancelAttempt(agent.session, key, job.attempt, StopReason.ACCEPT_TIMEOUT, job.policy.cancel_grace_us)
        )
        after_bounce(ledger, job, "accept_timeout")
    ledger.placement.refresh(agent)


def unconfirmed(ledger: Ledger, job: Job) -> None:
    """Row 15: a stop that nobody confirmed, the session live: the job goes on without its attempt.

    The attempt stays adoptable: if it ends by itself after all, its outcome counts (row 13).
    """
    agent = ledger.agents[job.agent]
    ledger.notice_agent(agent, STUCK)
    ledger.detach(job, agent)
    if job.policy.exclusive and not job.cancel_requested and job.stop_reason not in _GIVEN_UP:
        before = job.state
        ledger.set_phase(job, Cause.STOP_UNCONFIRMED, Phase.ADOPTABLE)
        ledger.close_attempt(job, reasons.STOP_UNCONFIRMED, job.stop_reason)
        ledger.move(job, JobState.HELD, reasons.STOP_UNCONFIRMED)
        ledger.record(job, before, reasons.STOP_UNCONFIRMED)
        ledger.arm_job(job)
        return
    confirm_stop(ledger, job, Cause.STOP_UNCONFIRMED, Phase.ADOPTABLE)
