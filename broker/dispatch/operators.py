"""What operators do with agents: drain, pause, resume, disable, enable, remove (session rows j to o, rows 12 and 17).

`ALLOWED` is the one table of what may be done when; the API, the command line and the console ask it through
`allowed`. What an operator said is durable and outlives the agent's session and the broker: a drain's clock runs while
either is away.

Only what must stop is stopped. A drain never loses work (promise P6): what runs finishes, or is handed on or killed at
the deadline, as the operator chose. Nothing of this counts as a crash, a failure or a bounce.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final

from broker.dispatch import reasons
from broker.dispatch.ledger import Ledger
from broker.dispatch.liveness import end_session
from broker.dispatch.messages import (
    DisableRequested,
    DrainAgent,
    DrainCancelled,
    DrainRequested,
    EnableRequested,
    EndSession,
    FinishDrain,
    LabelsSet,
    RankSet,
    RemoveRequested,
    RequestDone,
    RequestRefused,
    ResumeRequested,
    StopReason,
    UndrainAgent,
)
from broker.dispatch.model import SECOND_US, Admin, Agent, DrainEnd, DrainThen, Link, Phase
from broker.dispatch.reports import confirm_stop
from broker.dispatch.transitions import Cause

DISABLE_NOW_US: Final = 1 * SECOND_US - SECOND_US // 10
"""How long an agent that is disabled at once has to confirm that it stopped: its stream ends within a second."""


class Action(StrEnum):
    """What an operator may want of an agent."""

    EDIT = "edit"
    REMOVE = "remove"
    DRAIN = "drain"
    CANCEL_DRAIN = "cancel_drain"
    RESUME = "resume"
    DISABLE = "disable"
    DISABLE_NOW = "disable_now"
    ENABLE = "enable"
    LOGS = "logs"
    RANK = "rank"
    LABELS = "labels"


Standing = tuple[Admin, bool]
"""What an action depends on: what operators said last, and whether the agent's process is connected and heard."""

_ADMINS: Final = (Admin.ENABLED, Admin.DRAINING, Admin.PAUSED, Admin.DISABLED)


def _any_of(*admins: Admin) -> frozenset[Standing]:
    return frozenset((admin, is_running) for admin in admins for is_running in (True, False))


_NOT_RUNNING: Final = frozenset((admin, False) for admin in _ADMINS)
_IDLE_BY_ORDER: Final = frozenset({(Admin.PAUSED, True), (Admin.DISABLED, True)})
_RUNNING: Final = frozenset((admin, True) for admin in _ADMINS)

ALLOWED: Final[Mapping[Action, frozenset[Standing]]] = {
    Action.EDIT: _NOT_RUNNING | _IDLE_BY_ORDER,
    Action.REMOVE: _NOT_RUNNING | _IDLE_BY_ORDER,
    Action.DRAIN: frozenset({(Admin.ENABLED, True), (Admin.DRAINING, True), (Admin.PAUSED, True)}),
    Action.CANCEL_DRAIN: _any_of(Admin.DRAINING),
    Action.RESUME: _any_of(Admin.PAUSED),
    Action.DISABLE: _any_of(Admin.ENABLED, Admin.DRAINING, Admin.PAUSED),
    Action.DISABLE_NOW: _any_of(*_ADMINS),
    Action.ENABLE: _any_of(Admin.DISABLED),
    Action.LOGS: _RUNNING - {(Admin.DISABLED, True)},
    Action.RANK: _any_of(*_ADMINS),
    Action.LABELS: _any_of(*_ADMINS),
}
INSTEAD: Final[Mapping[Action, str]] = {
    Action.EDIT: "only an agent that does not run can be edited: drain it to stop or disable it first",
    Action.REMOVE: "only an agent that does not run can be removed: drain it to stop or disable it first",
    Action.DRAIN: "only an agent that runs can be drained: it must be connected, and not be disabled",
    Action.CANCEL_DRAIN: "there is no drain to take back",
    Action.RESUME: "only an agent that is paused can be resumed",
    Action.DISABLE: "it is disabled already",
    Action.DISABLE_NOW: "it is removed",
    Action.ENABLE: "only an agent that is disabled can be enabled",
    Action.LOGS: "only an agent that runs can send its logs",
    Action.RANK: "it is removed",
    Action.LABELS: "it is removed",
}
"""What to say, or to do first, when an action is refused."""
_DRAIN_INSTEAD: Final = "; take its drain back instead"
_MEANT: Final[Mapping[tuple[Action, Admin], str]] = {
    (Action.RESUME, Admin.DISABLED): "; enable it instead",
    (Action.RESUME, Admin.DRAINING): _DRAIN_INSTEAD,
    (Action.ENABLE, Admin.PAUSED): "; resume it instead",
    (Action.ENABLE, Admin.DRAINING): _DRAIN_INSTEAD,
}
"""What was meant, where it is another action that ends this state."""


