"""From events to one commit to effects: the rules that every driver of dispatchers shares.

A batch is the events of one turn, for any number of groups. Its writes are one transaction; its replies, sends and
notices are released, group by group in that order, only when the transaction is known to be durable. Until then the
batch is pending and nothing steps: memory never runs ahead of what is on disk by more than the pending batch.

    READY --run--> (no writes) --> READY, effects released at once
    READY --run--> PENDING --committed--> READY, effects released
                   PENDING --rolled_back--> PENDING (the driver commits the same batch again)
                   PENDING --stale(groups)--> PENDING without these groups, whose dispatchers are dropped

An unknown commit stays PENDING until the driver has read which number the store holds, and calls one of the first two.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush

from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.messages import Effects, Event, Notice, Reply, Send, TimerFired
from broker.dispatch.model import GroupNo
from broker.dispatch.rows import Writes


@dataclass(slots=True)
class Batch:
    """What one turn ordered. `seq` is the number of its commit; 0: nothing to write."""

    seq: int
    at_us: int
    effects: dict[GroupNo, Effects] = field(default_factory=dict)
    epochs: dict[GroupNo, int] = field(default_factory=dict)

    @property
    def writes(self) -> dict[GroupNo, Writes]:
        """The writes of each group that has some."""
        return {group: effects.writes for group, effects in self.effects.items() if effects.writes}

    def replies(self) -> Iterator[Reply]:
        """Answers to submitters and operators: the first to leave."""
        for effects in self.effects.values():
            yield from effects.replies

    def sends(self) -> Iterator[Send]:
        """Orders to sessions: they leave after the replies."""
        for effects in self.effects.values():
            yield from effects.sends

    def notices(self) -> Iterator[Notice]:
        """What metrics, watchers and history hear, last."""
        for effects in self.effects.values():
            yield from effects.notices


class Batcher:
    """The dispatchers of one broker, stepped in batches. `seq` is the number of the last commit known to be durable."""

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.pending: Batch | None = None
        self._dispatchers: dict[GroupNo, Dispatcher] = {}
        self._due_us: dict[GroupNo, int] = {}
        self._heap: list[tuple[int, GroupNo]] = []

    def successor(self) -> "Batcher":
        """An empty one that goes on behind the last commit: that of a broker that takes over."""
        return Batcher(self.seq)

    def add(self, group: GroupNo, dispatcher: Dispatcher) -> None:
        """Drive this dispatcher from now on."""
        self._dispatchers[group] = dispatcher
        self._rearm(group, dispatcher)

    def drop(self, group: GroupNo) -> None:
        """Forget a group: removed, or no longer owned."""
        del self._dispatchers[group]
        self._due_us.pop(group, None)

    def get(self, group: GroupNo) -> Dispatcher | None:
        """The dispatcher of a group, if this broker drives it."""
        return self._dispatchers.get(group)

    def run(self, now_us: int, events: Iterable[tuple[GroupNo, Event]], lag_us: int = 0) -> Batch:
        """Step everything, `TimerFired` last, and take the effects. Events of groups that are gone are dropped.

        With `lag_us` every dispatcher hears that the driver stalled: at once, because streams may have ended by it, and
        with its timer, which forgives. The batch is pending if it has writes.
        """
        assert self.pending is None, "a batch is pending: nothing steps before it is settled"
        touched: dict[GroupNo, Dispatcher] = {}
        dispatchers = self._dispatchers
        if lag_us:
            for driven in dispatchers.values():
                driven.stood_still(now_us, lag_us)
        for group, event in events:
            dispatcher = dispatchers.get(group)
            if dispatcher is not None:
                dispatcher.step(now_us, event)
                touched[group] = dispatcher
        self._fire_timers(now_us, touched, lag_us)
        batch = Batch(0, now_us)
        has_writes = False
        for group in sorted(touched):
            effects = touched[group].take_effects()
            writes = bool(effects.writes)
            if writes or effects.replies or effects.sends or effects.notices:
                has_writes |= writes
                batch.effects[group] = effects
                batch.epochs[group] = touched[group].epoch
            self._rearm(group, touched[group])
        if has_writes:
            batch.seq = self.seq + 1
            self.pending = batch
        return batch

    def _fire_timers(self, now_us: int, touched: dict[GroupNo, Dispatcher], lag_us: int) -> None:
        due: dict[GroupNo, Dispatcher] = dict(self._dispatchers) if lag_us else {}
        while self._heap and self._heap[0][0] <= now_us:
            due_us, group = heappop(self._heap)
            if self._due_us.get(group) == due_us:
                # Its entry is gone: what is due again at this very microsecond must be armed anew.
                del self._due_us[group]
                due[group] = self._dispatchers[group]
        for group, dispatcher in touched.items():
            next_us = dispatcher.next_deadline_us()
            if next_us is not None and next_us <= now_us:
                due[group] = dispatcher
        for group in sorted(due):
            due[group].step(now_us, TimerFired(lag_us))
            touched[group] = due[group]

    def _rearm(self, group: GroupNo, dispatcher: Dispatcher) -> None:
        due_us = dispatcher.next_deadline_us()
        if due_us is None:
            self._due_us.pop(group, None)
        elif self._due_us.get(group) != due_us:
            self._due_us[group] = due_us
            heappush(self._heap, (due_us, group))

    def next_deadline_us(self) -> int | None:
        """When `run` is wanted at the latest, events or not."""
        while self._heap and self._due_us.get(self._heap[0][1]) != self._heap[0][0]:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    # --- what became of the pending batch ---------------------------------------------------------------------------

    def committed(self) -> Batch:
        """The pending batch is durable: its effects may leave."""
        batch, self.pending = self.pending, None
        assert batch is not None, "no batch is pending"
        self.seq = batch.seq
        return batch

    def stale(self, groups: Iterable[GroupNo]) -> Batch:
        """These groups are no longer ours: drop them and their part of the pending batch; commit the rest.

        If nothing is left to write, the batch is released as it is (`seq` 0) and nothing is pending.
        """
        batch = self.pending
        assert batch is not None, "no batch is pending"
        for group in groups:
            self.drop(group)
            batch.effects.pop(group, None)
            batch.epochs.pop(group, None)
        if not batch.writes:
            self.pending = None
            batch.seq = 0
        return batch
