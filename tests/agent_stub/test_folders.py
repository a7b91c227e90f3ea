from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from agent_stub.folders import Folders, FoldersError, RunningError, Tenancy, make_private
from tests.conftest import not_run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root() -> None:
    if os.getuid() != 0:
        not_run("only root can give files away")


def folders_in(folder: Path, agent: str = "a1") -> Folders:
    given = {"state": folder / "state", "temporary": folder / "temporary"}
    return Folders.of(f"acme/plant/{agent}", "127.0.0.1:7401", dev=True, given=given)


def test_agents_of_one_machine_do_not_meet(tmp_path: Path) -> None:
    one, other = folders_in(tmp_path), folders_in(tmp_path, "a2")
    assert one.state != other.state
    assert one.temporary != other.temporary


def test_agents_of_one_name_and_another_state_share_no_temporary_files(tmp_path: Path) -> None:
    one, other = folders_in(tmp_path / "x"), folders_in(tmp_path / "y")
    assert one.temporary.name != other.temporary.name


def test_agent_in_development_keeps_its_state_apart_for_each_broker_among_temporary_files() -> None:
    one = Folders.of("a/b/c", "127.0.0.1:7401", dev=True, given={})
    other = Folders.of("a/b/c", "127.0.0.1:7402", dev=True, given={})
    assert one.state.parent.parent == one.temporary.parent
    assert one.state != other.state
    assert one.logs == one.state / "logs"


@pytest.mark.skipif(sys.platform != "linux", reason="folders of Linux")
@pytest.mark.parametrize(
    ("uid", "state", "logs"),
    [
        (0, "/var/lib/mesh-agent/a.b.c", "/var/log/mesh-agent/a.b.c"),
        (1000, "/home/u/state/mesh-agent/a.b.c", "/home/u/state/mesh-agent/a.b.c/logs"),
    ],
)
def test_agent_of_the_machine_and_agent_of_a_user_keep_files_where_the_system_wants_them(
    uid: int, state: str, logs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: uid)
    monkeypatch.setenv("XDG_STATE_HOME", "/home/u/state")
    folders = Folders.of("a/b/c", "mesh.example:7401", dev=False, given={})
    assert (str(folders.state), str(folders.logs)) == (state, logs)


@pytest.mark.req("R93")
def test_documentation_names_the_folders_of_every_system() -> None:
    words = (ROOT / "docs/agent.md").read_text()
    for path in ("/var/lib/mesh-agent", "/var/log/mesh-agent", "~/.local/state", "~/Library/Logs/mesh-agent"):
        assert f"`{path}`" in words
    for name in ("state", "logs", "temporary", "spool", "agent.pid"):
        assert f"`{name}`" in words


def test_tenant_is_alone_until_it_leaves(tmp_path: Path) -> None:
    folders = folders_in(tmp_path)
    assert folders.running_pid() is None
    with Tenancy(folders):
        assert folders.running_pid() == os.getpid()
        with pytest.raises(RunningError, match=f"runs already, as process {os.getpid()}"), Tenancy(folders):
            pass
        assert folders.running_pid() == os.getpid()
    assert folders.running_pid() is None
    with Tenancy(folders):
        pass


def test_tenant_that_leaves_takes_along_all_that_is_empty(tmp_path: Path) -> None:
    folders = folders_in(tmp_path)
    with Tenancy(folders):
        folders.spool.mkdir()
        (folders.jobs / "7-1").mkdir(parents=True)
    assert not folders.state.exists()
    assert not folders.temporary.exists()
    assert (tmp_path / "state").is_dir()
    with Tenancy(folders):
        folders.spool.mkdir()
        (folders.spool / "7-1.outcome").touch()
    assert [path.name for path in folders.state.rglob("*")] == ["spool", "7-1.outcome"]