def is_running(agent: Agent) -> bool:
    """Whether its process is connected and heard."""
    return agent.is_present and agent.link is Link.LIVE


def allowed(action: Action, agent: Agent) -> bool:
    """Whether an operator may do this with the agent now."""
    return (agent.admin, is_running(agent)) in ALLOWED[action]


# --- what operators ask ---------------------------------------------------------------------------------------------


def on_drain(ledger: Ledger, event: DrainRequested) -> None:
    """Row j: nothing new from this step on; what runs is dealt with at the deadline, if there is one."""
    agent = _asked(ledger, event, Action.DRAIN)
    if agent is None:
        return
    if agent.admin is Admin.PAUSED and event.ends is not DrainEnd.STOP:
        _refuse(ledger, event, agent, "it is paused already: it can only be drained to stop")
        return
    then = event.then if event.deadline_us else DrainThen.FINISH  # nothing follows a deadline that never comes
    due_us = ledger.now_us + event.deadline_us if event.deadline_us else 0
    agent.drain_ends, agent.drain_then = event.ends, then
    _set_admin(ledger, agent, Admin.DRAINING, event.actor, event.reason, due_us)
    ledger.effects.sends.append(
        DrainAgent(agent.session, event.ends, then, event.deadline_us, event.actor, event.reason)
    )
    _done(ledger, event, agent)


def on_cancel_drain(ledger: Ledger, event: DrainCancelled) -> None:
    """Row m: work goes on; what the deadline stopped already stays stopped."""
    _take_back(ledger, event, Action.CANCEL_DRAIN)


def on_resume(ledger: Ledger, event: ResumeRequested) -> None:
    """Row m: the pause ends."""
    _take_back(ledger, event, Action.RESUME)


def _take_back(ledger: Ledger, event: DrainCancelled | ResumeRequested, action: Action) -> None:
    agent = _asked(ledger, event, action)
    if agent is None:
        return
    _set_admin(ledger, agent, Admin.ENABLED, event.actor)
    if agent.is_present:
        ledger.effects.sends.append(UndrainAgent(agent.session, event.actor))
    _done(ledger, event, agent)


def on_disable(ledger: Ledger, event: DisableRequested) -> None:
    """Row n: what runs finishes and counts, then the stream ends; `now`: it is stopped, the stream ends in a second."""
    agent = _asked(ledger, event, Action.DISABLE_NOW if event.now else Action.DISABLE)
    if agent is None:
        return
    due_us = ledger.now_us + DISABLE_NOW_US if event.now and agent.is_present else 0
    _set_admin(ledger, agent, Admin.DISABLED, event.actor, event.reason, due_us)
    if event.now:
        _end_work(ledger, agent, StopReason.DISABLED)
    _done(ledger, event, agent)


def on_enable(ledger: Ledger, event: EnableRequested) -> None:
    """Row n: the agent is let in at its next try, and given work again if it is still there."""
    agent = _asked(ledger, event, Action.ENABLE)
    if agent is None:
        return
    _set_admin(ledger, agent, Admin.ENABLED, event.actor)
    _done(ledger, event, agent)


def on_remove(ledger: Ledger, event: RemoveRequested) -> None:
    """Row o: the stream ends now; exclusive attempts stay with it until its lease is over, then it is forgotten."""
    agent = _asked(ledger, event, Action.REMOVE)
    if agent is None:
        return
    remove(ledger, agent, event.actor, StopReason.REMOVED)
    _done(ledger, event, agent)


def remove(ledger: Ledger, agent: Agent, actor: str, reason: str) -> None:
    """The same without asking whether that may be; `reason` is one of `StopReason`."""
    _set_admin(ledger, agent, Admin.REMOVED, actor)
    if agent.is_present:
        ledger.effects.sends.append(EndSession(agent.session, "removed"))
        end_session(ledger, agent, ledger.policy.reconnect_grace_us)
        agent.link = Link.LEFT
    _end_work(ledger, agent, reason)


