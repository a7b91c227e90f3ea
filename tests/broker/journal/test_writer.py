"""A journal is bounded, tells what becomes of it, and never makes anybody wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from random import Random
from typing import Any

import pytest

from broker.journal.segment import SegmentReader, segments_of
from broker.journal.writer import BYTES_MAX, FRAME_EVENTS, PARTS, JournalWriter

WAIT_S = 20.0
MIB = 1 << 20
Told = tuple[str, dict[str, object]]


class Bench:
    """A writer, and what it told."""

    def __init__(self, folder: Path, bytes_max: int = MIB, **bounds: Any) -> None:
        self.folder = folder / "journal"
        self._told: Queue[Told] = Queue()
        self.writer = JournalWriter(self.folder, bytes_max, lambda *told: self._told.put(told), **bounds)
        self.writer.start()

    def begin(self) -> None:
        assert self.writer.wants_segment
        self.writer.begin(lambda number: [f'["head",{number}]'])

    def told(self, event: str) -> dict[str, object]:
        """The next thing that is told, which must be this."""
        name, fields = self._told.get(timeout=WAIT_S)
        assert name == event, (name, fields)
        return fields

    def lines(self) -> list[list[list[object]]]:
        return [list(SegmentReader(path).lines()) for path in segments_of(self.folder)]


@pytest.fixture
def bench_of(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**bounds: Any) -> Bench:
        made.append(Bench(tmp_path, **bounds))
        return made[-1]

    yield make
    for bench in made:
        bench.writer.close()


def test_writer_writes_what_it_was_given_in_order(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of()
    bench.begin()
    for number in range(5_000):
        bench.writer.add([f'["turn",{number}]'], 1, 0)
    bench.writer.close()
    assert bench.lines() == [[["head", 1], *(["turn", number] for number in range(5_000)), ["end", "stopped"]]]
    assert bench.writer.left_out == 0
    (path,) = segments_of(bench.folder)
    assert (bench.writer.total_bytes, path.stat().st_mode & 0o777) == (path.stat().st_size, 0o600)


def test_new_writer_goes_on_with_the_next_number(bench_of: Callable[..., Bench]) -> None:
    first = bench_of()
    first.begin()
    first.writer.close()
    second = bench_of()
    second.begin()
    second.writer.close()
    assert second.lines() == [[["head", 1], ["end", "stopped"]], [["head", 2], ["end", "stopped"]]]


def test_nothing_is_written_before_a_segment_has_begun(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of()
    bench.writer.add(['["turn",1]'], 1, 0)
    bench.begin()
    bench.writer.close()
    assert bench.lines() == [[["head", 1], ["end", "stopped"]]]
    assert bench.writer.left_out == 1


@pytest.mark.parametrize(("events", "size"), [(40, 0), (1, BYTES_MAX // 2 + 1)])
def test_segment_ends_and_another_is_wanted_later_when_the_queue_is_full(
    bench_of: Callable[..., Bench], events: int, size: int
) -> None:
    bench = bench_of(events_max=100)
    is_let_go = threading.Event()

    def held() -> Iterator[str]:
        assert is_let_go.wait(WAIT_S)
        yield '["turn",0]'

    bench.begin()
    bench.told("began")
    bench.writer.add(held(), 1, 0)  # the thread stands still in this one
    for number in range(1, 9):
        bench.writer.add([f'["turn",{number}]'], events, size)
    assert not bench.writer.is_open
    assert bench.writer.left_out >= 5
    is_let_go.set()
    assert bench.told("ended") == {"segment": 1, "why": "queue_full"}
    assert bench.writer.wants_segment
    bench.begin()
    bench.writer.add(['["turn",9]'], 1, 0)
    bench.writer.close()
    first, second = bench.lines()
    assert first[-1] == ["end", "queue_full"]
    assert [line[1] for line in first[1:-1]] == list(range(len(first) - 2))
    assert second == [["head", 2], ["turn", 9], ["end", "stopped"]]


def noise(chance: Random) -> str:
    """A line that takes 32 KiB in a segment."""
    return f'["turn","{chance.randbytes(1 << 15).hex()}"]'


def add_noise(bench: Bench, chance: Random) -> None:
    """Add a line, a frame of its own; return when the thread has it."""
    is_taken = threading.Event()

    def lines() -> Iterator[str]:
        yield noise(chance)
        is_taken.set()

    bench.writer.add(lines(), FRAME_EVENTS, 0)
    assert is_taken.wait(WAIT_S)


def test_oldest_segments_go_when_the_journal_is_full(bench_of: Callable[..., Bench]) -> None:
    bench, chance = bench_of(), Random(1)
    for number in range(1, 2 * PARTS):
        bench.begin()
        if number > 1:
            assert bench.told("ended")["why"] == "next_segment"
        bench.told("began")
        while not bench.writer.wants_segment:
            add_noise(bench, chance)
        assert bench.writer.is_open
        assert bench.writer.total_bytes <= MIB
    bench.writer.close()
    names = [int(path.stem) for path in segments_of(bench.folder)]
    assert names == list(range(names[0], 2 * PARTS))
    assert names[0] > 1
    assert sum(path.stat().st_size for path in segments_of(bench.folder)) <= MIB
    assert all(lines[0][0] == "head" and lines[-1][0] == "end" for lines in bench.lines())


def test_segment_ends_by_itself_when_no_other_begins(bench_of: Callable[..., Bench]) -> None:
    bench, chance = bench_of(), Random(1)
    bench.begin()
    bench.told("began")
    for _ in range(4 * MIB // PARTS >> 15):
        bench.writer.add([noise(chance)], FRAME_EVENTS, 0)
    assert bench.told("ended")["why"] == "too_large"
    assert not bench.writer.is_open
    assert 2 * MIB // PARTS <= bench.writer.total_bytes < 3 * MIB // PARTS


def test_writer_goes_on_later_when_the_disk_refuses(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of(retry_s=0.0)
    bench.folder.rename(bench.folder.with_name("away"))
    bench.begin()
    assert "No such file" in str(bench.told("failed")["why"])
    bench.writer.add(['["turn",1]'], 1, 0)
    bench.folder.with_name("away").rename(bench.folder)
    bench.begin()
    bench.writer.add(['["turn",2]'], 1, 0)
    bench.writer.close()
    assert bench.lines() == [[["head", 2], ["turn", 2], ["end", "stopped"]]]
    assert bench.writer.left_out == 1


def test_next_segment_is_not_wanted_at_once_when_the_disk_refuses(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of()
    bench.folder.rmdir()
    bench.begin()
    bench.told("failed")
    assert not bench.writer.is_open
    assert not bench.writer.wants_segment
