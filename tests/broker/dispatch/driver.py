"""A dispatcher, driven: a manual clock, rows in memory, and all invariants after every step.

Each `batch` is one turn of a driver: its events, `TimerFired` if the dispatcher asks for it now, one take of the
effects, whose writes are stored. Live agents are heard every second while time passes, unless muted.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any, Final, Self

from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.invariants import Violation
from broker.dispatch.messages import AgentsHeard, Effects, Event, TimerFired
from broker.dispatch.model import SECOND_US, DispatchPolicy, GroupNo, Placing, Spread
from broker.dispatch.stored import Stored
from broker.dispatch.watcher import Watcher

GROUP: Final = GroupNo(7)
START_US: Final = 1_000 * SECOND_US
HEARTBEAT_US: Final = SECOND_US


class BrokenInvariantError(AssertionError):
    """A step, or a whole run, left something that must never be."""


class Driver:
    """Drives one group. `seed` is that of the jitter, `policy` are fields of `DispatchPolicy`."""

    def __init__(
        self,
        seed: int = 1,
        spread: str = Spread.BALANCED,
        placing: str = Placing.LEAST_LOADED,
        **policy: Any,
    ) -> None:
        self.policy = DispatchPolicy(spread=Spread(spread), placing=Placing(placing), **policy)
        self.now_us = START_US
        self.epoch = 1
        self.stored = Stored()
        self.last = Effects()
        self.history: list[tuple[int, Effects]] = []
        """(time, effects) of every take that ordered something."""
        self.muted: set[str] = set()
        """Ids of the agents that are not heard while time passes."""
        self._seed = seed
        self._begin(None)

    # --- the dispatcher's life --------------------------------------------------------------------------------------

    def _begin(self, earlier: Watcher | None) -> None:
        rows, now_us, epoch, policy = self._copy_of_rows(), self.now_us, self.epoch, self.policy

        def make() -> Dispatcher:
            made = Dispatcher(GROUP, policy, epoch, Random(self._seed + epoch))
            if epoch > 1:
                rows.recover(made, now_us)
            return made

        self.fresh = make  # a dispatcher in the state in which this life began
        self.watcher = Watcher(make(), earlier)

    def _copy_of_rows(self) -> Stored:
        rows = Stored()
        rows.acceptance_no = self.stored.acceptance_no
        rows.jobs, rows.policies = dict(self.stored.jobs), dict(self.stored.policies)
        rows.label_sets, rows.agents = dict(self.stored.label_sets), dict(self.stored.agents)
        return rows

    @property
    def dispatcher(self) -> Dispatcher:
        return self.watcher.dispatcher

    def restart(self) -> Self:
        """`kill -9` of the broker: the dispatcher is made anew from the stored rows, all sessions are gone."""
        self.check_run()
        self.epoch += 1
        self._begin(self.watcher)
        return self

    def check_run(self) -> None:
        """What a whole run must keep: recovery gives the same again (10), and so does the journal (9)."""
        self._judge(self.watcher.recovery(self.stored))
        self._judge(self.watcher.replay(self.fresh()))

    def _judge(self, violations: Iterable[Violation]) -> None:
        found = [f"[inv{number:02}] {text}" for number, text in violations]
        if found:
            raise BrokenInvariantError("\n".join(found))

    def batch(self, *events: Event) -> Self:
        """Step these events, then the timer if it is due, take and store: what a driver does in one turn."""
        for event in events:
            self.watcher.step(self.now_us, event)
        due_us = self.dispatcher.next_deadline_us()
        if due_us is not None and due_us <= self.now_us:
            self.watcher.step(self.now_us, TimerFired())
        self.last = self.watcher.take_effects()
        if self.last:
            self.stored.apply(self.last.writes)
            self.history.append((self.now_us, self.last))
        self._judge(self.watcher.violations)
        return self

    # --- time -------------------------------------------------------------------------------------------------------

    def advance(self, seconds: float) -> Self:
        """Let time pass: the timer fires at each deadline on the way, agents that are not muted are heard."""
        end_us = self.now_us + round(seconds * SECOND_US)
        while self.now_us < end_us or self._is_due():
            next_us = self.dispatcher.next_deadline_us() or end_us
            beat_us = (self.now_us // HEARTBEAT_US + 1) * HEARTBEAT_US
            self.now_us = max(self.now_us, min(next_us, beat_us, end_us))
            self.batch(*self._heartbeats())
        return self

    def _is_due(self) -> bool:
        due_us = self.dispatcher.next_deadline_us()
        return due_us is not None and due_us <= self.now_us

    def _heartbeats(self) -> list[Event]:
        heard = [
            (agent.no, agent.session, self.now_us)
            for agent in self.dispatcher.ledger.agents.values()
            if agent.is_present and agent.agent_id not in self.muted
        ]
        return [AgentsHeard(tuple(heard))] if heard and self.now_us % HEARTBEAT_US == 0 else []

    def stall(self, seconds: float) -> Self:
        """The driver does not step for a while, then hears nothing and fires the timer with its lag."""
        lag_us = round(seconds * SECOND_US)
        self.now_us += lag_us
        return self.batch(TimerFired(lag_us))
