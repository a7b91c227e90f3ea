from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos.forgetful import ForgetfulDisk
from tests.chaos.machine import missing
from tests.chaos.platter import Forgotten
from tests.chaos.row import RowError
from tests.conftest import not_run

pytestmark = pytest.mark.e2e

NOTHING_STAYS = 1
"""The seed of a disk that keeps nothing of what was not synced at its first power cuts."""


def write(path: Path, content: bytes, *, is_synced: bool) -> None:
    """As programs do."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    os.write(descriptor, content)
    if is_synced:
        os.fsync(descriptor)
    os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Keep its names."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)


async def test_disk_forgets_what_was_not_synced_at_each_cut(tmp_path: Path) -> None:
    if lacking := missing(("fuse", "fusermount3", "mfusepy")):
        not_run(lacking)
    async with ForgetfulDisk(tmp_path / "disk", seed=NOTHING_STAYS) as disk:
        write(disk.folder / "safe", b"content", is_synced=True)
        write(disk.folder / "empty", b"content", is_synced=False)
        sync_folder(disk.folder)
        write(disk.folder / "nameless", b"content", is_synced=True)
        first = await disk.cut()
        found = {path.name: path.read_bytes() for path in disk.folder.iterdir()}
        (disk.folder / "safe").rename(disk.folder / "renamed")
        (disk.folder / "made").mkdir()
        second = await disk.cut()
        names = sorted(path.name for path in disk.folder.iterdir())

    assert first == Forgotten(sectors=1, names=1)
    assert found == {"safe": b"content", "empty": b""}
    assert second.names == 2
    assert names == ["empty", "safe"]
    assert not (tmp_path / "disk").is_mount()


async def test_disk_that_cannot_be_mounted_is_a_reason_not_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSE_LIBRARY_PATH", str(tmp_path / "no-library"))

    with pytest.raises(RowError, match="no file system of FUSE"):
        async with ForgetfulDisk(tmp_path / "disk", seed=1):
            pass
