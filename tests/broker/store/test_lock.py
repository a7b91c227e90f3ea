from __future__ import annotations

import os
from pathlib import Path

import pytest

from broker.errors import ConfigError, StoreLockedError
from broker.store.lock import FileLock
from broker.store.sqlite import SqliteStore
from tests.broker.store import peer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mesh.db"


@pytest.mark.e2e
async def test_store_refuses_to_open_when_another_process_has_it(path: Path) -> None:
    with peer.start("hold", path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"

        with pytest.raises(StoreLockedError, match=f"{path}.lock is locked by process {holder.pid}:"):
            await SqliteStore(path).open()

        holder.kill()
    store = SqliteStore(path)
    await store.open()
    await store.close()


async def test_store_is_free_again_when_a_lock_was_refused(path: Path) -> None:
    first, second = SqliteStore(path), SqliteStore(path)
    await first.open()
    with pytest.raises(StoreLockedError, match=f"process {os.getpid()}:"):
        await second.open()
    await first.close()

    await second.open()

    await second.close()


def test_lock_names_its_holder(path: Path) -> None:
    lock = FileLock(path)

    lock.acquire()

    assert lock.path.read_text() == f"{os.getpid()}\n"
    lock.release()
    lock.release()


def test_lock_says_what_is_wrong_when_the_folder_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere/mesh\.db\.lock cannot be opened"):
        FileLock(tmp_path / "nowhere" / "mesh.db").acquire()