def on_rank(ledger: Ledger, event: RankSet) -> None:
    """The agent's place where the group spreads by rank; what it holds stays."""
    agent = _asked(ledger, event, Action.RANK)
    if agent is None:
        return
    agent.rank = event.rank
    ledger.write_agent(agent)
    ledger.slot_freed(agent)
    _done(ledger, event, agent)


KINDS_FULL: Final = "the group has as many kinds of agents as it may: labels that other agents have too make no new one"
"""Why an agent cannot be given labels; its kind is its operations with its labels."""


def on_labels(ledger: Ledger, event: LabelsSet) -> None:
    """What the agent holds stays; what waits and asks for one of the labels is looked at anew."""
    agent = _asked(ledger, event, Action.LABELS)
    if agent is None:
        return
    before = (agent.operator_labels, agent.labels_us)
    agent.operator_labels, agent.labels_us = frozenset(event.labels), ledger.now_us
    agent.relabel()
    if (agent.is_present or agent.agent_class is not None) and not ledger.placement.classify(agent):
        agent.operator_labels, agent.labels_us = before
        agent.relabel()
        ledger.placement.classify(agent)
        ledger.placement.refresh(agent)
        _refuse(ledger, event, agent, KINDS_FULL)
        return
    ledger.write_agent(agent)
    ledger.slot_freed(agent)
    _done(ledger, event, agent)


_Asked = (
    DrainRequested
    | DrainCancelled
    | ResumeRequested
    | DisableRequested
    | EnableRequested
    | RemoveRequested
    | RankSet
    | LabelsSet
)

HANDLERS: Final[dict[type, Callable[[Ledger, Any], None]]] = {
    DrainRequested: on_drain,
    DrainCancelled: on_cancel_drain,
    ResumeRequested: on_resume,
    DisableRequested: on_disable,
    EnableRequested: on_enable,
    RemoveRequested: on_remove,
    RankSet: on_rank,
    LabelsSet: on_labels,
}


def _asked(ledger: Ledger, event: _Asked, action: Action) -> Agent | None:
    """The agent, if there is one and this may be done with it now; the refusal is replied else."""
    agent = ledger.agents.get(event.agent)
    if agent is None or agent.admin is Admin.REMOVED:
        text = "there is no such agent in this group"
        ledger.effects.replies.append(RequestRefused(event.ticket, reasons.AGENT_UNKNOWN, text))
        return None
    if not allowed(action, agent):
        _refuse(ledger, event, agent, INSTEAD[action] + _MEANT.get((action, agent.admin), ""))
        return None
    return agent


def _refuse(ledger: Ledger, event: _Asked, agent: Agent, text: str) -> None:
    said = "" if agent.admin is Admin.ENABLED else f"{agent.admin}, "
    words = f"agent {agent.agent_id} is {said}{'connected' if is_running(agent) else 'not connected'}: {text}"
    ledger.effects.replies.append(RequestRefused(event.ticket, reasons.AGENT_WRONG_STATE, words))


def _done(ledger: Ledger, event: _Asked, agent: Agent) -> None:
    ledger.effects.replies.append(RequestDone(event.ticket, agent.admin))


def _set_admin(ledger: Ledger, agent: Agent, admin: Admin, actor: str, reason: str = "", due_us: int = 0) -> None:
    """Change what operators said, have it written and told; who may be given work changes with it."""
    ledger.deactivate(agent)
    agent.admin, agent.admin_us = admin, ledger.now_us
    agent.admin_actor, agent.admin_reason = actor, reason
    agent.admin_due_us = due_us
    ledger.write_agent(agent)
    ledger.slot_freed(agent)
    ledger.arm_agent(agent)
    ledger.notice_agent(agent, admin, actor)


# --- what follows by itself -----------------------------------------------------------------------------------------


