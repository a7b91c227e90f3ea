from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from agent_stub.session import Outcome, OutcomeStatus
from agent_stub.spool import Spool

DONE = Outcome(
    7, 1, OutcomeStatus.SUCCEEDED, content=b"\x00rows", content_type="application/octet-stream", run_time_us=5
)
FAILED = Outcome(8, 3, OutcomeStatus.FAILED, "csv.bad_row", "line 7, ä", retryable=True, run_time_us=1_500_000)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.mark.parametrize("is_durable", [False, True])
def test_spool_gives_back_what_was_written_to_the_next_process(spool: Spool, is_durable: bool) -> None:
    for outcome in (FAILED, DONE):
        spool.write(outcome, is_durable=is_durable)
    again = Spool(spool.folder)
    assert again.read() == [DONE, FAILED]
    assert again.used_bytes == spool.used_bytes > 0
    assert (7, 1) in again
    assert sorted(again) == [(7, 1), (8, 3)]


def test_spool_forgets_what_is_removed(spool: Spool) -> None:
    spool.write(DONE, is_durable=False)
    spool.remove((7, 1))
    spool.remove((9, 9))
    assert len(spool) == spool.used_bytes == 0
    assert list(spool.folder.iterdir()) == []


def test_spool_is_for_the_agents_user_alone(spool: Spool) -> None:
    assert spool.folder.stat().st_mode & 0o777 == 0o700


def test_outcome_that_was_being_written_when_the_process_ended_is_none(spool: Spool) -> None:
    (spool.folder / "7-1.writing").write_bytes(b"mesh-outcome 1 ")
    assert Spool(spool.folder).read() == []
    assert list(spool.folder.iterdir()) == []


def _cut(content: bytes) -> bytes:
    return content[:-1]


def _flip(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def _empty(content: bytes) -> bytes:
    return b""


def _newer(content: bytes) -> bytes:
    return content.replace(b"mesh-outcome 1", b"mesh-outcome 2")


@pytest.mark.parametrize("damage", [_cut, _flip, _empty, _newer])
def test_corrupt_file_is_set_aside_and_named_and_the_others_are_read(
    spool: Spool, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(damage)
    for outcome in (DONE, FAILED):
        spool.write(outcome, is_durable=False)
    file = spool.folder / "7-1.outcome"
    file.write_bytes(damage(file.read_bytes()))
    assert Spool(spool.folder).read() == [FAILED]
    assert sorted(path.name for path in spool.folder.iterdir()) == ["7-1.corrupt", "8-3.outcome"]
    assert [(record.message, record.levelno) for record in caplog.records] == [("spool.corrupt", logging.ERROR)]
    assert str(vars(caplog.records[0])["fields"]["file"]).endswith("7-1.outcome")


@pytest.mark.parametrize("name", ["9-1.outcome", "seven.outcome"])
def test_file_of_another_name_than_its_outcome_is_set_aside(spool: Spool, name: str) -> None:
    spool.write(DONE, is_durable=False)
    (spool.folder / "7-1.outcome").rename(spool.folder / name)
    assert Spool(spool.folder).read() == []


def test_write_that_fails_raises_and_leaves_nothing(spool: Spool) -> None:
    (spool.folder / "7-1.outcome").mkdir()
    with pytest.raises(OSError, match="directory"):
        spool.write(DONE, is_durable=True)
    assert (7, 1) not in spool
    assert [path.name for path in spool.folder.iterdir()] == ["7-1.outcome"]


def test_spool_remembers_which_mesh_its_outcomes_are_for(spool: Spool) -> None:
    assert spool.mesh_id == ""
    spool.belong_to("north")
    assert Spool(spool.folder).mesh_id == "north"
    spool.belong_to("south")
    assert (Spool(spool.folder).mesh_id, Spool(spool.folder).read()) == ("south", [])
    (spool.folder / "mesh").write_bytes(b"\xff")
    assert spool.mesh_id == ""


def test_name_of_the_mesh_is_synced_before_it_appears_and_its_folder_after(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[int, bool]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, (spool.folder / "mesh").exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    spool.belong_to("north")
    file, folder = ((spool.folder / name).stat().st_ino for name in ("mesh", ""))
    assert synced == [(file, False), (folder, True)]
    assert [path.name for path in spool.folder.iterdir()] == ["mesh"]


def test_spool_forgets_its_mesh_when_nothing_is_left_in_it_and_not_before(spool: Spool) -> None:
    spool.belong_to("north")
    spool.write(DONE, is_durable=False)
    spool.belong_to_nobody()
    assert spool.mesh_id == "north"
    spool.remove((DONE.job_key, DONE.attempt))
    spool.belong_to_nobody()
    assert (spool.mesh_id, list(spool.folder.iterdir())) == ("", [])
