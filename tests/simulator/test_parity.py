"""The world and the engine are one broker: the same events at the same times, the same transitions, orders and answers.

A scenario is simulated, and what its driver was given is written down turn by turn. The engine of the broker, over a
real SQLite file, is given the same through its own mailbox; a broker that dies in the world is an engine that is
closed, and another one that recovers from the file.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from broker.clock import EngineClock
from broker.dispatch.batch import Batch, Batcher
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.messages import (
    AgentConnected,
    AgentsHeard,
    AssignJob,
    Effects,
    Event,
    JobSubmitted,
    Notice,
    Reply,
    Send,
    SessionClosed,
    Transition,
)
from broker.dispatch.model import GroupNo
from broker.engine import PULSE_US, Engine
from broker.settings import LimitSettings
from broker.store.base import Body, GroupRow
from broker.store.sqlite import SqliteStore
from simulator.fleet import policy_of
from simulator.scenario import Scenario
from simulator.streams import Stream, Streams
from simulator.world import World
from tests.simulator.worlds import scenario

GROUP = GroupNo(1)
SEED = 3
FAULTS: list[dict[str, Any]] = [
    {"at": "8 s", "crash": "erp/1", "for": "5 s"},
    {"at": "16 s", "hang": "erp/2", "for": "14 s"},
    {"at": "18 s", "drain": "erp/3", "for": "6 s", "then": "requeue", "deadline": "1 s"},
    {"at": "32 s", "partition": "zone-b", "for": "8 s", "way": "to-broker"},
    {"at": "44 s", "store-stall": True, "for": "2 s"},
    {"at": "50 s", "broker-crash": True, "for": "3 s"},
    {"at": "60 s", "poison": "orders", "repair": "2 s"},
]


@dataclass(slots=True)
class Turn:
    """What a driver was given at a time, and what it let out then. Tickets are each driver's own."""

    at_us: int
    lag_us: int
    events: list[Event]
    notices: list[Notice]
    sends: list[Send]
    replies: list[Reply]

    @classmethod
    def of(cls, at_us: int, lag_us: int, events: Sequence[tuple[GroupNo, Event]], effects: Iterable[Effects]) -> "Turn":
        """A turn of one group."""
        turn = cls(at_us, lag_us, [event for _, event in events], [], [], [])
        for one in effects:
            turn.notices += one.notices
            turn.sends += one.sends
            turn.replies += [replace(reply, ticket=0) for reply in one.replies]
        return turn

    @property
    def said(self) -> tuple[object, ...]:
        """What must be the same."""
        return self.at_us, self.lag_us, self.notices, self.sends, self.replies


Life = tuple[int, list[Turn]]
"""When a broker was there, and its turns."""


def lives_of(one: Scenario) -> list[Life]:
    """The brokers of a simulated scenario, one after the other. What one had not committed when it died is left out."""
    lives: list[Life] = []
    batchers: list[Batcher] = []
    world: World | None = None

    class Written(Batcher):
        def __init__(self, seq: int) -> None:
            super().__init__(seq)
            if batchers and batchers[-1].pending is not None:
                lives[-1][1].pop()
            batchers.append(self)
            lives.append((world.clock.now_us if world else 0, []))

        def run(self, now_us: int, events: Iterable[tuple[GroupNo, Event]], lag_us: int = 0) -> Batch:
            given = list(events)
            batch = super().run(now_us, given, lag_us)
            lives[-1][1].append(Turn.of(now_us, lag_us, given, batch.effects.values()))
            return batch

        def successor(self) -> Batcher:
            return Written(self.seq)

    world = World(one, SEED, 0)
    written = Written(0)
    written.add(GROUP, world.driver.dispatcher(GROUP))
    # Nothing has happened yet. Names in modules are not replaced: compiled modules do not look them up again.
    world.driver._batcher = written
    released: list[Notice] = []
    world.driver.when_noticed = lambda _, notices: released.extend(notices)
    world.run()
    assert released == [notice for _, turns in lives for turn in turns for notice in turn.notices]
    return lives


def jitter(epoch: int) -> random.Random:
    """The generator that the world gives the group."""
    rng = Streams(SEED, 0).generator(Stream.DISPATCHER, GROUP)
    return random.Random(int(rng.integers(1 << 62)) + epoch)


