"""What must hold after every step: the invariants of `docs/promises.md`, by their numbers.

`check` judges a dispatcher as it stands, from its primary state (jobs and agents) and never through the indexes that
it judges. What only a course of events shows is judged by `broker.dispatch.watcher`. Both are for tests and
simulations: a check costs O(live jobs + agents).

| number | judged by |
|---|---|
| 1, 5, 11, 12, 13, 14 | `check` |
| 2, 4, 6 | `check` for what a state shows, `Watcher` for each placement and each timer |
| 3, 7, 8, 15 | `Watcher`, at each step |
| 9 | `Watcher.replay` |
| 10 | `Watcher.recovery` |
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from broker.dispatch.deadlines import BUCKET_US
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.ledger import Ledger
from broker.dispatch.model import (
    FINAL_STATES,
    LIVE_PHASES,
    Admin,
    Agent,
    DrainThen,
    Job,
    JobKey,
    JobState,
    Phase,
    Spread,
)
from broker.dispatch.placement import AgentClass, may_take, may_work
from broker.dispatch.queue import LabelSet

SLACK: Final = 192
"""Entries that lazily cleaned containers may hold beyond twice the need, so that small ones are left alone."""

_WAITING: Final = {JobState.QUEUED, JobState.SCHEDULED, JobState.HELD}


class Violation(NamedTuple):
    """An invariant that does not hold, by its number, and what is wrong."""

    number: int
    text: str


def check(dispatcher: Dispatcher) -> list[Violation]:
    """All that is wrong with the dispatcher as it stands between two steps; empty when it is sound."""
    ledger, due_us = dispatcher.ledger, dispatcher.next_deadline_us()
    found = [Violation(number, text) for number, judge in CHECKS for text in judge(ledger)]
    if ledger.unsettled and (due_us is None or due_us > ledger.now_us):
        found.append(Violation(13, f"agents {sorted(ledger.unsettled)} are to be looked at, and nobody wakes for it"))
    return found


def _one_place(ledger: Ledger) -> Iterator[str]:
    """1: a job is in exactly one place."""
    queued = Counter(job.key for lane in ledger.queue.all_lanes() for job in lane)
    live = Counter(key for agent in ledger.agents.values() for key in agent.live)
    for job in ledger.jobs.values():
        places = queued[job.key] + live[job.key] + (job.state in {JobState.SCHEDULED, JobState.HELD})
        if places != 1 or job.state in FINAL_STATES:
            yield f"job {job.key} ({job.state}, {job.phase}) is in {places} places"
        if (job.state in _WAITING) == (job.phase in LIVE_PHASES):
            yield f"job {job.key} is {job.state} with an attempt that is {job.phase}"


def _sums(ledger: Ledger) -> Iterator[str]:
    """2: the sum over agents is the number of live attempts."""
    live = sum(job.phase in LIVE_PHASES for job in ledger.jobs.values())
    held = sum(len(agent.live) for agent in ledger.agents.values())
    if live != held:
        yield f"{live} live attempts, {held} on agents"


def _fits(ledger: Ledger) -> Iterator[str]:
    """4: what an agent was sent in its session is what it said that it can run."""
    for job in ledger.jobs.values():
        if job.phase is not Phase.SENT:
            continue
        agent, label_set = ledger.agents[job.agent], job.lane.level.label_set
        if not agent.is_present:
            yield f"job {job.key} is sent to agent {agent.no}, which has no session"
        is_relabelled = job.assigned_us <= agent.labels_us
        has_labels = is_relabelled or label_set.labels <= agent.labels
        if label_set.operation not in agent.operations or not has_labels:
            yield f"job {job.key} ({label_set.operation}) is on agent {agent.no}, which does not serve it"


def _idle_work(ledger: Ledger) -> Iterator[str]:
    """5: work waiting and an eligible free slot never coexist, unless the dispatcher asks to be woken now."""
    if ledger.is_unfinished or ledger.is_removed:
        return
    queued = (job for job in ledger.jobs.values() if job.state is JobState.QUEUED)
    # The head of a lane speaks for all in it: jobs of one limit may say different numbers, their order comes first.
    free = [job for job in queued if not ledger.limit_reached(ledger.queue.lane_of(job).head())]
    # One job for all that need the same: a suspect only agents without another one can take.
    for job in {(job.lane.level.label_set.no, job.is_suspect): job for job in free}.values():
        for agent in ledger.agents.values():
            is_too_much = job.is_suspect and bool(agent.suspects)
            if (
                agent.held < agent.capacity
                and may_take(job, agent)
                and not (is_too_much or _is_later(ledger, job, agent))
            ):
                yield f"job {job.key} waits while agent {agent.no} has room for it"


def _is_later(ledger: Ledger, job: Job, agent: Agent) -> bool:
    """Whether agents of an earlier rank work, so that this one must wait for their failure."""
    if ledger.policy.spread is not Spread.ORDERED:
        return False
    return any(may_take(job, one) and one.rank < agent.rank for one in ledger.agents.values())


def _armed(ledger: Ledger) -> Iterator[str]:
    """6: each owner has one armed deadline, no later than its earliest; what is past is asked for now."""
    entries = ledger.deadlines.entries()
    earliest = 0
    for owner, due_us, wanted_us in owners(ledger):
        if due_us and (due_us // BUCKET_US, owner) not in entries:
            yield f"owner {owner} believes in a deadline at {due_us} that is not armed"
        if wanted_us and (not due_us or due_us > wanted_us):
            yield f"owner {owner} is due at {wanted_us} and armed for {due_us}"
        if due_us:
            earliest = min(earliest or due_us, due_us)
    next_us = ledger.deadlines.next_us(ledger.now_us)
    if earliest and (next_us is None or next_us > max(earliest, ledger.now_us)):
        yield f"the earliest deadline is {earliest}, the next wake-up {next_us}"


def owners(ledger: Ledger) -> Iterator[tuple[int, int, int]]:
    """(owner, armed, wanted) of jobs and agents. A job that is away has no deadline of its own: its agent has."""
    for job in ledger.jobs.values():
        yield job.key, job.due_us, 0 if job.phase is Phase.AWAY else ledger.job_due_us(job)
    for agent in ledger.agents.values():
        yield -agent.no, agent.due_us, ledger.agent_due_us(agent)


def _indexes(ledger: Ledger) -> Iterator[str]:
    """11: every index agrees with what it is derived from."""
    for judge in (_queue_index, _lane_index, _service_index, _agent_index, _placement_index, _limit_index):
        yield from judge(ledger)
    size = sum(job.payload_bytes for job in ledger.jobs.values())
    if size != ledger.queued_bytes:
        yield f"payloads of live jobs are {size} bytes, counted {ledger.queued_bytes}"
    if ledger.wants_places is None or ledger.wants_places:
        yield "a step ended without looking for places"


def _queue_index(ledger: Ledger) -> Iterator[str]:
    queue = ledger.queue
    queued = Counter(job.lane.level.label_set.no for job in ledger.jobs.values() if job.state is JobState.QUEUED)
    if queue.jobs != queued.total():
        yield f"{queued.total()} jobs are queued, counted {queue.jobs}"
    if set(queue.waiting) != set(queued):
        yield f"label sets {sorted(queued)} have waiting jobs, listed {sorted(queue.waiting)}"
    live = Counter(job.lane.level.label_set.no for job in ledger.jobs.values())
    if live != Counter({no: label_set.live for no, label_set in queue.by_no.items() if label_set.live}):
        yield f"live jobs by label set are {live}, counted otherwise"
    for no, label_set in queue.by_no.items():
        if label_set.waiting != queued[no]:
            yield f"label set {no} has {queued[no]} waiting jobs, counted {label_set.waiting}"


def _lane_index(ledger: Ledger) -> Iterator[str]:
    for key, lane in ledger.queue.lanes.items():
        if key != (lane.level.label_set.no, lane.level.number, lane.fairness, lane.limit_key):
            yield f"lane {lane.no} is listed as {key}"
    for lane in ledger.queue.all_lanes():
        if lane.in_level and lane.is_parked:
            yield f"lane {lane.no} is served and held back"
        if lane.size and not (lane.in_level or lane.is_parked):
            yield f"lane {lane.no} has jobs and is not served"
        jobs = list(lane)
        if len(jobs) != lane.size or sum(job.has_returned for job in jobs) != lane.returned.size:
            yield f"lane {lane.no} has {len(jobs)} jobs, counted {lane.size}"
        for job in jobs:
            is_there = ledger.jobs.get(job.key) is job and job.state is JobState.QUEUED
            if not is_there or ledger.queue.lane_of(job) is not lane:
                yield f"lane {lane.no} holds job {job.key}, which is not queued there"


def _service_index(ledger: Ledger) -> Iterator[str]:
    levels = [level for label_set in ledger.queue.by_no.values() for level in label_set.levels]
    served = Counter(id(lane) for level in levels for _, _, lane in level.heap)
    listed = {id(lane): lane for lane in ledger.queue.all_lanes() if lane.in_level}
    if served != Counter(listed.keys()):
        yield "the lanes in service are not those that believe so"
    parked = {lane.no for levels in ledger.queue.parked.values() for held in levels.values() for _, _, lane in held}
    if parked != {lane.no for lane in ledger.queue.all_lanes() if lane.is_parked}:
        yield "the lanes that are held back are not those that believe so"
    for level in levels:
        if any(tag != lane.tag for tag, _, lane in level.heap):
            yield f"a lane of label set {level.label_set.no} is served at another time than its own"


def _agent_index(ledger: Ledger) -> Iterator[str]:
    for agent in ledger.agents.values():
        for job in agent.live.values():
            if ledger.jobs.get(job.key) is not job or job.agent != agent.no or job.phase not in LIVE_PHASES:
                yield f"agent {agent.no} holds job {job.key}, which says {job.phase} on {job.agent}"
            if not agent.is_present and job.phase is not Phase.AWAY:
                yield f"job {job.key} is {job.phase} on agent {agent.no}, which has no session"
            if (job.phase is Phase.SENT) > (job.key in agent.sent):
                yield f"job {job.key} is sent and agent {agent.no} does not know when"
            if job.phase in {Phase.ACCEPTED, Phase.STOPPING} and job.key in agent.sent:
                yield f"job {job.key} is {job.phase} and still waits for its acceptance"
        if not agent.sent.keys() <= agent.live.keys():
            yield f"agent {agent.no} was sent jobs that it does not hold"
        for job_key, attempt in agent.detached:
            held = agent.live.get(job_key)
            if held is not None and held.attempt == attempt:
                yield f"attempt {attempt} of job {job_key} is live and detached on agent {agent.no}"


def _limit_index(ledger: Ledger) -> Iterator[str]:
    running: dict[str, set[JobKey]] = {}
    for job in ledger.jobs.values():
        if job.phase in LIVE_PHASES and job.lane.limit_key:
            running.setdefault(job.lane.limit_key, set()).add(job.key)
    if running != ledger.running:
        yield f"limits are used by {running}, noted {ledger.running}"
    for agent in ledger.agents.values():
        suspects = {job.key for job in agent.live.values() if job.is_suspect}
        if suspects != agent.suspects:
            yield f"agent {agent.no} holds the suspects {suspects}, noted {agent.suspects}"


def _placement_index(ledger: Ledger) -> Iterator[str]:
    placement = ledger.placement
    listed = {no: one for one in placement.classes.values() for no in one.agents}
    for agent in ledger.agents.values():
        if listed.get(agent.no) is not agent.agent_class:
            yield f"agent {agent.no} is in another class than it believes"
        if agent.heap_key != _place_of(ledger, agent):
            yield f"agent {agent.no} is at {agent.heap_key}, its load says {_place_of(ledger, agent)}"
        if agent.heap_key >= 0 and agent.agent_class and agent.heap_key not in agent.agent_class.heap:
            yield f"agent {agent.no} has room and is not offered"
    free = sum(agent.heap_key >= 0 for agent in ledger.agents.values())
    if free != placement.free:
        yield f"{free} agents have room, counted {placement.free}"
    for key, agent_class in placement.classes.items():
        if key != (agent_class.operations, agent_class.labels) or not agent_class.agents:
            yield f"class {key} is listed under another name or empty"
        if any(
            agent.operations - agent.unfit != key[0] or agent.labels != key[1] for agent in agent_class.agents.values()
        ):
            yield f"class {key} has an agent of another kind"
    for label_set in ledger.queue.by_no.values():
        if label_set.classes_version == placement.version and label_set.classes != _serving(ledger, label_set):
            yield f"label set {label_set.no} knows other classes than serve it"


def _serving(ledger: Ledger, label_set: LabelSet) -> list[AgentClass]:
    return [one for one in ledger.placement.classes.values() if one.serves(label_set)]


def _place_of(ledger: Ledger, agent: Agent) -> int:
    if agent.agent_class is None or agent.held >= agent.capacity or not may_work(agent):
        return -1
    return ledger.placement.key_of(agent)


def _memory(ledger: Ledger) -> Iterator[str]:
    """12: memory is that of live jobs and known agents, at most twice; nothing of a finished job stays."""
    jobs, agents = len(ledger.jobs), len(ledger.agents)
    sizes = {
        "deadlines": (len(ledger.deadlines), jobs + agents),
        "lanes": (len(ledger.queue.lanes), max(ledger.policy.lanes_max, jobs)),
        "label sets": (len(ledger.queue.by_no), ledger.policy.label_sets_max),
        "agent classes": (len(ledger.placement.classes), ledger.policy.agent_classes_max),
    }
    for one in ledger.placement.classes.values():
        sizes[f"heap of class {sorted(one.operations)}"] = (len(one.heap), len(one.agents))
    for name, (size, need) in sizes.items():
        if size > 2 * need + SLACK:
            yield f"{name}: {size} entries for {need}"
    if not ledger.dirty:  # all is written: what is left belongs to live jobs
        for name, keys in (("lazy", ledger.lazy.keys()), ("checkpoints", ledger.checkpoints.keys())):
            finished = sorted(key for key in keys if key not in ledger.jobs)
            if finished:
                yield f"{name} remembers finished jobs {finished}"


def _drained(ledger: Ledger) -> Iterator[str]:
    """13: a drain ends: past its deadline whatever is still held is stopping, away, or given up as stuck."""
    for agent in ledger.agents.values():
        is_over = agent.admin is Admin.DRAINING and agent.drain_then is not DrainThen.FINISH and not agent.admin_due_us
        if agent.admin is Admin.DRAINING and not agent.held and agent.no not in ledger.unsettled:
            yield f"agent {agent.no} drains and holds nothing"
        for job in agent.live.values() if is_over else ():
            if job.phase in {Phase.SENT, Phase.ACCEPTED} or not job.stop_reason:
                yield f"job {job.key} is {job.phase} on agent {agent.no}, whose drain is past its deadline"


def _order(ledger: Ledger) -> Iterator[str]:
    """14: jobs of a lane stand in the order of acceptance or wished start, and the first is served first."""
    for lane in ledger.queue.all_lanes():
        for part in (False, True):
            order = [(job.order_us, job.key) for job in lane if job.has_returned is part]
            if order != sorted(order):
                yield f"lane {lane.no} is out of order: {order}"
        if lane.size and lane.head() is not min(lane, key=lambda job: (job.order_us, job.key)):
            yield f"lane {lane.no} serves job {lane.head().key} before its first"


CHECKS: Final[tuple[tuple[int, Callable[[Ledger], Iterator[str]]], ...]] = (
    (1, _one_place),
    (2, _sums),
    (4, _fits),
    (5, _idle_work),
    (6, _armed),
    (11, _indexes),
    (12, _memory),
    (13, _drained),
    (14, _order),
)
