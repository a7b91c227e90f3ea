from __future__ import annotations

import asyncio
import sqlite3
import stat
from pathlib import Path

import pytest

from broker.dispatch.rows import Writes
from broker.errors import ConfigError, StoreFailedError
from broker.store import file, migrations
from broker.store.base import Body
from broker.store.sqlite import SqliteStore
from tests.broker.store.peer import bench_of
from tests.chaos.forgetful import ForgetfulDisk
from tests.chaos.machine import missing
from tests.conftest import not_run

NOTHING_STAYS = 1
"""The seed of a disk that keeps nothing of what was not synced at its first power cut."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of a few hundred pages, closed in good order."""
    asyncio.run(_fill(tmp_path / "mesh.db"))
    return tmp_path / "mesh.db"


async def _fill(path: Path) -> None:
    bench = bench_of(path)
    await bench.start()
    rows = [bench.job(number) for number in range(1, 301)]
    await bench.commit(Writes(inserts=rows, payloads={row.job_key: Body(b"p" * 3_000) for row in rows}))
    await bench.store.close()


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def _refused(path: Path, error: type[Exception], text: str) -> None:
    """Opening raises an error with the name of the file and this text, and changes nothing."""
    before = path.read_bytes()
    with pytest.raises(error, match=text) as caught:
        asyncio.run(SqliteStore(path).open())
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


def test_damaged_page_is_refused(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8_192] = b"\xa5" * 8_192
    path.write_bytes(content)

    _refused(path, StoreFailedError, "is damaged")


def test_file_that_was_cut_short_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40_960])

    _refused(path, StoreFailedError, "is damaged")


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0", b"not a database\n" * 1_000])
def test_file_that_is_no_database_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    _refused(path, StoreFailedError, "does not begin like a database")


def test_damaged_first_page_is_refused(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100:4_096] = b"\xa5" * 3_996
    path.write_bytes(content)

    _refused(path, StoreFailedError, "is damaged")


def test_database_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as theirs:
        theirs.execute("CREATE TABLE job (title TEXT)")
    theirs.close()

    _refused(path, ConfigError, "another program")


async def test_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    path.mkdir()

    with pytest.raises(ConfigError, match="cannot be read"):
        await SqliteStore(path).open()


def test_file_of_a_newer_release_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()

    _refused(path, ConfigError, f"revision 9999, this release knows {migrations.HEAD}: .* start that release")


def test_file_without_a_schema_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE alembic_version")
    connection.close()

    _refused(path, StoreFailedError, "has no schema")


async def test_missing_file_is_refused_when_its_log_is_there(tmp_path: Path) -> None:
    (tmp_path / "mesh.db-wal").write_bytes(b"remains")

    with pytest.raises(StoreFailedError, match=r"mesh\.db is missing but mesh\.db-wal is there"):
        await SqliteStore(tmp_path / "mesh.db").open()

    assert not (tmp_path / "mesh.db").exists()


async def test_new_file_is_made_over_the_remains_of_an_interrupted_start(tmp_path: Path) -> None:
    for suffix in (".new", ".new-wal", ".new-journal"):
        (tmp_path / f"mesh.db{suffix}").write_bytes(b"half a file")
    store = SqliteStore(tmp_path / "mesh.db")

    await store.open()

    assert await store.groups() == []
    await store.close()
    assert _names(tmp_path) == ["mesh.db", "mesh.db.lock"]


def test_new_file_is_whole_when_it_has_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a name with % and ?.db"

    file.create(path)

    file.refuse_foreign(path)
    assert _names(tmp_path) == [path.name]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_new_file_and_the_folders_made_for_it_survive_a_power_cut(tmp_path: Path) -> None:
    lacking = missing(("fuse", "fusermount3", "mfusepy"))
    if lacking:
        not_run(lacking)
    async with ForgetfulDisk(tmp_path / "disk", seed=NOTHING_STAYS) as disk:
        folder = disk.folder / "site" / "mesh"
        folder.mkdir(parents=True)
        store = SqliteStore(folder / "mesh.db")
        await store.open()
        mesh_id = store.mesh_id
        await store.close()

        await disk.cut()

        again = SqliteStore(folder / "mesh.db")
        await again.open()
        assert again.mesh_id == mesh_id
        await again.close()
