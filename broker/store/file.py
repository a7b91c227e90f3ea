"""The database file before it serves: made whole or not at all, and refused by name if it is not what it should be.

A broker never starts empty beside data that it cannot read: only a path with nothing at it is a new store. A new file
is built under another name and renamed, so half a file is always damage and never a beginning.
"""

import errno
import os
from pathlib import Path
from typing import Final

from broker.errors import ConfigError, StoreFailedError, StoreLockedError
from broker.store import migrations
from broker.store.connection import StoreConnection, damaged

APPLICATION_ID: Final = 0x4A4D5348
"""Written into the header of our files (bytes 68 to 71): SQLite's place for "whose is this"."""
CHECK_BYTES_MAX: Final = 256 << 20
"""Up to this size every page is checked at start (below a second); beyond it damage is found when a page is read."""
UNSYNCABLE: Final = frozenset({errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.EROFS})
"""A folder that is not ours to read, or of a file system that keeps names anyway: there is nothing to sync."""
_MAGIC: Final = b"SQLite format 3\0"


def create(path: Path) -> None:
    """Make the file with the schema of this release if there is nothing at `path`."""
    if path.exists():
        return
    remains = path.with_name(path.name + "-wal")
    if remains.exists():
        text = f"{path} is missing but {remains.name} is there: put both back where they were, or move both away"
        raise StoreFailedError(text, path=str(path))
    _sync_above(path.parent)
    draft = path.with_name(path.name + ".new")
    for leftover in (draft, *(draft.with_name(draft.name + suffix) for suffix in ("-wal", "-shm", "-journal"))):
        leftover.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    connection = StoreConnection(draft, is_writer=True)
    try:
        connection.driver.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        with connection.begin() as transaction:
            migrations.upgrade(transaction)
    finally:
        connection.close()
    draft.rename(path)
    _sync_folder(path.parent)


def refuse_foreign(path: Path) -> None:
    """Raise unless the header is that of a file of ours; SQLite has not touched it yet, and must not if it is not.

    Raises:
        StoreFailedError: the file is damaged, or is no database at all.
        ConfigError: it is the database of another program, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError as error:
        text = f"{path} cannot be read ({error.strerror}): it must be a file that the broker may read and write"
        raise ConfigError(text, path=str(path)) from error
    if len(header) < 100 or not header.startswith(_MAGIC):
        raise damaged(path, "it does not begin like a database")
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        text = f"{path} is the database of another program: name another file, or move this one away"
        raise ConfigError(text, path=str(path))


def check(connection: StoreConnection, path: Path) -> None:
    """Raise StoreFailedError if a page is damaged; a large file is not read as a whole."""
    if path.stat().st_size > CHECK_BYTES_MAX:
        return
    finding = connection.driver.execute("PRAGMA quick_check(1)").fetchone()[0]
    if finding != "ok":
        raise damaged(path, " ".join(finding.split()))


def migrate(connection: StoreConnection, path: Path) -> None:
    """Take an older schema to this release's; raise ConfigError for a newer one, which stays as it is."""
    with connection.begin() as transaction:
        revision, head = migrations.current(transaction), migrations.HEAD
        if revision == head:
            return
        if revision is None:
            raise damaged(path, "it has no schema")
        if not migrations.is_known(revision):
            text = (
                f"{path} has schema revision {revision}, this release knows {head}: a newer release has written it; "
                "start that release, or bring back a copy of the file from before the upgrade"
            )
            raise ConfigError(text, path=str(path), revision=revision, known=head)
        migrations.upgrade(transaction)


def settle(connection: StoreConnection, path: Path) -> None:
    """Take what a crash left in the write-ahead log into the file: from now on what is read is what is on disk."""
    is_busy, _, _ = connection.driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if is_busy:
        raise StoreLockedError(f"{path} is in use by another program: close it and start again", path=str(path))


def _sync_above(folder: Path) -> None:
    """Keep the name of the folder, and of those above it: they may have been made a moment ago, for this file."""
    for above in folder.absolute().parents:
        try:
            _sync_folder(above)
        except OSError as error:
            if error.errno not in UNSYNCABLE:
                raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
