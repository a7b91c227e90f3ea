"""One broker a file: an advisory lock on `<file>.lock`, which the kernel releases however its holder ends."""

import fcntl
import os
from pathlib import Path

from broker.errors import ConfigError, StoreLockedError


class FileLock:
    """The lock that belongs to the database at `path`.

    The lock file names its holder and is never removed: a lock on a name that somebody removes is no lock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + ".lock")
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock or raise StoreLockedError, which names the file and the process that has it."""
        descriptor = self._open()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            text = f"{self.path} is locked by process {holder}: stop that broker, or give this one another data folder"
            raise StoreLockedError(text, path=str(self.path), pid=holder) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; does nothing without one."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            text = f"{self.path} cannot be opened ({error.strerror}): the data folder must exist and be writable"
            raise ConfigError(text, path=str(self.path)) from error