@pytest.mark.req("R57")
def test_leftovers_of_a_crash_are_swept_at_the_start_and_nothing_else(tmp_path: Path) -> None:
    folders = folders_in(tmp_path)
    (folders.jobs / "7-1").mkdir(parents=True)
    (folders.jobs / "7-1" / "part").touch()
    beside = folders.temporary.parent / "other"
    beside.mkdir()
    with Tenancy(folders):
        assert not folders.jobs.exists()
        assert beside.is_dir()


@pytest.mark.e2e
def test_process_that_was_killed_does_not_keep_its_folders(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from tests.agent_stub.test_folders import *;"
        "tenancy = Tenancy(folders_in(Path(sys.argv[1]))); tenancy.__enter__(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False)
    folders = folders_in(tmp_path)
    assert folders.pid_file.exists()
    assert folders.running_pid() is None
    with Tenancy(folders):
        pass


def test_folder_that_cannot_be_made_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(FoldersError, match=r"state.*name another in \[folders\]"), Tenancy(folders_in(tmp_path)):
        pass


@pytest.mark.usefixtures("root")
def test_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = folders_in(tmp_path)
    folders.state.mkdir(parents=True)
    os.chown(folders.state.parent, 4712, -1)
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    with pytest.raises(FoldersError, match="another user"), Tenancy(folders):
        pass


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder for temporary files, where any user can make some."""
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(shared))
    return shared


def folders_among_shared_ones(tmp_path: Path) -> Folders:
    return Folders.of("acme/plant/a1", "127.0.0.1:7401", dev=False, given={"state": tmp_path / "state"})


def lead_away(folders: Folders, target: Path) -> Path:
    """Another user's link instead of the temporary files; a file that would be removed through it."""
    precious = target / folders.temporary.name / "jobs" / "7-1" / "precious"
    precious.parent.mkdir(parents=True)
    precious.touch()
    base = folders.temporary.parent
    base.symlink_to(target)
    if os.getuid() == 0:
        os.chown(base, 4711, -1, follow_symlinks=False)
    return precious


@pytest.mark.usefixtures("shared")
def test_tenant_removes_nothing_through_a_link_that_lies_where_its_temporary_files_belong(tmp_path: Path) -> None:
    folders = folders_among_shared_ones(tmp_path)
    precious = lead_away(folders, tmp_path / "target")
    with pytest.raises(FoldersError, match=f"{folders.temporary.parent} .*name another"), Tenancy(folders):
        pass
    assert precious.exists()
    assert folders.running_pid() is None


@pytest.mark.usefixtures("shared")
def test_tenant_removes_nothing_through_a_link_that_was_laid_while_it_was_there(tmp_path: Path) -> None:
    folders = folders_among_shared_ones(tmp_path)
    with Tenancy(folders):
        folders.temporary.rmdir()  # as a sweep of the machine does with what is old
        folders.temporary.parent.rmdir()
        precious = lead_away(folders, tmp_path / "target")
    assert precious.exists()


def test_folder_is_not_made_through_a_link_among_temporary_files(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (shared / "base").symlink_to(tmp_path / "target")
    with pytest.raises(FoldersError, match="base is a link"):
        make_private(shared / "base" / "agent" / "jobs" / "7-1")
    assert list((tmp_path / "target").iterdir()) == []


def test_folder_is_made_through_a_link_of_ours_elsewhere(tmp_path: Path, shared: Path) -> None:
    assert shared.is_dir()
    (tmp_path / "target").mkdir()
    (tmp_path / "base").symlink_to(tmp_path / "target")
    make_private(tmp_path / "base" / "agent")
    assert (tmp_path / "target" / "agent").stat().st_mode & 0o777 == 0o700


@pytest.mark.usefixtures("root")
def test_folder_of_an_attempt_is_not_made_where_another_user_made_the_base(shared: Path) -> None:
    base = shared / "base"
    base.mkdir()
    os.chown(base, 4711, -1)
    with pytest.raises(FoldersError, match="base belongs to another user"):
        make_private(base / "agent" / "jobs" / "7-1")
    assert list(base.iterdir()) == []
