from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from broker.dispatch.model import NO_JOB, GroupNo, JobKey
from broker.dispatch.rows import Writes
from broker.errors import ConfigError, StoreBusyError, StoreFailedError
from broker.store import search
from broker.store.base import Body, CommitOutcome, CommitStatus, JobPage, JobQuery
from broker.store.sqlite import SqliteStore
from tests.broker.store import peer
from tests.conformance.bench import BROKER, StoreBench
from tests.conftest import not_run

MIB = 1 << 20
WAIT_S = 20.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mesh.db"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False).returncode != 0:
        not_run("a file system of 12 MiB cannot be mounted: needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _size(path: Path) -> int:
    return path.stat().st_size


def _large(bench: StoreBench, first: int) -> Writes:
    """A batch of about a mebibyte."""
    rows = [bench.job(number) for number in range(first, first + 8)]
    payloads: dict[JobKey, object] = {row.job_key: Body(b"p" * (MIB // 8)) for row in rows}
    return Writes(inserts=rows, payloads=payloads)


async def _fill(bench: StoreBench) -> tuple[CommitOutcome, Writes]:
    """Commit large batches until one is not committed; returns its outcome and the batch."""
    for first in range(1, 1_000, 8):
        writes = _large(bench, first)
        outcome = await bench.commit(writes)
        if outcome.status is not CommitStatus.COMMITTED:
            return outcome, writes
    raise AssertionError("the disk was never full")


async def _check_whole(bench: StoreBench, refused: Writes) -> None:
    """All that was acknowledged is there, and nothing of the refused batch."""
    keys = await bench.keys()
    assert len(keys) == bench.seq * 8
    assert await bench.store.committed_seq(BROKER) == bench.seq
    assert not set(keys) & {row.job_key for row in refused.inserts}
    assert await bench.store.payloads([row.job_key for row in refused.inserts]) == {}


async def test_full_disk_rolls_back_for_certain_and_the_same_batch_fits_later(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(7 * MIB))
    path = small_disk / "mesh.db"
    bench = StoreBench(lambda: SqliteStore(path), SqliteStore(path))
    await bench.start()

    outcome, refused = await _fill(bench)

    assert outcome.status is CommitStatus.ROLLED_BACK
    assert "full" in outcome.why
    assert outcome.retry_after_s > 0
    await _check_whole(bench, refused)
    ballast.unlink()
    assert (await bench.commit(refused)).status is CommitStatus.COMMITTED
    await bench.reopen()
    assert len(await bench.keys()) == bench.seq * 8
    await bench.store.close()


async def test_full_file_rolls_back_for_certain_and_small_batches_still_fit(path: Path) -> None:
    bench = StoreBench(lambda: SqliteStore(path), SqliteStore(path, file_bytes_max=5 * MIB))
    await bench.start()

    outcome, refused = await _fill(bench)

    assert outcome.status is CommitStatus.ROLLED_BACK
    assert "full" in outcome.why
    await _check_whole(bench, refused)
    assert (await bench.commit(Writes(inserts=[bench.job(9_999)]))).status is CommitStatus.COMMITTED
    await bench.store.close()
    assert 3 * MIB < _size(path) <= 5 * MIB


async def test_foreign_lock_rolls_back_for_certain(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.store.connection.BUSY_TIMEOUT_S", 0.05)
    bench = StoreBench(lambda: SqliteStore(path), SqliteStore(path))
    await bench.start()
    foreign = sqlite3.connect(path, isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")

    outcome = await bench.commit(Writes(inserts=[bench.job(1)]))
    with pytest.raises(StoreBusyError):
        await bench.store.insert_organisation("globex", "Globex", 5)

    assert outcome.status is CommitStatus.ROLLED_BACK
    assert "locked" in outcome.why
    foreign.execute("ROLLBACK")
    foreign.close()
    assert (await bench.commit(Writes(inserts=[bench.job(1)]))).status is CommitStatus.COMMITTED
    await bench.store.close()


@pytest.mark.e2e
async def test_error_of_the_disk_is_the_end_until_the_file_is_opened_again(path: Path) -> None:
    with peer.start("limit", path) as limited:
        said, _ = limited.communicate()

    commit, read = said.splitlines()
    assert commit.startswith("StoreFailedError")
    assert str(path) in commit
    assert read == commit
    bench = await peer.resume(path)
    assert bench.seq == 1
    assert await bench.keys() == [bench.job(1).job_key]
    await bench.store.close()


@pytest.mark.e2e
async def test_kill_keeps_every_acknowledged_batch_whole(path: Path) -> None:
    acknowledged = 0
    for batches in (3, 40, 120):
        with peer.start("commit", path) as committer:
            assert committer.stdout is not None
            said = [committer.stdout.readline() for _ in range(batches)]
            committer.kill()
            said += committer.stdout.readlines()
        assert int(said[-1]) == acknowledged + len(said)
        acknowledged = int(said[-1])
        bench = await peer.resume(path)
        rows = await bench.store.live_jobs(bench.group, NO_JOB, 100_000)
        keys = [row.job_key for row in rows]

        # One more may be on disk whose acknowledgement was not said any more.
        assert acknowledged <= bench.seq <= acknowledged + 1
        acknowledged = bench.seq
        assert keys == [bench.job(number).job_key for number in range(1, bench.seq * peer.BATCH + 1)]
        assert await bench.store.payloads(keys) == {key: Body(b"%d" % key) for key in keys}
        await bench.store.close()


async def test_store_syncs_fully_unless_told_otherwise(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    assert store.synchronous == "FULL"
    await store.close()

    measured = SqliteStore(path, synchronous="OFF")
    await measured.open()
    assert measured.synchronous == "OFF"
    await measured.close()

    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_store_names_the_choices_when_synchronous_is_none_of_them(path: Path) -> None:
    with pytest.raises(ConfigError, match="'full': it must be one of OFF, NORMAL, FULL, EXTRA"):
        SqliteStore(path, synchronous="full")


def test_store_refuses_a_sqlite_that_lacks_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 32, 3))

    with pytest.raises(ConfigError, match=r"is too old: use a Python with 3\.33 or newer"):
        SqliteStore(tmp_path / "mesh.db")


async def test_store_has_a_thread_for_every_role_and_leaves_none(path: Path) -> None:
    def threads() -> set[str]:
        names = (thread.name for thread in threading.enumerate())
        return {name.rpartition("_")[0] for name in names if name.startswith("store-")}

    store = SqliteStore(path)
    await store.open()
    await store.job([], b"")
    await store.payloads([])
    assert threads() == {"store-writer", "store-reader", "store-history", "store-checkpoint"}

    await store.close()

    assert threads() == set()


async def test_store_that_is_not_open_says_so(path: Path) -> None:
    with pytest.raises(StoreFailedError, match="is not open"):
        await SqliteStore(path).groups()


async def test_history_is_read_while_a_transaction_is_open(path: Path) -> None:
    bench = StoreBench(lambda: SqliteStore(path), SqliteStore(path))
    await bench.start()
    await bench.insert(bench.job(1))
    foreign = sqlite3.connect(path, isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    foreign.execute("DELETE FROM job")

    assert (await bench.read(bench.job(1))).row == bench.job(1)

    foreign.execute("ROLLBACK")
    foreign.close()
    await bench.store.close()


async def test_known_request_is_found_while_a_long_search_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = StoreBench(lambda: SqliteStore(path), SqliteStore(path))
    await bench.start()
    began, answered = threading.Event(), threading.Event()

    def list_jobs(_: Connection, __: JobQuery) -> JobPage:
        began.set()
        assert answered.wait(WAIT_S)
        return JobPage([], None)

    monkeypatch.setattr(search, "list_jobs", list_jobs)
    searching = asyncio.create_task(bench.store.jobs(JobQuery((GroupNo(1),))))
    assert await asyncio.to_thread(began.wait, WAIT_S)
    try:
        async with asyncio.timeout(WAIT_S / 2):
            assert await bench.store.find_request(1, "none", 0) is None
    finally:
        answered.set()
        await searching
        await bench.store.close()
