"""The keeper over a real spool and a real session; the test is the driver that sweeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_stub.keeper import Keeper
from agent_stub.session import (
    AgentSession,
    Assign,
    KeepOutcome,
    Outcome,
    OutcomeStatus,
    StartRun,
    Verdict,
    Welcome,
)
from agent_stub.spool import Spool

S = 1_000_000
MIB = 1 << 20
WAIT_S = 10.0


class Bench:
    """A session that lives, and the keeper of its outcomes."""

    def __init__(self, folder: Path, slots: int = 4, bytes_max: int = 64 * MIB) -> None:
        self.session = AgentSession(slots, keeps_first=True)
        self.spool = Spool(folder)
        self.changed = asyncio.Event()
        self.keeper = Keeper(self.spool, self.session, bytes_max, self.changed.set)
        self.now = 0

    def connect(self) -> None:
        hello = self.session.hello(self.now)
        verdicts = [Verdict.KEEP] * len(hello.held)
        self.session.welcomed(self.now, Welcome(1, 1, 10 * S, 2 * S, 2 * S, 5 * S, verdicts))

    def finish(self, job_key: int, *, exclusive: bool = False) -> None:
        """Take, run and end an attempt."""
        self.session.assigned(self.now, Assign(job_key, 1, "copy", exclusive))
        assert [order for order in self.session.take_orders() if isinstance(order, StartRun)]
        self.session.finished(self.now, Outcome(job_key, 1, OutcomeStatus.SUCCEEDED, content=b"x"))

    def sent(self) -> list[int]:
        """The jobs whose outcomes leave now."""
        found = []
        while (frame := self.session.take_frame(self.now)) is not None:
            found += [outcome.job_key for outcome in frame.outcomes]
        return found

    async def written(self) -> None:
        async with asyncio.timeout(WAIT_S):
            await self.changed.wait()
        self.changed.clear()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path / "spool")
    bench.keeper.restore()
    bench.connect()
    yield bench
    bench.keeper.close()


async def test_outcome_goes_to_the_spool_when_it_has_waited_a_second(bench: Bench) -> None:
    bench.finish(1)
    for _ in range(2):
        bench.keeper.sweep()
    assert not bench.changed.is_set()
    bench.keeper.sweep()
    await bench.written()
    assert list(bench.spool) == [(1, 1)]
    assert bench.keeper.has_all


async def test_outcome_goes_to_the_spool_at_once_without_a_stream(bench: Bench) -> None:
    bench.finish(1)
    bench.session.disconnected(bench.now)
    assert not bench.keeper.has_all
    bench.keeper.sweep()
    await bench.written()
    assert bench.keeper.has_all


async def test_outcome_goes_to_the_spool_at_once_when_the_agent_is_to_leave(bench: Bench) -> None:
    bench.finish(1)
    bench.session.drain("SIGTERM")
    bench.keeper.sweep()
    await bench.written()
    assert list(bench.spool) == [(1, 1)]


async def test_acknowledged_outcome_leaves_the_spool(bench: Bench) -> None:
    bench.finish(1)
    bench.session.drain("SIGTERM")
    bench.keeper.sweep()
    await bench.written()
    bench.session.acknowledged([(1, 1)])
    bench.keeper.acknowledged([(1, 1)])
    assert list(bench.spool.folder.iterdir()) == []


async def test_outcome_that_was_acknowledged_while_it_was_written_leaves_the_spool(bench: Bench) -> None:
    bench.finish(1)
    bench.session.drain("SIGTERM")
    bench.keeper.sweep()
    bench.session.acknowledged([(1, 1)])
    bench.keeper.acknowledged([(1, 1)])
    await bench.written()
    assert list(bench.spool.folder.iterdir()) == []


async def test_exclusive_outcome_is_on_disk_before_it_is_sent(bench: Bench) -> None:
    bench.finish(1, exclusive=True)
    order = next(order for order in bench.session.take_orders() if isinstance(order, KeepOutcome))
    assert bench.sent() == []
    bench.keeper.keep_first(order.outcome)
    await bench.written()
    assert (bench.spool.folder / "1-1.outcome").is_file()
    assert bench.sent() == [1]


async def test_exclusive_outcome_that_the_disk_does_not_take_is_tried_again_and_nothing_new_is_taken(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    obstacle = bench.spool.folder / "1-1.outcome"
    obstacle.mkdir()
    bench.finish(1, exclusive=True)
    order = next(order for order in bench.session.take_orders() if isinstance(order, KeepOutcome))
    bench.keeper.keep_first(order.outcome)
    await bench.written()
    assert bench.session.capacity == 0
    assert [record.message for record in caplog.records] == ["spool.failed"]
    obstacle.rmdir()
    bench.keeper.sweep()
    await bench.written()
    assert bench.session.capacity == 4
    assert bench.sent() == [1]


async def test_outcomes_of_an_earlier_process_are_in_the_next_hello(bench: Bench, tmp_path: Path) -> None:
    bench.finish(1)
    bench.finish(2)
    bench.keeper.flush()
    after = Bench(tmp_path / "spool")
    after.keeper.restore()
    hello = after.session.hello(0)
    assert [outcome.job_key for outcome in hello.outcomes] == [1, 2]
    assert after.session.held == 2
    after.keeper.close()


async def test_capacity_is_what_the_spool_can_hold(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(tmp_path / "spool", slots=100, bytes_max=16 * MIB)
    bench.keeper.restore()
    assert bench.session.capacity == 15
    assert [record.message for record in caplog.records] == ["spool.limits_capacity"]
    bench.connect()
    for job_key in range(15):
        bench.session.assigned(0, Assign(job_key, 1, "copy"))
    bench.session.assigned(0, Assign(15, 1, "copy"))
    frame = bench.session.take_frame(0)
    assert frame is not None
    assert len(frame.accepted) == 15
    assert [rejected.job_key for rejected in frame.rejected] == [15]
    bench.keeper.close()


async def test_capacity_shrinks_with_the_room_on_the_disk_and_comes_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Spool, "free_bytes", 18 * MIB)
    bench.keeper.sweep()
    frame = bench.session.take_frame(0)
    assert frame is not None
    assert frame.capacity is not None
    assert frame.capacity.attempts == 1
    monkeypatch.undo()
    bench.keeper.sweep()
    assert bench.session.capacity == 4


async def test_small_outcomes_give_back_the_room_that_was_reserved_for_large_ones(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "spool", slots=100, bytes_max=16 * MIB)
    bench.keeper.restore()
    bench.connect()
    for job_key in range(3):
        bench.finish(job_key)
    bench.session.disconnected(0)
    bench.keeper.sweep()
    bench.keeper.close()
    await asyncio.sleep(0)
    bench.keeper.sweep()
    assert len(bench.spool) == 3
    assert bench.session.capacity == 3 + 15
