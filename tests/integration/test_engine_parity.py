"""The engine over a real store orders what a bare batcher orders: same script, same effects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from broker.clock import EngineClock
from broker.dispatch.batch import Batcher
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.messages import (
    AgentConnected,
    AgentLeft,
    AgentsHeard,
    AssignJob,
    Event,
    JobSubmitted,
    Notice,
    Reply,
    Send,
    SessionClosed,
    TimerFired,
)
from broker.dispatch.model import GroupNo, OnLoss, SessionId
from broker.engine import PULSE_US, Engine
from broker.settings import LimitSettings
from broker.store.base import Body, GroupRow
from broker.store.sqlite import SqliteStore
from tests.broker.dispatch.bench import GroupBench
from tests.broker.dispatch.driver import GROUP, START_US

AGENTS = ("a", "b", "c")
STEPS = 120
SEED = 5
Turn = tuple[int, list[Event]]


class Told:
    """What a driver let out, in order; replies without their tickets, which are the driver's own."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self.sends: list[Send] = []
        self.replies: list[Reply] = []

    def reply(self, replies: Sequence[Reply]) -> None:
        self.replies += [replace(one, ticket=0) for one in replies]


def script_of(seed: int, epoch: int) -> tuple[GroupBench, list[Turn]]:
    """A long course of events by chance, as the turns of a driver. The bench has worked them, with all invariants."""
    group = GroupBench(SEED)
    group.dispatcher.ledger.random = jitter(epoch)
    chance = Random(seed)
    for name in AGENTS:
        group.agents(name, slots=2)
    for number in range(STEPS):
        _act(group, chance, number)
    turns: list[Turn] = []
    events: list[Event] = []
    for now_us, event in group.watcher.script:
        if event is None:
            turns.append((now_us, events))
            events = []
        elif not isinstance(event, TimerFired):  # that is the driver's to say
            events.append(event)
    return group, turns


def jitter(epoch: int) -> Random:
    """The generator that an engine with this seed gives the group."""
    return Random(f"{SEED}/{GROUP}/{epoch}")


def _act(group: GroupBench, chance: Random, number: int) -> None:
    live = [name for name, phase in group.phases.items() if phase in {"sent", "accepted"}]
    name = chance.choice(AGENTS)
    act = chance.choice(("submit", "submit", "report", "report", "report", "stream", "operate", "cancel", "time"))
    if act == "submit":
        fields: dict[str, Any] = {
            "exclusive": chance.random() < 0.3,
            "on_loss": chance.choice(list(OnLoss)),
            "fairness": chance.choice("xy"),
            "delay_s": chance.choice((0, 0, 2)),
            "run_timeout_s": chance.choice((0, 3)),
            "idempotency_key": f"key {number // 3}",
        }
        group.submit(f"j{number}", **fields)
    elif act == "report" and live:
        getattr(group, chance.choice(("start", "finish", "fail", "stopped", "reject")))(chance.choice(live))
    elif act == "cancel" and group.job_names:
        group.cancel(chance.choice(sorted(group.job_names)))
    elif act == "stream":
        if group.agent(name).is_present and chance.random() < 0.5:
            group.close(name)
        else:
            group.connect(name, new=chance.random() < 0.4)
    elif act == "operate":
        todo = chance.choice(("drain", "cancel_drain", "disable", "enable", "enable"))
        getattr(group, todo)(name, **({"then": "requeue", "deadline_s": 3} if todo == "drain" else {}))
    elif act == "time":
        group.advance(chance.choice((0.5, 2, 7)))


# --- by a bare batcher ----------------------------------------------------------------------------------------------


def by_batcher(epoch: int, group: GroupBench, turns: list[Turn]) -> Told:
    """The script, worked by a batcher that commits at once."""
    told, batcher = Told(), Batcher(0)
    batcher.add(GROUP, Dispatcher(GROUP, group.policy, epoch, jitter(epoch)))
    for now_us, events in turns:
        batch = batcher.run(now_us, [(GROUP, event) for event in events])
        if batch.seq:
            batcher.committed()
        told.notices += batch.notices()
        told.sends += batch.sends()
        told.reply(list(batch.replies()))
    return told


