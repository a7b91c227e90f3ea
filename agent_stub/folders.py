"""Where an agent keeps its files, and that only one process at a time does.

| what | with `dev` | Linux, root | Linux, others | macOS |
|---|---|---|---|---|
| state | TEMP/BROKER | /var/lib/mesh-agent | $XDG_STATE_HOME or ~/.local/state, /mesh-agent | ~/Library/Application Support/mesh-agent |
| logs | STATE/logs | /var/log/mesh-agent | STATE/logs | ~/Library/Logs/mesh-agent |
| temporary | TEMP | TEMP | TEMP | TEMP |

TEMP is `mesh-agent-UID` in the system's folder for temporary files. In each of them the agent's own files lie in
`ORGANIZATION.GROUP.AGENT` (temporary ones with a mark of the state folder behind it), so several agents of a machine do
not meet. `[folders]` of the configuration names others.
"""  # noqa: E501 - a table

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROGRAM = "mesh-agent"
PRIVATE = 0o700


class FoldersError(Exception):
    """The agent cannot have its folders: the text says why and what to do."""


class RunningError(FoldersError):
    """Another process has them."""


@dataclass(frozen=True, slots=True)
class Folders:
    """The files of one agent."""

    state: Path
    logs: Path
    temporary: Path

    @staticmethod
    def of(identity: str, broker: str, *, dev: bool, given: Mapping[str, Path]) -> Folders:
        """Those of an agent `organization/group/agent`; `given` holds what its configuration names."""
        own = identity.replace("/", ".")
        temporary = given.get("temporary") or Path(tempfile.gettempdir()) / _base_name()
        state = given.get("state") or (temporary / broker.replace(":", "_") if dev else _state())
        logs = given.get("logs") or (None if dev or "state" in given else _logs())
        state = state / own
        # The lock is on the state: agents of one name with other states must not sweep each other's files.
        mark = hashlib.sha256(str(state).encode()).hexdigest()[:8]
        return Folders(state, logs / own if logs else state / "logs", temporary / f"{own}-{mark}")

    @property
    def spool(self) -> Path:
        """Outcomes that no broker has acknowledged."""
        return self.state / "spool"

    @property
    def jobs(self) -> Path:
        """One folder for each attempt that asks for one."""
        return self.temporary / "jobs"

    @property
    def pid_file(self) -> Path:
        """Held locked by the process that runs."""
        return self.state / "agent.pid"

    def running_pid(self) -> int | None:
        """The process that has these folders; None: there is none.

        Raises:
            FoldersError: nobody can have them, or this user may not look.
        """
        try:
            with self.pid_file.open("rb") as file:
                return None if _locked(file.fileno()) else int(file.read() or 0) or None
        except (FileNotFoundError, ValueError):
            return None
        except OSError as error:
            raise FoldersError(f"{error.filename}: {error.strerror}: name another in [folders]") from error


class Tenancy:
    """The folders as they are held by this process, from `with` to its end.

    Raises:
        RunningError: another process has them.
        FoldersError: they belong to another user, or cannot be made.
    """

    def __init__(self, folders: Folders) -> None:
        self.folders = folders
        self._lock = -1

    def __enter__(self) -> Tenancy:
        try:
            make_private(self.folders.state)
            make_private(self.folders.temporary)
            self._lock = self._take()
            remove(self.folders.jobs)  # what a crash has left of attempts
        except OSError as error:
            raise FoldersError(f"{error.filename}: {error.strerror}: name another in [folders]") from error
        return self

    def __exit__(self, *_: object) -> None:
        self.folders.pid_file.unlink(missing_ok=True)
        os.close(self._lock)
        folders = self.folders
        remove(folders.jobs)
        base = folders.temporary.parent
        is_dev, is_default = folders.state.parent.parent == base, base.name == _base_name()
        state = (folders.spool, folders.state, *([folders.state.parent] if is_dev else []))
        for empty in (*state, folders.temporary, *([base] if is_default else [])):
            with suppress(OSError):  # something is left in it
                empty.rmdir()

    def _take(self) -> int:
        while True:
            path = self.folders.pid_file
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if not _locked(lock):
                pid = os.read(lock, 32).decode() or "?"
                os.close(lock)
                raise RunningError(f"this agent runs already, as process {pid}")
            with suppress(FileNotFoundError):
                if os.stat(path).st_ino == os.fstat(lock).st_ino:  # noqa: PTH116 - beside fstat
                    os.ftruncate(lock, 0)
                    os.write(lock, str(os.getpid()).encode())
                    return lock
            os.close(lock)  # the one before us has just removed it


def _locked(descriptor: int) -> bool:
    """Lock a file, if nobody has."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for this user alone.

    Raises:
        FoldersError: it, or one above it that matters, belongs to another user, who could put something else there.
        OSError: it cannot be made.
    """
    own = _own(folder)
    for path in reversed((folder, *folder.parents)):  # from the top: nothing is made below what is refused
        if not path.exists():
            path.mkdir(mode=PRIVATE, exist_ok=True)
        if path in own:
            _check_owner(path)


def remove(folder: Path) -> None:
    """Remove a folder that `make_private` has made, with all that is in it, if the way to it is still ours."""
    with suppress(OSError, FoldersError):
        for path in reversed(_own(folder)):
            _check_owner(path)
        shutil.rmtree(folder, ignore_errors=True)


def _own(folder: Path) -> list[Path]:
    """A folder and those above it that must be ours: the next two, and all that lie where any user can make some."""
    shared = Path(tempfile.gettempdir())
    return [folder, *(path for path in folder.parents if path in folder.parents[:2] or shared in path.parents)]


def _check_owner(path: Path) -> None:
    link, target = path.lstat(), path.stat()
    if not {link.st_uid, target.st_uid} <= {os.getuid(), 0}:
        raise FoldersError(f"{path} belongs to another user: name another in [folders]")
    if stat.S_ISLNK(link.st_mode) and Path(tempfile.gettempdir()) in path.parents:
        raise FoldersError(f"{path} is a link among temporary files: name another in [folders]")


def _base_name() -> str:
    return f"{PROGRAM}-{os.getuid()}"


def _state() -> Path:
    if sys.platform == "darwin":
        return (Path("/") if os.getuid() == 0 else Path.home()) / "Library/Application Support" / PROGRAM
    if os.getuid() == 0:
        return Path("/var/lib") / PROGRAM
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / PROGRAM


def _logs() -> Path | None:
    if sys.platform == "darwin":
        return (Path("/") if os.getuid() == 0 else Path.home()) / "Library/Logs" / PROGRAM
    return Path("/var/log") / PROGRAM if os.getuid() == 0 else None