def on_due(ledger: Ledger, agent: Agent) -> None:
    """Row l: the deadline of the drain is over; or the second of an agent that was disabled at once."""
    agent.admin_due_us = 0
    is_begun = agent.no in ledger.ending
    ledger.ending.discard(agent.no)
    if agent.admin is Admin.REMOVED:
        _end_work(ledger, agent, StopReason.GROUP_REMOVED if ledger.is_removed else StopReason.REMOVED)
    elif agent.admin is Admin.DRAINING:
        if not is_begun:
            ledger.notice_agent(agent, "drain_overdue" if agent.drain_then is DrainThen.FINISH else "drain_deadline")
            ledger.write_agent(agent)
        if agent.drain_then is not DrainThen.FINISH:  # that is a time to be warned at, no more
            is_kill = agent.drain_then is DrainThen.KILL
            _end_work(ledger, agent, StopReason.DRAIN_KILL if is_kill else StopReason.DRAIN_REQUEUE)
    elif agent.admin is Admin.DISABLED:
        stream_us = agent.admin_us + DISABLE_NOW_US
        if is_begun and (not agent.is_present or stream_us > ledger.now_us):
            agent.admin_due_us = stream_us if agent.is_present else 0
            _end_work(ledger, agent, StopReason.DISABLED)
            ledger.arm_agent(agent)
        elif agent.is_present:
            _send_away(ledger, agent)


def _end_work(ledger: Ledger, agent: Agent, reason: str) -> None:
    """Rows 12 and 17 for all that it has: stop what runs, take away what is away, exclusive work at its lease's end."""
    is_removed = agent.admin is Admin.REMOVED
    for job in list(agent.live.values()):
        if job.phase is Phase.STOPPING or (job.phase is Phase.AWAY and job.policy.exclusive and job.stop_reason):
            continue
        if ledger.expiries_left <= 0:
            _go_on_later(ledger, agent)
            return
        ledger.expiries_left -= 1
        if job.phase in (Phase.SENT, Phase.ACCEPTED):
            ledger.stop(job, agent, Cause.DEADLINE, reason)
        elif job.policy.exclusive:
            job.stop_reason = reason
            ledger.dirty[job.key] = job
        elif job.stop_reason:
            ledger.release(job, agent)
            confirm_stop(ledger, job, Cause.TAKEN_AWAY)
        else:
            ledger.set_phase(job, Cause.TAKEN_AWAY, Phase.NONE if is_removed else Phase.ADOPTABLE)
            ledger.release(job, agent)
            ledger.close_attempt(job, reason)
            ledger.give_back(job, reason, agent.admin_actor)


def _go_on_later(ledger: Ledger, agent: Agent) -> None:
    """The step is full: `on_due` goes on with the agent's work at once, in the next one."""
    agent.admin_due_us = ledger.now_us
    ledger.ending.add(agent.no)
    ledger.write_agent(agent)
    ledger.arm_agent(agent)


def _send_away(ledger: Ledger, agent: Agent) -> None:
    """End the stream of a disabled agent. What it has not confirmed is as lost as it is with any stream that ends."""
    ledger.effects.sends.append(EndSession(agent.session, "disabled"))
    end_session(ledger, agent, ledger.policy.reconnect_grace_us)
    agent.link = Link.GONE  # its process did not leave: it asks again until it is enabled
    _end_work(ledger, agent, StopReason.DISABLED)
    ledger.write_agent(agent)
    ledger.arm_agent(agent)
    ledger.notice_agent(agent, "disabled")


def settle(ledger: Ledger, agent: Agent) -> None:
    """Row k and the ends of n and o: an agent that operators want something of holds nothing any more."""
    if agent.held or agent.admin in (Admin.ENABLED, Admin.PAUSED):
        return
    if agent.admin is Admin.REMOVED:
        _forget(ledger, agent)
    elif agent.admin is Admin.DRAINING:
        _finish_drain(ledger, agent)
    elif agent.is_present:
        _send_away(ledger, agent)


def _finish_drain(ledger: Ledger, agent: Agent) -> None:
    """Row k: to stop, the order is carried out and the next process is an ordinary one; to pause, it waits."""
    is_stop = agent.drain_ends is DrainEnd.STOP
    agent.admin = Admin.ENABLED if is_stop else Admin.PAUSED
    agent.admin_due_us = 0
    if is_stop:
        agent.link = Link.STOPPED
    if agent.is_present:
        ledger.effects.sends.append(FinishDrain(agent.session, agent.drain_ends))
    ledger.placement.refresh(agent)
    ledger.write_agent(agent)
    ledger.notice_agent(agent, "drained", agent.admin_actor)


def _forget(ledger: Ledger, agent: Agent) -> None:
    ledger.placement.forget(agent)
    if agent.due_us:
        due_us, agent.due_us = agent.due_us, 0
        ledger.deadlines.disarm(-agent.no, due_us)
    ledger.ending.discard(agent.no)
    del ledger.agents[agent.no]
