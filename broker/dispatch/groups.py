"""The group as a whole: its configuration while it works, and its end.

A removed group takes nothing more. Its agents are removed first, so that nothing runs or starts anew; then its jobs are
cancelled, newest last, a slice with each timer. Exclusive attempts of an agent that is gone are cancelled when its
lease is over, like those of every agent that is removed.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from broker.dispatch import reasons
from broker.dispatch.ledger import Ledger
from broker.dispatch.messages import (
    GroupConfigured,
    GroupRemoval,
    GroupRemoveRequested,
    RequestDone,
    SetPrefetch,
    StopReason,
)
from broker.dispatch.model import LIVE_PHASES, Admin, Job
from broker.dispatch.operators import remove
from broker.dispatch.placing import placed_anew


def on_configured(ledger: Ledger, event: GroupConfigured) -> None:
    """What agents hold stays, also above a capacity that is less now; what waits is looked at anew."""
    old = ledger.policy
    new = ledger.policy = replace(
        old,
        spread=event.spread,
        refuses_inactive=event.refuses_inactive,
        placing=event.placing,
        placing_choices=event.placing_choices,
        prefetch=event.prefetch,
        queue_jobs_max=event.queue_jobs_max or old.queue_jobs_max,
        queue_bytes_max=event.queue_bytes_max or old.queue_bytes_max,
    )
    if new.prefetch != old.prefetch:
        _tell_prefetch(ledger, new.prefetch)
    if (new.placing, new.placing_choices) == (old.placing, old.placing_choices):
        ledger.placement.configure(new)
    else:
        ledger.placement = placed_anew(ledger.placement, new, ledger.random)
    ledger.wants_places = None
    ledger.effects.replies.append(RequestDone(event.ticket))


def _tell_prefetch(ledger: Ledger, prefetch: float) -> None:
    """Less holds at once, more as soon as an agent has stated it; who is not here is told with its Welcome."""
    for agent in ledger.agents.values():
        agent.bound(prefetch)
        if agent.is_present:
            ledger.effects.sends.append(SetPrefetch(agent.session, prefetch))


def on_remove_requested(ledger: Ledger, event: GroupRemoveRequested) -> None:
    """The end begins; asked again, it goes on. The reply says how much there is to end."""
    ledger.is_removed = True
    ledger.removed_by = event.actor
    ledger.is_unfinished = True
    ledger.unoffered.clear()
    agents = sum(agent.admin is not Admin.REMOVED for agent in ledger.agents.values())
    ledger.effects.replies.append(GroupRemoval(event.ticket, len(ledger.jobs), agents))


HANDLERS: Final[Mapping[type, Callable[[Ledger, Any], None]]] = {
    GroupConfigured: on_configured,
    GroupRemoveRequested: on_remove_requested,
}


def go_on_removing(ledger: Ledger) -> None:
    """One slice of the end of a group, as far as the step may still expire entries."""
    for agent in list(ledger.agents.values()):
        if agent.admin is Admin.REMOVED:
            continue
        if ledger.expiries_left <= 0:
            ledger.is_unfinished = True
            return
        ledger.expiries_left -= 1
        for job in agent.live.values():
            _mark(ledger, job)
        remove(ledger, agent, ledger.removed_by, StopReason.GROUP_REMOVED)
    while keys := ledger.jobs.after(ledger.removed_to, max(0, ledger.expiries_left)):
        ledger.expiries_left -= len(keys)
        for key in keys:
            _cancel(ledger, ledger.jobs[key])
        ledger.removed_to = keys[-1]
    ledger.is_unfinished |= ledger.expiries_left <= 0


def _mark(ledger: Ledger, job: Job) -> None:
    job.cancel_requested = True
    job.code, job.message = reasons.GROUP_REMOVED, ""
    ledger.dirty[job.key] = job


def _cancel(ledger: Ledger, job: Job) -> None:
    _mark(ledger, job)
    if job.phase in LIVE_PHASES:
        return  # exclusive, of an agent that is gone: it ends with the agent's lease
    ledger.leave_waiting(job)
    ledger.cancel(job, reasons.GROUP_REMOVED)
