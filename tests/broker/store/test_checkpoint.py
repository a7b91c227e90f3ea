from __future__ import annotations

from pathlib import Path

from broker.dispatch.rows import Writes
from broker.store.base import Body, CommitStatus
from broker.store.sqlite import SqliteStore
from tests.conformance.bench import StoreBench

MIB = 1 << 20


async def test_log_stays_small_while_commits_go_on(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    bench = StoreBench(lambda: SqliteStore(path), SqliteStore(path, wal_pages_max=64))
    await bench.start()
    log, longest = tmp_path / "mesh.db-wal", 0

    for batch in range(400):
        rows = [bench.job(batch * 20 + number) for number in range(1, 21)]
        await bench.commit(Writes(inserts=rows, payloads={row.job_key: Body(b"p" * 2_000) for row in rows}))
        longest = max(longest, log.stat().st_size)

    assert path.stat().st_size > 12 * MIB
    assert longest < 4 * MIB
    await bench.store.close()
    assert not log.exists()


async def test_log_is_taken_into_the_file_before_the_store_serves(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    bench = StoreBench(lambda: SqliteStore(path), SqliteStore(path))
    await bench.start()
    await bench.insert(bench.job(1))
    # What a power cut leaves: the file and its log, without an orderly end.
    folder = tmp_path / "after"
    folder.mkdir()
    for name in ("mesh.db", "mesh.db-wal"):
        (folder / name).write_bytes((tmp_path / name).read_bytes())
    await bench.store.close()
    assert (folder / "mesh.db-wal").stat().st_size > 0

    bench.store = SqliteStore(folder / "mesh.db")
    await bench.store.open()

    assert (folder / "mesh.db-wal").stat().st_size == 0
    assert await bench.keys() == [bench.job(1).job_key]
    await bench.own()
    assert (await bench.commit(Writes(inserts=[bench.job(2)]))).status is CommitStatus.COMMITTED
    await bench.store.close()