class Drive:
    """An engine whose clock stands still between turns. It is its recorder, and the outbox of every session."""

    def __init__(self, store: SqliteStore, now_us: int, policy: Any) -> None:
        self.now_us = now_us
        self.turns: list[Turn] = []
        self._worked = 0
        self._has_turned = asyncio.Event()
        self.engine = Engine(
            store,
            EngineClock(wall_ns=lambda: self.now_us * 1_000, monotonic_ns=lambda: self.now_us * 1_000),
            LimitSettings(),
            policy,
            broker_id="broker",
            payload_cache_bytes_max=1 << 20,
            seed=1,
        )

    def before(self, now_us: int, dispatchers: Callable[[], Iterable[Dispatcher]]) -> None:
        pass

    def turn(
        self, at_us: int, lag_us: int, events: Sequence[tuple[GroupNo, Event]], effects: Mapping[GroupNo, Effects]
    ) -> None:
        self.turns.append(Turn.of(at_us, lag_us, events, effects.values()))
        self._worked += len(events)
        self._has_turned.set()

    def added(self, dispatcher: Dispatcher) -> None:
        pass

    def lost(self, groups: object) -> None:
        raise AssertionError(groups)

    def deliver(self, send: Send) -> None:
        pass

    def assign(self, order: AssignJob, payload: Body, checkpoint: bytes) -> None:
        pass

    async def play(self, turn: Turn) -> None:
        """Give it what the world's driver was given at that time, in one go; returns when the engine has worked it."""
        heard = [one for event in turn.events if isinstance(event, AgentsHeard) for one in event.heard]
        for agent, session, at_us in sorted(heard, key=itemgetter(2)):
            self._live_until(at_us)
            self.engine.heard(GROUP, agent, session)
        self._live_until(turn.at_us)
        wanted = self._worked + len(turn.events)
        asked = [asyncio.create_task(call) for event in turn.events if (call := self._call(event)) is not None]
        self.engine._wake.set()
        async with asyncio.timeout(20):
            while self._worked < wanted or self.turns[-1].at_us != turn.at_us:
                self._has_turned.clear()
                await self._has_turned.wait()
            await asyncio.gather(*asked)

    def _live_until(self, at_us: int) -> None:
        """Time goes on, and the engine's loop with it."""
        while self.now_us < at_us:
            self.now_us = min(at_us, self.now_us + PULSE_US)
            self.engine._look_at_clock()

    def _call(self, event: Event) -> Any:
        engine = self.engine
        if isinstance(event, AgentsHeard):
            return None  # heard already
        if isinstance(event, JobSubmitted):
            return engine.submit(GROUP, [replace(event, ticket=engine.ticket())])
        if isinstance(event, AgentConnected):
            engine.attach(GROUP, event.session, self)
            return engine.control(GROUP, event)
        if isinstance(event, SessionClosed):
            return engine.control(GROUP, event)
        if hasattr(event, "ticket"):
            asked: Any = event
            return engine.ask(GROUP, lambda ticket: replace(asked, ticket=ticket))
        return engine.report(GROUP, [event])


async def by_engine(path: Path, policy: Any, number: int, life: Life) -> list[Turn]:
    """One life of the broker, by an engine over the file that the one before has left."""
    began_us, turns = life
    store = SqliteStore(path)
    await store.open()
    if not await store.groups():
        organisation = await store.insert_organisation("default", "Default", 1)
        await store.insert_group(GroupRow(GroupNo(0), organisation.org_no, "erp", "ERP", "", "private", True, 1))
    drive = Drive(store, began_us, policy)
    drive.engine.record(drive)
    await drive.engine.recover()
    dispatcher = drive.engine.dispatcher(GROUP)
    assert dispatcher.epoch == number
    dispatcher.ledger.random = jitter(number)
    loop = asyncio.create_task(drive.engine.run())
    try:
        for turn in turns:
            await drive.play(turn)
    finally:
        drive.engine.close()
        await loop
        await store.close()
    return [turn for turn in drive.turns if turn.events or turn.notices or turn.sends]


@pytest.mark.slow
async def test_engine_and_world_make_the_same_transitions_of_the_same_events(
    tmp_path: Path,
) -> None:
    work = {"failure": "5 %", "attempts": 2, "exclusive": True, "crashes": 2}
    one = scenario(arrivals={"poisson": "4/s"}, work=work, settle="1 s", run="70 s", faults=FAULTS)
    lives = lives_of(one)
    policy = policy_of(one.groups["erp"], one.broker)
    assert len(lives) == 2
    for number, life in enumerate(lives, 1):
        seen = await by_engine(tmp_path / "mesh.db", policy, number, life)
        expected = [turn for turn in life[1] if turn.events or turn.notices or turn.sends]
        for engine, world in zip(seen, expected, strict=True):
            assert engine.said == world.said
    states = {
        str(notice.to_state)
        for _, turns in lives
        for turn in turns
        for notice in turn.notices
        if isinstance(notice, Transition)
    }
    assert {"queued", "assigned", "running", "scheduled", "succeeded", "dead"} <= states
