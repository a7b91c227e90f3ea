"""`command.run` with real programs: the handler in this process, and once as the agent runs it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from agent_stub.command_run import Policy, command_run
from agent_stub.operations import JobCancelledError, JobContext, OperationError
from agent_stub.runner import Runner
from agent_stub.session import Outcome, OutcomeStatus
from tests.agent_stub.processes import gone, is_alive

CAT, SH, SLEEP, ENV = "/bin/cat", "/bin/sh", "/bin/sleep", "/usr/bin/env"
OPTIONS = {"enabled": True, "commands": [CAT, SH, SLEEP, ENV, "/no/such/program"], "environment": ["LANG"]}


def job_of(folder: Path, payload: object, **options: Any) -> JobContext:
    content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    merged = OPTIONS | {"folders": [str(folder / "allowed")]} | options
    return JobContext(
        job_id="j",
        job_key=1,
        attempt=1,
        operation="command.run",
        payload=content,
        options=merged,
        folders=folder / "jobs",
    )


def run(folder: Path, payload: object, **options: Any) -> dict[str, Any]:
    job = job_of(folder, payload, **options)
    try:
        return command_run(job)
    finally:
        job.close()


def test_program_is_given_its_arguments_as_they_are_and_its_outputs_come_back(tmp_path: Path) -> None:
    script = 'echo "$1"; echo bad >&2; cat'
    result = run(tmp_path, {"argv": [SH, "-c", script, "x", "$(id) *;"], "input": "in ü"})
    assert result == {"exit_code": 0, "output": "$(id) *;\nin ü", "errors": "bad\n", "is_cut": False}


def test_program_runs_in_a_folder_of_its_own_or_in_one_that_is_allowed(tmp_path: Path) -> None:
    below = tmp_path / "allowed" / "below"
    below.mkdir(parents=True)
    assert run(tmp_path, {"argv": [SH, "-c", "pwd"]})["output"].strip() == str(tmp_path / "jobs" / "1-1")
    assert run(tmp_path, {"argv": [SH, "-c", "pwd"], "folder": str(below)})["output"].strip() == str(below)


def test_program_sees_path_and_what_is_allowed_and_nothing_of_the_agents_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_AGENT", "x")
    output = run(tmp_path, {"argv": [ENV], "environment": {"LANG": "C"}})["output"]
    assert {line.partition("=")[0] for line in output.splitlines()} <= {"PATH", "LANG", "PWD", "SHLVL", "_"}
    assert "LANG=C" in output


@pytest.mark.parametrize(
    "payload",
    [
        {"argv": ["/bin/rm", "x"]},
        {"argv": ["cat"]},
        {"argv": ["/bin/../bin/cat"]},
        {"argv": [CAT], "folder": "/etc"},
        {"argv": [CAT], "folder": "{allowed}/../../etc"},
        {"argv": [CAT], "environment": {"LD_PRELOAD": "x"}},
        {"argv": [CAT], "environment": {"PATH": "x"}},
    ],
)
def test_what_the_configuration_does_not_allow_is_refused_for_good(tmp_path: Path, payload: dict[str, Any]) -> None:
    if "folder" in payload:
        payload = payload | {"folder": payload["folder"].replace("{allowed}", str(tmp_path / "allowed"))}
    with pytest.raises(OperationError) as failure:
        run(tmp_path, payload)
    assert (failure.value.code, failure.value.retryable) == ("command.not_allowed", False)


def test_link_that_leads_out_of_an_allowed_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed" / "out").symlink_to("/etc")
    with pytest.raises(OperationError, match="does not allow to run in"):
        run(tmp_path, {"argv": [CAT], "folder": str(tmp_path / "allowed" / "out")})


@pytest.mark.parametrize(
    "payload",
    [
        [],
        {},
        {"argv": []},
        {"argv": "ls -l"},
        {"argv": [CAT, 1]},
        {"argv": [CAT, "a\0b"]},
        {"argv": [CAT], "shell": True},
        {"argv": [CAT], "timeout_s": 0},
        {"argv": [CAT], "timeout_s": 1e9},
        {"argv": [CAT], "timeout_s": True},
        {"argv": [CAT], "input": 1},
        {"argv": [CAT], "retry_on": 75},
        {"argv": [CAT], "environment": []},
        {"argv": [CAT], "folder": 1},
    ],
)
def test_payload_that_makes_no_sense_is_refused_for_good(tmp_path: Path, payload: object) -> None:
    with pytest.raises(OperationError) as failure:
        run(tmp_path, payload)
    assert (failure.value.code, failure.value.retryable) == ("command.bad_payload", False)


@pytest.mark.parametrize(
    ("code", "more", "retryable"),
    [(1, {}, False), (75, {}, True), (3, {"retry_on": [3]}, True), (75, {"retry_on": []}, False)],
)
def test_exit_code_is_a_failure_that_is_retried_when_the_payload_says_so(
    tmp_path: Path, code: int, more: dict[str, Any], retryable: bool
) -> None:
    with pytest.raises(OperationError, match=f"exit code {code}: why") as failure:
        run(tmp_path, {"argv": [SH, "-c", f"echo why >&2; exit {code}"], **more})
    assert (failure.value.code, failure.value.retryable) == ("command.failed", retryable)


def test_program_that_a_signal_ends_is_a_retryable_failure(tmp_path: Path) -> None:
    with pytest.raises(OperationError, match="SIGKILL") as failure:
        run(tmp_path, {"argv": [SH, "-c", "kill -9 $$"]})
    assert (failure.value.code, failure.value.retryable) == ("command.killed", True)


def test_program_that_cannot_be_started_is_a_failure_for_good(tmp_path: Path) -> None:
    with pytest.raises(OperationError, match="No such file") as failure:
        run(tmp_path, {"argv": ["/no/such/program"]})
    assert (failure.value.code, failure.value.retryable) == ("command.not_started", False)


def test_program_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(OperationError, match="longer than") as failure:
        run(tmp_path, {"argv": [SLEEP, "600"], "timeout_s": 0.1})
    assert (failure.value.code, failure.value.retryable) == ("command.timeout", True)


def test_outputs_are_bounded_and_their_end_is_kept(tmp_path: Path) -> None:
    script = "i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done"
    result = run(tmp_path, {"argv": [SH, "-c", script]}, output_bytes_max=20)
    assert result["is_cut"]
    assert result["output"] == "line 4998\nline 4999\n"


def test_program_that_does_not_read_its_input_does_not_hang(tmp_path: Path) -> None:
    assert run(tmp_path, {"argv": [SH, "-c", "exit 0"], "input": "x" * 500_000})["exit_code"] == 0


def test_program_that_leaves_another_with_its_outputs_open_does_not_hang(tmp_path: Path) -> None:
    result = run(tmp_path, {"argv": [SH, "-c", "sleep 30 & echo $!"]})
    assert result["exit_code"] == 0
    os.kill(int(result["output"]), signal.SIGKILL)


def test_program_that_leaves_another_with_its_input_unread_does_not_hang(tmp_path: Path) -> None:
    script = "exec 3<&0; sleep 30 <&3 >/dev/null 2>&1 & echo $!"
    result = run(tmp_path, {"argv": [SH, "-c", script], "input": "x" * 500_000})
    assert result["exit_code"] == 0
    assert is_alive(int(result["output"]))  # nothing has waited for its end
    os.kill(int(result["output"]), signal.SIGKILL)


def test_program_that_takes_too_long_is_ended_when_another_holds_its_input_unread(tmp_path: Path) -> None:
    script = f"exec 3<&0; sleep 30 <&3 >/dev/null 2>&1 & echo $! > {tmp_path}/pid; exec sleep 30"
    with pytest.raises(OperationError, match="longer than"):
        run(tmp_path, {"argv": [SH, "-c", script], "input": "x" * 500_000, "timeout_s": 1.0})
    assert is_alive(int((tmp_path / "pid").read_text()))
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_program_is_given_an_input_larger_than_its_pipe_while_it_writes(tmp_path: Path) -> None:
    text = "".join(f"line {number}\n" for number in range(20_000))
    result = run(tmp_path, {"argv": [CAT], "input": text}, output_bytes_max=256 << 10)
    assert result["output"] == text
    assert not result["is_cut"]


def test_program_that_has_closed_its_outputs_is_still_fed_and_waited_for(tmp_path: Path) -> None:
    script = f"exec >/dev/null 2>&1; cat > {tmp_path}/told; exit 3"
    with pytest.raises(OperationError, match="exit code 3"):
        run(tmp_path, {"argv": [SH, "-c", script], "input": "x" * 500_000})
    assert (tmp_path / "told").stat().st_size == 500_000


def test_cancelled_program_ends(tmp_path: Path) -> None:
    job = job_of(tmp_path, {"argv": [SLEEP, "600"]})
    threading.Timer(0.2, job.cancel).start()
    with pytest.raises(JobCancelledError):
        command_run(job)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"command": []}, "no key command"),
        ({"commands": "cat"}, "commands must be a list"),
        ({"commands": ["cat"]}, "cat is no whole path"),
        ({"folders": ["here"]}, "here is no whole path"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"output_bytes_max": 1 << 30}, "output_bytes_max"),
    ],
)
def test_policy_that_makes_no_sense_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Policy.of(options)


@pytest.mark.e2e
async def test_program_ends_with_its_attempt(tmp_path: Path) -> None:
    outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
    runner = Runner(1, outcomes.put_nowait)
    told = tmp_path / "pid"
    script = f"trap '' TERM; echo $$ > {told}.part; mv {told}.part {told}; while true; do sleep 1; done"
    job = job_of(tmp_path, {"argv": [SH, "-c", script]})
    runner.start(job, getattr(command_run, "__mesh_operation__"))  # noqa: B009 - typed as a function
    async with asyncio.timeout(20.0):
        while not told.exists():  # noqa: ASYNC110 - a program of others says it by a file
            await asyncio.sleep(0.02)
        runner.stop((1, 1), at_once=True)
        assert (await outcomes.get()).status is OutcomeStatus.CANCELLED
    await gone(int(told.read_text()))
    runner.close()
