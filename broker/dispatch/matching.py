"""Waiting jobs and agents with room, brought together: at the end of each step in which one of them may be new.

Of the label sets that can be served the one whose head has waited longest is served first, over and over, until no
agent has room. A head that a limit, or the want of an agent without a suspect, holds back parks its lane.
"""

from heapq import heapify, heappop, heapreplace
from typing import Final

from broker.dispatch import reasons
from broker.dispatch.ledger import Ledger
from broker.dispatch.model import NO_AGENT, Job, JobState
from broker.dispatch.queue import SUSPECTS, LabelSet

Waiting = tuple[int, int, LabelSet, Job]
"""A label set with waiting jobs: the order of its head, its number, itself, its head."""
SUSPECT_PLACES: Final = 16
"""Looking for an agent without a suspect costs about as much as so many ordinary placements."""


def place(ledger: Ledger) -> None:
    """Give waiting jobs to agents with room: of the label sets that can be served, the oldest head first."""
    queue, placement = ledger.queue, ledger.placement
    wanted, ledger.wants_places = ledger.wants_places, {}
    if ledger.is_removed:
        return
    if wanted is None and (queue.parked or ledger.freed_limits):
        _wake_parked(ledger)
    if not queue.waiting:
        return
    heap: list[Waiting] = []
    for label_set in (queue.waiting if wanted is None else wanted).values():
        head = queue.head(label_set)
        if head is not None:
            heap.append((head.order_us + head.lane.level.handicap_us, label_set.no, label_set, head))
    if placement.free:
        if len(heap) > 1:
            heapify(heap)
        _fill(ledger, heap)
    for _, _, label_set, _ in heap:
        if ledger.unoffered or not placement.classes_for(label_set):
            _watch_unoffered(ledger, label_set)


def _fill(ledger: Ledger, heap: list[Waiting]) -> None:
    """Place heads until no agent has room; what is left in `heap` waits for one."""
    placement = ledger.placement
    places_left = ledger.policy.placements_step_max
    while heap and placement.free:
        _, _, label_set, job = heap[0]
        if (job.is_suspect or job.lane.limit_key) and _is_held_back(ledger, label_set, job):
            _next_head(ledger, heap, label_set)
            continue
        pick = placement.pick_without_suspect if job.is_suspect else placement.pick
        agent = pick(label_set, job.agent if job.attempt else NO_AGENT)
        if agent is None:
            heappop(heap)
            if ledger.unoffered or not label_set.classes:  # `pick` has just found its classes
                _watch_unoffered(ledger, label_set)
            continue
        if places_left <= 0:
            ledger.is_unfinished = True
            return
        places_left -= 1
        ledger.assign(job, agent)
        if job.is_suspect:
            places_left -= SUSPECT_PLACES
            ledger.queue.wake_in(job.lane.level, SUSPECTS, 1)
        if ledger.unoffered:
            ledger.unoffered.pop(label_set.no, None)
        _next_head(ledger, heap, label_set)


def _is_held_back(ledger: Ledger, label_set: LabelSet, job: Job) -> bool:
    """Whether a limit, or the want of an agent for itself, keeps this head waiting: then its lane is parked.

    Lanes of suspects wait for one another's turn, one of a level at a time: what one cannot use is the next one's.
    """
    queue = ledger.queue
    if job.lane.limit_key and ledger.limit_reached(job):
        queue.park(job, (job.lane.limit_key, job.policy.running_max))
        if job.is_suspect:
            queue.wake_in(job.lane.level, SUSPECTS, 1)
        return True
    if job.is_suspect and ledger.placement.pick_without_suspect(label_set, NO_AGENT) is None:
        unused = queue.park(job, SUSPECTS)
        if unused:
            ledger.limit_freed(unused)
        return True
    return False


def _next_head(ledger: Ledger, heap: list[Waiting], label_set: LabelSet) -> None:
    head = ledger.queue.head(label_set)
    if head is None:
        heappop(heap)
    else:
        heapreplace(heap, (head.order_us + head.lane.level.handicap_us, label_set.no, label_set, head))


def _wake_parked(ledger: Ledger) -> None:
    """Something ended or came: what it may have held back is looked at again."""
    ledger.queue.wake(SUSPECTS, 1)
    freed, ledger.freed_limits = ledger.freed_limits, {}
    for limit, ended in freed.items():
        ledger.queue.wake_limit(limit, ended)


def _watch_unoffered(ledger: Ledger, label_set: LabelSet) -> None:
    """Note since when no agent that is there offers the operation of jobs that wait.

    While agents may still be on their way back after a start of the broker, that says nothing.
    """
    if _is_unoffered(ledger, label_set):
        back_us = ledger.recovering_until_us - ledger.policy.unoffered_grace_us
        ledger.unoffered.setdefault(label_set.no, max(ledger.now_us, back_us))
    else:
        ledger.unoffered.pop(label_set.no, None)


def _is_unoffered(ledger: Ledger, label_set: LabelSet) -> bool:
    if ledger.placement.classes_for(label_set):
        return False
    present = [agent for agent in ledger.agents.values() if agent.is_present]
    return bool(present) and not any(label_set.operation in agent.operations for agent in present)


def fail_unoffered(ledger: Ledger) -> None:
    """Jobs of an operation that no agent of the active group has offered for a while fail, and say what is."""
    for no, since_us in list(ledger.unoffered.items()):
        if since_us + ledger.policy.unoffered_grace_us > ledger.now_us:
            continue
        label_set = ledger.queue.by_no.get(no)
        if label_set is None or not label_set.waiting or not _is_unoffered(ledger, label_set):
            del ledger.unoffered[no]
            continue
        offered = sorted({name for agent in ledger.agents.values() if agent.is_present for name in agent.operations})
        text = f"no agent of the group offers `{label_set.operation}`; offered: {', '.join(offered) or 'nothing'}"
        while ledger.expiries_left > 0:
            job = ledger.queue.head(label_set)
            if job is None:
                del ledger.unoffered[no]
                break
            ledger.expiries_left -= 1
            ledger.leave_waiting(job)
            job.code, job.message = reasons.OPERATION_UNKNOWN, text
            ledger.end(job, JobState.FAILED, reasons.OPERATION_UNKNOWN)
        else:
            ledger.is_unfinished = True