# --- by the engine --------------------------------------------------------------------------------------------------


class Drive:
    """An engine whose clock stands still, fed one turn after another. It is its observer and every session's outbox."""

    def __init__(self, store: SqliteStore) -> None:
        self.told = Told()
        self.now_us = START_US
        self._turned = asyncio.Event()
        self.engine = Engine(
            store,
            EngineClock(wall_ns=lambda: START_US * 1_000, monotonic_ns=lambda: self.now_us * 1_000),
            LimitSettings(),
            GroupBench().policy,
            broker_id="broker",
            payload_cache_bytes_max=1 << 20,
            seed=SEED,
            observers=[self],
        )

    def on_batch(self, notices: Sequence[Notice], commit_seq: int) -> None:
        self.told.notices += notices
        self._turned.set()

    def on_commit(self, seconds: float, events: int, rows: int) -> None:
        assert seconds >= 0

    def on_full(self, queue: str) -> None:
        raise AssertionError(f"{queue} is full")

    def deliver(self, send: Send) -> None:
        self.told.sends.append(send)

    def assign(self, order: AssignJob, payload: Body, checkpoint: bytes) -> None:
        self.told.sends.append(order)

    async def turn(self, now_us: int, events: list[Event]) -> None:
        """One turn at this time; returns when all of it is out."""
        while self.now_us < now_us:  # time goes on, and the engine's loop with it
            self.now_us = min(now_us, self.now_us + PULSE_US)
            self.engine._look_at_clock()
        self._turned.clear()
        submissions = [event for event in events if isinstance(event, JobSubmitted)]
        if submissions:
            fresh = [replace(one, ticket=self.engine.ticket(), known=None) for one in submissions]
            self.told.reply(await self.engine.submit(GROUP, fresh))
        for event in events:
            if not isinstance(event, JobSubmitted):
                await self._post(event)
        self.engine._wake.set()
        async with asyncio.timeout(20):
            await self._turned.wait()

    async def _post(self, event: Event) -> None:
        engine = self.engine
        if isinstance(event, AgentsHeard):
            for agent, session, at_us in event.heard:
                assert at_us == self.now_us
                engine.heard(GROUP, agent, session)
        elif isinstance(event, AgentConnected):
            engine.attach(GROUP, SessionId(event.session), self)
            await engine.control(GROUP, event)
        elif isinstance(event, SessionClosed | AgentLeft):
            engine.post(GROUP, event)
        elif hasattr(event, "ticket"):
            asked: Any = event
            self.told.reply([await engine.ask(GROUP, lambda ticket: replace(asked, ticket=ticket))])
        else:
            await engine.report(GROUP, [event])


@asynccontextmanager
async def driven(path: Path) -> AsyncIterator[Drive]:
    store = SqliteStore(path)
    await store.open()
    organisation = await store.insert_organisation("default", "Default", 1)
    for number in range(GROUP):
        await store.insert_group(
            GroupRow(GroupNo(0), organisation.org_no, f"group-{number}", "", "", "private", True, 1)
        )
    drive = Drive(store)
    await drive.engine.recover()
    loop = asyncio.create_task(drive.engine.run())
    try:
        yield drive
    finally:
        drive.engine.close()
        await loop
        await store.close()


@pytest.mark.parametrize("seed", range(4))
async def test_engine_and_batcher_order_the_same_for_the_same_script(tmp_path: Path, seed: int) -> None:
    async with driven(tmp_path / "mesh.db") as drive:
        epoch = drive.engine.dispatcher(GROUP).epoch
        group, turns = script_of(seed, epoch)
        bare = by_batcher(epoch, group, turns)
        for now_us, events in turns:
            await drive.turn(now_us, events)
        engine = drive.told
        stored = await drive.engine._store.live_jobs(GROUP, GROUP << 40, 1_000)  # type: ignore[arg-type]
    assert engine.notices == bare.notices
    assert engine.sends == bare.sends
    assert engine.replies == bare.replies
    assert stored == [group.stored.jobs[key] for key in sorted(group.stored.jobs)]
    assert len(bare.notices) > STEPS / 2
