"""Waiting jobs in order: lanes, fair among fairness keys, levels that age (promise P9).

Lanes of one (label set, level) share by start-time fair queueing: each has a virtual start time that grows by one a
job. Between levels the older head wins, with a constant head start a level (ageing), so no key ever changes. All
operations are O(log n) in the number of lanes and do not grow with the number of jobs.

Source of the fair-queueing rule: Goyal, Vin, Cheng, "Start-time Fair Queuing", SIGCOMM 1996, with unit cost.
"""

from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING, Final

from broker.dispatch.lane import Lane
from broker.dispatch.model import DispatchPolicy, Job

if TYPE_CHECKING:
    from broker.dispatch.placement import AgentClass

LEVELS: Final = 5
STRICT_US: Final = 10**17
"""Head start of a level without ageing, three thousand years: strict among the heads of different label sets too."""
Why = tuple[str, int]
"""What holds a lane back: a limit's key and how many may run, as the job at its head says."""
SUSPECTS: Final[Why] = ("", 0)
"""It waits for an agent that holds no other suspect."""
_PURGE_LANES_MIN: Final = 64


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
        self.suspects: dict[str, Lane] = {}  # by limit key: jobs that may have killed agents, they wait for one each
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
            if not lane.size:
                self.retire(lane)
        self.heap = [entry for entry in self.heap if entry[2].in_level]
        heapify(self.heap)

    def retire(self, lane: Lane) -> None:
        """An empty lane is out of service. One of suspects is forgotten: it has nothing to remember."""
        lane.in_level = lane.is_parked = False
        lane.woken_by = None
        if self.suspects and self.suspects.get(lane.limit_key) is lane:
            del self.suspects[lane.limit_key]

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
            if lane.size:
                return lane.head()
            heappop(heap)
            self.retire(lane)
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

    __slots__ = ("_lane_no", "_lanes", "_limits", "_parked", "_policy", "_set_no", "_sets", "by_no", "jobs", "waiting")

    def __init__(self, policy: DispatchPolicy) -> None:
        self._policy = policy
        self._sets: dict[tuple[str, tuple[str, ...]], LabelSet] = {}
        self._lanes: dict[tuple[int, int, str, str], Lane] = {}
        self._lane_no = 0
        self._set_no = 0
        self._parked: dict[Why, dict[Level, list[tuple[int, int, Lane]]]] = {}  # by what holds them back, in order
        self._limits: dict[str, set[int]] = {}  # how many may run, as parked lanes say, by limit key
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
            for level in [level for level in levels if level.label_set.no in gone]:
                del levels[level]
            self._forget_parked(why)
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
            level = Level(label_set, number, (number - 1) * (self._policy.ageing_us or STRICT_US))
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
        gone = [key for key in keys if not (lanes[key].size or lanes[key].in_level or lanes[key].is_parked)]
        for key in gone:
            del self._lanes[key]
        return len(gone)

    def push(self, job: Job) -> None:
        """Put a job in its place, which its `order_us` and key fix."""
        lane = job.lane
        level = lane.level
        label_set = level.label_set
        if job.is_suspect:
            lane = self._suspects(level, lane.limit_key)
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

    def _suspects(self, level: Level, limit_key: str) -> Lane:
        found = level.suspects.get(limit_key)
        if found is None:
            self._lane_no += 1
            found = level.suspects[limit_key] = Lane(self._lane_no, level, "", limit_key)
        return found

    @staticmethod
    def lane_of(job: Job) -> Lane:
        """The lane in which a waiting job stands."""
        return job.lane.level.suspects[job.lane.limit_key] if job.is_suspect else job.lane

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
        if lane.size:
            lane.woken_by = None
            heapreplace(level.heap, (lane.tag, lane.no, lane))
        else:
            heappop(level.heap)
            level.retire(lane)
        level.moved()
        self._uncount(level.label_set)

    def remove(self, job: Job) -> None:
        """Take out a job that leaves without being placed; its lane is not charged."""
        lane = self.lane_of(job)
        lane.drop(job)
        lane.level.moved()
        self._uncount(lane.level.label_set)

    def park(self, job: Job, why: Why) -> str:
        """Take the lane of this head out of service: `why` holds it back.

        Returns the limit that had woken the lane, if it is another one ("": none did): somebody else may use that.
        """
        lane = self.lane_of(job)
        level = lane.level
        assert level.heap[0][2] is lane, "only the head is held back"
        heappop(level.heap)
        lane.in_level = False
        lane.is_parked = True
        heappush(self._parked.setdefault(why, {}).setdefault(level, []), (lane.tag, lane.no, lane))
        if why != SUSPECTS:
            self._limits.setdefault(why[0], set()).add(why[1])
        level.moved()
        woken_by, lane.woken_by = lane.woken_by, None
        return woken_by if woken_by is not None and woken_by != why[0] else ""

    def wake_limit(self, limit_key: str, most: int) -> None:
        """The same for all that a limit holds back, each by what its head allows to run."""
        for running_max in sorted(self._limits.get(limit_key, ())):
            self.wake((limit_key, running_max), most)

    def wake(self, why: Why, most: int) -> None:
        """Take up to `most` lanes of each level that this held back into service again.

        Lanes that are empty by now do not count: they are held back no more.
        """
        for level in list(self._parked.get(why, ())):
            self.wake_in(level, why, most)

    def wake_in(self, level: Level, why: Why, most: int) -> None:
        """The same in one level."""
        lanes = self._parked.get(why, {}).get(level, [])
        while lanes and most:
            lane = heappop(lanes)[2]
            lane.is_parked = False
            if not lane.size:
                level.retire(lane)
                continue
            lane.woken_by = why[0] or None
            level.serve(lane)
            most -= 1
        if not lanes and level in self._parked.get(why, ()):
            del self._parked[why][level]
            self._forget_parked(why)

    def _forget_parked(self, why: Why) -> None:
        if self._parked[why]:
            return
        del self._parked[why]
        if why != SUSPECTS:
            self._limits[why[0]].discard(why[1])
            if not self._limits[why[0]]:
                del self._limits[why[0]]

    @property
    def parked(self) -> Mapping[Why, Mapping[Level, list[tuple[int, int, Lane]]]]:
        """Lanes out of service by what holds them back."""
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
        for label_set in self.by_no.values():
            for level in label_set.levels:
                yield from level.suspects.values()
