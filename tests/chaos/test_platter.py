from __future__ import annotations

import errno
import os
import random
import stat

import pytest

from tests.chaos.platter import SECTOR_BYTES, File, Folder, Forgotten, Platter, Write

NOTHING, ALL = 0.0, 1.0


def a_file(platter: Platter, path: str, content: bytes) -> File:
    """A new file there, of which nothing is synced."""
    file = File(stat.S_IFREG | 0o600)
    platter.add(path, file)
    file.write(0, content)
    return file


def cut(platter: Platter, kept: float = NOTHING) -> Forgotten:
    """The power goes."""
    return platter.forget(random.Random(1), kept)


def refused(number: int) -> pytest.RaisesExc[OSError]:
    """What a system call would answer."""
    return pytest.raises(OSError, match=os.strerror(number))


def test_file_is_there_after_a_cut_only_when_its_folder_was_synced() -> None:
    platter = Platter()
    a_file(platter, "/kept", b"").sync()
    platter.root.sync()
    a_file(platter, "/gone", b"").sync()

    assert cut(platter) == Forgotten(names=1)
    assert list(platter.root.names) == ["kept"]


def test_content_is_there_after_a_cut_only_when_the_file_was_synced() -> None:
    platter = Platter()
    file = a_file(platter, "/file", b"first")
    platter.root.sync()
    file.sync()
    file.write(5, b" second")

    assert file.content == b"first second"
    assert cut(platter) == Forgotten(sectors=1)
    assert file.content == b"first"


def test_empty_file_is_left_when_only_its_name_was_synced() -> None:
    platter = Platter()
    file = a_file(platter, "/file", b"content")
    platter.root.sync()

    cut(platter)

    assert platter.file("/file") is file
    assert file.content == b""


def test_old_content_is_back_after_a_cut_when_it_was_cut_off_or_written_over() -> None:
    platter = Platter()
    file = a_file(platter, "/file", b"0123456789")
    platter.root.sync()
    file.sync()
    file.truncate(2)
    file.write(0, b"ab")

    assert file.content == b"ab"
    assert cut(platter) == Forgotten(sectors=1, sizes=1)
    assert file.content == b"0123456789"


def test_old_names_are_back_after_a_cut_when_the_folder_was_not_synced() -> None:
    platter = Platter()
    old, new = a_file(platter, "/old", b""), a_file(platter, "/new", b"")
    platter.root.sync()
    platter.rename("/new", "/old")
    platter.add("/folder", Folder(stat.S_IFDIR | 0o700))

    assert platter.node("/old") is new
    assert cut(platter).names == 2
    assert platter.root.names == {"old": old, "new": new}


def test_cut_may_leave_all_that_was_not_synced() -> None:
    platter = Platter()
    a_file(platter, "/file", b"content")

    assert cut(platter, kept=ALL) == Forgotten()
    assert platter.file("/file").content == b"content"


def test_cut_may_leave_some_sectors_of_one_write() -> None:
    platter = Platter()
    file = a_file(platter, "/file", bytes(64 * SECTOR_BYTES))
    platter.root.sync()
    file.sync()
    file.write(0, b"x" * 64 * SECTOR_BYTES)

    lost = cut(platter, kept=0.5)

    sectors = [bytes(file.content[at : at + SECTOR_BYTES]) for at in range(0, 64 * SECTOR_BYTES, SECTOR_BYTES)]
    assert set(sectors) == {bytes(SECTOR_BYTES), b"x" * SECTOR_BYTES}
    assert sectors.count(bytes(SECTOR_BYTES)) == lost.sectors


def test_second_cut_takes_nothing_that_the_first_one_left() -> None:
    platter = Platter()
    a_file(platter, "/file", b"content")
    cut(platter, kept=ALL)

    assert cut(platter) == Forgotten()
    assert platter.file("/file").content == b"content"


def test_write_falls_into_sectors_at_their_borders() -> None:
    parts = list(Write(SECTOR_BYTES - 2, b"ab" + b"c" * SECTOR_BYTES + b"d").sectors())

    assert parts == [
        Write(SECTOR_BYTES - 2, b"ab"),
        Write(SECTOR_BYTES, b"c" * SECTOR_BYTES),
        Write(2 * SECTOR_BYTES, b"d"),
    ]


def test_platter_refuses_as_a_file_system_does() -> None:
    platter = Platter()
    platter.add("/folder", Folder(stat.S_IFDIR | 0o700))
    a_file(platter, "/folder/file", b"")

    with refused(errno.ENOENT):
        platter.node("/none")
    with refused(errno.EEXIST):
        platter.add("/folder", File(0))
    with refused(errno.ENOTEMPTY):
        platter.remove("/folder")
    with refused(errno.EXDEV):
        platter.rename("/folder/file", "/file")
    with refused(errno.ENOTDIR):
        platter.folder("/folder/file")
    with refused(errno.EISDIR):
        platter.file("/folder")
