"""Waiting jobs in order: lanes, fair among fairness keys, levels that age (promise P9).

A *lane* holds jobs of one (label set, level, fairness key, limit key) in the order of `order_us`, ties by job key: the
time of acceptance or of the wished start, fixed once, so every return goes back to its place. Lanes of one (label set,
level) share by start-time fair queueing: each has a virtual start time that grows by one a job. Between levels the
older head wins, with a constant head start a level (ageing), so no key ever changes. All operations are O(log n) in
the number of lanes and O(1) in the number of jobs.

Source of the fair-queueing rule: Goyal, Vin, Cheng, "Start-time Fair Queuing", SIGCOMM 1996, with unit cost.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING, Final

from broker.dispatch.model import DispatchPolicy, Job, JobKey

if TYPE_CHECKING:
    from broker.dispatch.placement import AgentClass

LEVELS: Final = 5
_PURGE_LANES_MIN: Final = 64


class Lane:
    """Jobs of one label set, level, fairness key and limit key, in order."""

    __slots__ = ("fairness", "heap", "in_level", "is_parked", "jobs", "late", "level", "limit_key", "no", "tag")

    def __init__(self, no: int, level: "Level", fairness: str, limit_key: str) -> None:
        self.no = no
        self.level = level
        self.fairness = fairness
        self.limit_key = limit_key
        self.jobs: OrderedDict[JobKey, Job] = OrderedDict()  # in order of arrival, which is the order
        self.late: dict[JobKey, Job] = {}  # returned or scheduled jobs that belong further to the front
        self.heap: list[tuple[int, JobKey]] = []  # order of `late`; may hold stale entries
        self.tag = 0  # virtual start time of the head
        self.in_level = False
        self.is_parked = False  # something holds its head back: it is out of service until it is woken

    def __len__(self) -> int:
        return len(self.jobs) + len(self.late)

    def head(self) -> Job:
        """The first job; the lane must not be empty."""
        first = next(iter(self.jobs.values())) if self.jobs else None
        if not self.late:
            assert first is not None
            return first
        while self.heap[0][1] not in self.late:
            heappop(self.heap)
        late = self.late[self.heap[0][1]]
        if first is None or (late.order_us, late.key) < (first.order_us, first.key):
            return late
        return first

    def add(self, job: Job) -> None:
        """Put the job in its place."""
        jobs = self.jobs
        if not jobs:
            jobs[job.key] = job
            return
        last = jobs[next(reversed(jobs))]
        if job.order_us > last.order_us or (job.order_us == last.order_us and job.key > last.key):
            jobs[job.key] = job
            return
        self.late[job.key] = job
        heappush(self.heap, (job.order_us, job.key))
        self._tidy()

    def drop(self, job: Job) -> None:
        """Take the job out, wherever it is."""
        if job.key in self.jobs:
            del self.jobs[job.key]
        else:
            del self.late[job.key]
            self._tidy()

    def _tidy(self) -> None:
        """Forget stale entries when they are the larger part."""
        if len(self.heap) > 2 * len(self.late) + 64:
            self.heap = [(late.order_us, key) for key, late in self.late.items()]
            heapify(self.heap)


class Level:
    """The lanes of one label set and priority level; `handicap_us` is what ageing adds to their order.

    The job that fair queueing serves next is kept until something moves in front: heads are asked for far more often
    than they change.
    """

    __slots__ = ("_first", "_is_moved", "finish", "handicap_us", "heap", "label_set", "number", "suspects", "virtual")

    def __init__(self, label_set: "LabelSet", number: int, handicap_us: int) -> None:
        self.label_set = label_set
        self.number = number
        self.handicap_us = handicap_us
        self.heap: list[tuple[int, int, Lane]] = []
        self.virtual = 0
        self.finish = 0  # the virtual time at which all that was served is through
        self.suspects: Lane | None = None  # jobs that may be what killed their agents: they wait for an agent each
        self._first: Job | None = None
        self._is_moved = False

    def moved(self) -> None:
        """Another job may be the next one now."""
        self._is_moved = True
        self.label_set.is_moved = True

    def serve(self, lane: Lane) -> None:
        """Take a lane with jobs into service, level with those that are served now."""
        if not self.heap:
            self.virtual = self.finish  # idle: whoever comes now starts level with all others
        lane.tag = max(lane.tag, self.virtual)
        heappush(self.heap, (lane.tag, lane.no, lane))
        lane.in_level = True
        self.moved()

    def sweep(self) -> None:
        """Take empty lanes out of service, wherever they stand."""
        for _, _, lane in self.heap:
            lane.in_level = bool(len(lane))
        self.heap = [entry for entry in self.heap if entry[2].in_level]
        heapify(self.heap)

    def head(self) -> Job | None:
        """The job that fair queueing serves next."""
        if self._is_moved:
            self._first = self._find()
            self._is_moved = False
        return self._first

    def _find(self) -> Job | None:
        heap = self.heap
        while heap:
            lane = heap[0][2]
            if lane.jobs or lane.late:
                return lane.head()
            heappop(heap)
            lane.in_level = False
        return None


class LabelSet:
    """What a class of jobs asks of an agent: an operation and labels, numbered in the group.

    `live` counts its jobs that are not final: without one it may be forgotten, its number is never given again. `first`
    is the job that is placed next, found anew when `is_moved`.
    """

    __slots__ = (
        "classes",
        "classes_version",
        "first",
        "is_moved",
        "labels",
        "levels",
        "live",
        "no",
        "operation",
        "stored",
        "waiting",
    )

    def __init__(self, no: int, operation: str, labels: tuple[str, ...]) -> None:
        self.no = no
        self.operation = operation
        self.labels = frozenset(labels)
        self.levels: list[Level] = []
        self.waiting = 0
        self.live = 0
        self.first: Job | None = None
        self.is_moved = False
        self.stored = False
        self.classes: list[AgentClass] = []  # kept by placement
        self.classes_version = -1


class Queue:
    """All waiting jobs of a group. It never changes a job's state."""

    __slots__ = ("_lane_no", "_lanes", "_parked", "_policy", "_set_no", "_sets", "by_no", "jobs", "waiting")

    def __init__(self, policy: DispatchPolicy) -> None:
        self._policy = policy
        self._sets: dict[tuple[str, tuple[str, ...]], LabelSet] = {}
        self._lanes: dict[tuple[int, int, str, str], Lane] = {}
        self._lane_no = 0
        self._set_no = 0
        self._parked: dict[str, dict[Level, list[tuple[int, int, Lane]]]] = {}  # by what holds them back, in order
        self.by_no: dict[int, LabelSet] = {}
        self.waiting: dict[int, LabelSet] = {}  # label sets with waiting jobs, by number
        self.jobs = 0

    def label_set(self, operation: str, labels: tuple[str, ...]) -> LabelSet | None:
        """The label set of these requirements; None when the group has as many as it may."""
        found = self._sets.get((operation, labels))
        if found is None and (len(self.by_no) < self._policy.label_sets_max or self.forget_unused_sets()):
            found = self.restore_label_set(self._set_no + 1, operation, labels)
        return found

    def forget_unused_sets(self) -> int:
        """Forget all label sets without a live job, with their lanes; how many there were."""
        unused = [one for one in self.by_no.values() if not one.live]
        for label_set in unused:
            del self.by_no[label_set.no]
            key = (label_set.operation, tuple(sorted(label_set.labels)))
            if self._sets.get(key) is label_set:
                del self._sets[key]
        gone = {label_set.no for label_set in unused}
        for lane_key in [key for key in self._lanes if key[0] in gone]:
            del self._lanes[lane_key]
        for why, levels in list(self._parked.items()):
            self._parked[why] = {level: lanes for level, lanes in levels.items() if level.label_set.no not in gone}
            if not self._parked[why]:
                del self._parked[why]
        return len(unused)

    def restore_label_set(self, no: int, operation: str, labels: tuple[str, ...]) -> LabelSet:
        """A label set under a number that is known (recovery)."""
        found = self._sets[operation, labels] = self.by_no[no] = LabelSet(no, operation, labels)
        self._set_no = max(self._set_no, no)
        return found

    def lane(self, label_set: LabelSet, level: int, fairness: str, limit_key: str) -> Lane | None:
        """The lane of these; None when the group has as many as it may."""
        found = self._lanes.get((label_set.no, level, fairness, limit_key))
        if found is None and len(self._lanes) >= self._policy.lanes_max and not self._purge_empty():
            return None
        return found if found is not None else self._new_lane(label_set, level, fairness, limit_key)

    def restore_lane(self, label_set: LabelSet, level: int, fairness: str, limit_key: str) -> Lane:
        """The lane of a job that was accepted before (recovery): bounds are for what is new."""
        found = self._lanes.get((label_set.no, level, fairness, limit_key))
        return found if found is not None else self._new_lane(label_set, level, fairness, limit_key)

    def _new_lane(self, label_set: LabelSet, number: int, fairness: str, limit_key: str) -> Lane:
        level = next((one for one in label_set.levels if one.number == number), None)
        if level is None:
            level = Level(label_set, number, (number - 1) * self._policy.ageing_us)
            label_set.levels.append(level)
            label_set.levels.sort(key=lambda one: one.number)
        self._lane_no += 1
        lane = self._lanes[label_set.no, number, fairness, limit_key] = Lane(self._lane_no, level, fairness, limit_key)
        if len(self._lanes) > 2 * _PURGE_LANES_MIN and self._lane_no % _PURGE_LANES_MIN == 0:
            self._purge_lanes()
        return lane

    def _purge_lanes(self) -> None:
        """Forget empty lanes whose virtual time has been passed: they would start anew at the same place."""
        self._forget([key for key, lane in self._lanes.items() if lane.tag <= lane.level.virtual])

    def _purge_empty(self) -> int:
        """Forget all empty lanes, because the bound is reached: one that starts anew gains a job at most."""
        for label_set in self.by_no.values():
            for level in label_set.levels:
                level.sweep()
        return self._forget(list(self._lanes))

    def _forget(self, keys: list[tuple[int, int, str, str]]) -> int:
        lanes = self._lanes
        gone = [key for key in keys if not (len(lanes[key]) or lanes[key].in_level or lanes[key].is_parked)]
        for key in gone:
            del self._lanes[key]
        return len(gone)

    def push(self, job: Job) -> None:
        """Put a job in its place, which its `order_us` and key fix."""
        lane = job.lane
        level = lane.level
        label_set = level.label_set
        if job.is_suspect:
            lane = self._suspects(level)
        elif not (lane.in_level or lane.is_parked):
            key = (label_set.no, level.number, lane.fairness, lane.limit_key)
            lane = job.lane = self._lanes.setdefault(key, lane)  # it may have been purged while the job ran
        lane.add(job)
        if not (lane.in_level or lane.is_parked):
            level.serve(lane)
        if lane.head() is job:
            level.moved()
        self.jobs += 1
        if not label_set.waiting:
            self.waiting[label_set.no] = label_set
            label_set.first, label_set.is_moved = level.head(), False  # nobody waits at the other levels
        label_set.waiting += 1

    def _suspects(self, level: Level) -> Lane:
        if level.suspects is None:
            self._lane_no += 1
            level.suspects = Lane(self._lane_no, level, "", "")
        return level.suspects

    @staticmethod
    def lane_of(job: Job) -> Lane:
        """The lane in which a waiting job stands."""
        if job.is_suspect:
            assert job.lane.level.suspects is not None
            return job.lane.level.suspects
        return job.lane

    def head(self, label_set: LabelSet) -> Job | None:
        """The job of the label set that is to be placed next."""
        if label_set.is_moved:
            label_set.first = self._first_of(label_set) if label_set.waiting else None
            label_set.is_moved = False
        return label_set.first

    def _first_of(self, label_set: LabelSet) -> Job | None:
        best: Job | None = None
        best_us = 0
        for level in label_set.levels:
            job = level.head()
            if job is None:
                continue
            if not self._policy.ageing_us:
                return job
            order_us = job.order_us + level.handicap_us
            if best is None or order_us < best_us:
                best, best_us = job, order_us
        return best

    def take(self, job: Job) -> None:
        """Take out the job that `head` gave, and charge its lane for it."""
        lane = self.lane_of(job)
        level = lane.level
        assert level.heap[0][2] is lane, "only the head is taken"
        lane.drop(job)
        level.virtual = lane.tag
        lane.tag += 1
        level.finish = max(level.finish, lane.tag)
        if lane.jobs or lane.late:
            heapreplace(level.heap, (lane.tag, lane.no, lane))
        else:
            heappop(level.heap)
            lane.in_level = False
        level.moved()
        self._uncount(level.label_set)

    def remove(self, job: Job) -> None:
        """Take out a job that leaves without being placed; its lane is not charged."""
        lane = self.lane_of(job)
        lane.drop(job)
        lane.level.moved()
        self._uncount(lane.level.label_set)

    def park(self, job: Job, why: str) -> None:
        """Take the lane of this head out of service: `why` (a limit's key, or "" for a suspect) holds it back."""
        lane = self.lane_of(job)
        level = lane.level
        assert level.heap[0][2] is lane, "only the head is held back"
        heappop(level.heap)
        lane.in_level = False
        lane.is_parked = True
        heappush(self._parked.setdefault(why, {}).setdefault(level, []), (lane.tag, lane.no, lane))
        level.moved()

    def wake(self, why: str, most: int) -> list[LabelSet]:
        """Take up to `most` lanes of each level that this held back into service again; their label sets.

        Lanes that are empty by now do not count: they are held back no more.
        """
        levels = self._parked.get(why, {})
        woken = [level.label_set for level in levels]
        for level, lanes in list(levels.items()):
            left = most
            while lanes and left:
                lane = heappop(lanes)[2]
                lane.is_parked = False
                if len(lane):
                    level.serve(lane)
                    left -= 1
            if not lanes:
                del levels[level]
        if not levels:
            self._parked.pop(why, None)
        return woken

    @property
    def parked(self) -> Mapping[str, Mapping[Level, list[tuple[int, int, Lane]]]]:
        """Lanes out of service by what holds them back: a limit's key, or "" for suspects."""
        return self._parked

    def _uncount(self, label_set: LabelSet) -> None:
        self.jobs -= 1
        label_set.waiting -= 1
        if not label_set.waiting:
            del self.waiting[label_set.no]

    @property
    def lanes(self) -> dict[tuple[int, int, str, str], Lane]:
        """All lanes but those of suspects, for invariants and explanations."""
        return self._lanes

    def all_lanes(self) -> Iterator[Lane]:
        """Every lane, for invariants and explanations."""
        yield from self._lanes.values()
        levels = (level for label_set in self.by_no.values() for level in label_set.levels)
        yield from (level.suspects for level in levels if level.suspects is not None)
