"""The page, asked for by threads while the event loop works, stands still, or is gone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from broker import series
from broker.observe import page
from broker.observe.metrics import Buckets, Sample
from broker.observe.page import MetricsPage
from broker.series import SeriesType


class Figures:
    """What the loop is asked for; counts how often."""

    def __init__(self) -> None:
        self.taken = 0

    def take(self) -> list[Sample]:
        self.taken += 1
        return [
            Sample(series.SESSIONS, (), self.taken),
            Sample(series.JOBS_SUBMITTED, ('a"b\\c\n/g',), 2),
            Sample(series.WAIT_SECONDS, ("default/default",), Buckets([("0.5", 1.0), ("+Inf", 3.0)], 4.5)),
        ]


@pytest.fixture
def figures() -> Figures:
    return Figures()


def read(text: bytes, name: str) -> Iterator[tuple[dict[str, str], float]]:
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            if sample.name == name:
                yield sample.labels, sample.value


async def test_page_has_exactly_the_series_of_the_list(figures: Figures, tmp_path: Path) -> None:
    found = MetricsPage(figures.take, tmp_path / "mesh.sqlite")
    found.open(asyncio.get_running_loop())
    text = (await asyncio.to_thread(found.text)).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    known = (*series.ALL, *series.PROCESS)
    assert set(families) == {one.name.removesuffix("_total") for one in known}
    for one in known:
        family = families[one.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (one.type, one.help)
        assert one.name.endswith("_total") == (one.type is SeriesType.COUNTER)


async def test_figures_are_those_of_the_moment_and_labels_keep_their_characters(
    figures: Figures, tmp_path: Path
) -> None:
    found = MetricsPage(figures.take, tmp_path / "mesh.sqlite")
    (tmp_path / "mesh.sqlite").write_bytes(b"12345")
    found.open(asyncio.get_running_loop())
    await asyncio.to_thread(found.text)
    text = await asyncio.to_thread(found.text)
    assert list(read(text, "mesh_sessions")) == [({}, 2.0)]
    assert list(read(text, "mesh_jobs_submitted_total")) == [({"group": 'a"b\\c\n/g'}, 2.0)]
    assert list(read(text, "mesh_store_bytes")) == [({"file": "main"}, 5.0)]
    group = {"group": "default/default"}
    assert list(read(text, "mesh_job_wait_seconds_bucket")) == [
        ({**group, "le": "0.5"}, 1.0),
        ({**group, "le": "+Inf"}, 3.0),
    ]
    assert list(read(text, "mesh_job_wait_seconds_sum")) == [(group, 4.5)]


def test_page_has_only_the_process_before_there_is_anything_to_tell(figures: Figures, tmp_path: Path) -> None:
    text = MetricsPage(figures.take, tmp_path / "mesh.sqlite").text()
    assert figures.taken == 0
    assert list(read(text, "mesh_sessions")) == []
    assert list(read(text, "process_open_fds"))


async def test_page_says_how_old_its_figures_are_when_the_loop_stands_still(
    figures: Figures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "WAIT_S", 0.05)
    found = MetricsPage(figures.take, tmp_path / "mesh.sqlite")
    found.open(asyncio.get_running_loop())
    await asyncio.to_thread(found.text)

    texts: list[bytes] = []
    reader = threading.Thread(target=lambda: texts.append(found.text()))
    reader.start()
    reader.join()  # the loop stands still: this is its thread

    assert list(read(texts[0], "mesh_sessions")) == [({}, 1.0)]
    [(_, age_s)] = read(texts[0], "mesh_snapshot_age_seconds")
    assert age_s >= 0.05


async def test_readers_share_one_request_when_the_loop_stands_still(
    figures: Figures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "WAIT_S", 0.2)
    found = MetricsPage(figures.take, tmp_path / "mesh.sqlite")
    found.open(asyncio.get_running_loop())
    await asyncio.to_thread(found.text)

    began_s = time.monotonic()
    readers = [threading.Thread(target=found.text) for _ in range(20)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()  # the loop stands still: this is its thread
    assert time.monotonic() - began_s < 10 * 0.2

    await asyncio.sleep(0)
    assert figures.taken == 2
    [(_, sessions)] = read(await asyncio.to_thread(found.text), "mesh_sessions")
    assert sessions == 3


async def test_dear_figures_are_used_again_instead_of_taken_anew(
    figures: Figures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "CHEAP_S", 0.0)
    monkeypatch.setattr(page, "SHARE", 1e9)
    found = MetricsPage(figures.take, tmp_path / "mesh.sqlite")
    found.open(asyncio.get_running_loop())
    texts = await asyncio.gather(*(asyncio.to_thread(found.text) for _ in range(8)))
    assert figures.taken == 1
    assert all(list(read(text, "mesh_sessions")) == [({}, 1.0)] for text in texts)


async def test_reader_is_told_when_the_figures_cannot_be_taken(tmp_path: Path) -> None:
    def fail() -> list[Sample]:
        raise ZeroDivisionError

    found = MetricsPage(fail, tmp_path / "mesh.sqlite")
    found.open(asyncio.get_running_loop())
    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(found.text)


def test_page_keeps_the_last_figures_when_the_loop_is_closed(figures: Figures, tmp_path: Path) -> None:
    found = MetricsPage(figures.take, tmp_path / "mesh.sqlite")

    async def ask() -> None:
        found.open(asyncio.get_running_loop())
        await asyncio.to_thread(found.text)

    asyncio.run(ask())
    assert list(read(found.text(), "mesh_sessions")) == [({}, 1.0)]
