"""Attempts in real processes, started by a real runner."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from agent_stub.clock import now_us
from agent_stub.operations import JobContext, Operation
from agent_stub.outcomes import RunLimits
from agent_stub.runner import Runner
from agent_stub.session import Outcome, OutcomeStatus, Progress
from tests.agent_stub import handlers
from tests.agent_stub.processes import gone, is_alive

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
WAIT_S = 20.0
S = 1_000_000


class Bench:
    """A runner whose outcomes and progress are waited for."""

    def __init__(self, folders: Path) -> None:
        self.outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        self.progress: asyncio.Queue[Progress] = asyncio.Queue()
        self.folders = folders
        self.runner = Runner(2, self.outcomes.put_nowait, self._keep)

    def _keep(self, reports: Iterable[Progress]) -> None:
        for progress in reports:
            self.progress.put_nowait(progress)

    def start(self, handler: Any, payload: bytes = b"", **more: Any) -> JobContext:
        job = JobContext(job_id="j", job_key=1, attempt=2, operation="x", payload=payload, folders=self.folders)
        for name, value in more.items():
            setattr(job, name, value)
        self.runner.start(job, getattr(handler, "__mesh_operation__"))  # noqa: B009 - typed as a function
        return job

    async def outcome(self) -> Outcome:
        async with asyncio.timeout(WAIT_S):
            return await self.outcomes.get()

    async def run(self, handler: Any, payload: bytes = b"", **more: Any) -> Outcome:
        self.start(handler, payload, **more)
        return await self.outcome()

    async def pids(self) -> list[int]:
        """Who the handler says it is."""
        async with asyncio.timeout(WAIT_S):
            return [int(word) for word in (await self.progress.get()).text.split()]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path / "jobs")
    yield bench
    bench.runner.close()


async def test_process_sees_its_attempt_and_leads_a_group_of_its_own(bench: Bench) -> None:
    outcome = await bench.run(
        handlers.facts,
        "ä".encode(),
        metadata={"traceparent": "00-1"},
        checkpoint=b"row 5",
        variables={"database": "/srv/a"},
        options={"speed": 3},
        deadline_s=1e12,
    )
    seen = json.loads(outcome.content)
    assert seen.pop("pid") != os.getpid()
    assert seen == {
        "payload": "ä",
        "job_id": "j",
        "attempt": 2,
        "metadata": {"traceparent": "00-1"},
        "checkpoint": "row 5",
        "has_deadline": True,
        "variable": "/srv/a",
        "option": 3,
        "is_leader": True,
    }
    assert (outcome.job_key, outcome.attempt, outcome.status) == (1, 2, OutcomeStatus.SUCCEEDED)
    assert outcome.run_time_us > 0
    assert len(bench.runner) == 0


async def test_variable_that_the_agent_lacks_fails_the_attempt_for_good_and_is_named(bench: Bench) -> None:
    outcome = await bench.run(handlers.facts, options={"speed": 3})
    assert (outcome.code, outcome.retryable) == ("variable.missing", False)
    assert "'database'" in outcome.text


@pytest.mark.req("R82")
async def test_coroutine_function_runs_in_a_process_and_reports_progress_and_checkpoint(bench: Bench) -> None:
    outcome = await bench.run(handlers.later)
    assert outcome.content == b"later"
    progress = bench.progress.get_nowait()
    assert (progress.fraction, progress.checkpoint) == (0.5, b"row 10")


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"known", ("csv.bad_row", "line 7", False)),
        (b"", ("python.value_error", "no such row", True)),
        (b"exit", ("python.system_exit", "3", True)),
    ],
)
async def test_exception_in_a_process_is_the_failure_that_it_is_in_a_thread(
    bench: Bench, payload: bytes, expected: tuple[str, str, bool]
) -> None:
    outcome = await bench.run(handlers.raises, payload)
    assert outcome.status is OutcomeStatus.FAILED
    assert (outcome.code, outcome.text, outcome.retryable) == expected


@pytest.mark.parametrize("mistake", handlers.MISTAKES)
async def test_mistake_of_a_handler_is_a_failure_when_it_runs_in_a_process(bench: Bench, mistake: str) -> None:
    outcome = await bench.run(handlers.errs, mistake.encode())
    _, (code, text, is_retryable) = handlers.MISTAKES[mistake]
    assert (outcome.code, outcome.retryable) == (code, is_retryable)
    assert outcome.text.startswith(text)
    assert len(bench.runner) == 0


@pytest.mark.parametrize(
    ("payload", "code", "word"),
    [
        (b"exit", "process.exited", "exit code 3"),
        (b"SIGSEGV", "process.killed", "SIGSEGV"),
        (b"SIGKILL", "process.killed", "out of memory"),
    ],
)
async def test_process_that_dies_is_a_retryable_failure_that_says_how(
    bench: Bench, payload: bytes, code: str, word: str
) -> None:
    outcome = await bench.run(handlers.dies, payload)
    assert (outcome.code, outcome.retryable) == (code, True)
    assert word in outcome.text
    assert len(bench.runner) == 0


async def test_end_of_a_process_is_seen_while_another_holds_its_link_open_and_that_one_is_killed(bench: Bench) -> None:
    outcome = await bench.run(handlers.leaves)
    assert outcome.code == "process.killed"
    await gone(*await bench.pids())


async def test_process_that_says_what_cannot_be_understood_is_ended(bench: Bench) -> None:
    assert (await bench.run(handlers.nonsense)).code == "process.killed"


@pytest.mark.req("R82")
@pytest.mark.parametrize(("handler", "payload"), [(handlers.listens, b""), (handlers.later, b"long")])
async def test_cancel_reaches_a_handler_in_its_process(bench: Bench, handler: Any, payload: bytes) -> None:
    bench.start(handler, payload)
    pids = await bench.pids()
    bench.runner.stop((1, 2), grace_s=60.0)
    assert (await bench.outcome()).status is OutcomeStatus.CANCELLED
    await gone(*pids)


async def test_process_that_ignores_its_cancel_is_killed_at_the_end_of_its_grace_with_what_it_started(
    bench: Bench,
) -> None:
    bench.start(handlers.deaf)
    pids = await bench.pids()
    bench.runner.stop((1, 2), grace_s=0.05)
    assert (await bench.outcome()).status is OutcomeStatus.CANCELLED
    assert len(pids) == 2
    await gone(*pids)
    assert len(bench.runner) == 0


async def test_stop_at_once_waits_for_no_grace(bench: Bench) -> None:
    bench.start(handlers.deaf)
    pids = await bench.pids()
    bench.runner.stop((1, 2), grace_s=60.0)
    bench.runner.stop((1, 2), at_once=True)
    assert (await bench.outcome()).status is OutcomeStatus.CANCELLED
    await gone(*pids)


async def test_stop_with_a_shorter_grace_counts_when_a_longer_one_has_begun(bench: Bench) -> None:
    bench.start(handlers.deaf)
    pids = await bench.pids()
    bench.runner.stop((1, 2), grace_s=60.0)
    bench.runner.stop((1, 2), grace_s=0.05)
    bench.runner.stop((1, 2), grace_s=60.0)
    assert (await bench.outcome()).status is OutcomeStatus.CANCELLED
    await gone(*pids)


async def test_process_that_is_cancelled_before_it_starts_does_not_run(bench: Bench) -> None:
    bench.start(handlers.deaf)
    bench.runner.stop((1, 2), at_once=True)
    assert (await bench.outcome()).status is OutcomeStatus.CANCELLED


async def test_exclusive_process_ends_by_itself_when_its_lease_is_not_carried_on(bench: Bench) -> None:
    bench.runner.renew_lease(now_us() + S)
    bench.start(handlers.exclusive)
    pids = await bench.pids()
    ended_us = now_us()
    assert (await bench.outcome()).code == "process.killed"
    assert now_us() - ended_us < 5 * S
    await gone(*pids)


async def test_exclusive_process_runs_on_while_its_lease_is_carried_on(bench: Bench) -> None:
    bench.runner.renew_lease(now_us() + 2 * S)
    bench.start(handlers.exclusive)
    pids = await bench.pids()
    bench.runner.renew_lease(now_us() + 60 * S)
    with pytest.raises(TimeoutError):  # nothing ends for longer than the first lease
        async with asyncio.timeout(2.5):
            await bench.outcomes.get()
    assert is_alive(pids[0])
    bench.runner.fence()
    assert (await bench.outcome()).status is OutcomeStatus.CANCELLED
    await gone(*pids)


PARENT = """
    import asyncio
    from agent_stub.operations import JobContext
    from agent_stub.runner import Runner
    from tests.agent_stub import handlers

    async def main():
        def progressed(reports):
            for progress in reports:
                print(progress.text, flush=True)
        runner = Runner(1, print, progressed)
        job = JobContext(job_id="j", job_key=1, attempt=1, operation="x")
        runner.start(job, handlers.deaf.__mesh_operation__)
        await asyncio.Event().wait()

    asyncio.run(main())
"""


async def test_process_dies_with_its_agent() -> None:
    command = [sys.executable, "-c", textwrap.dedent(PARENT)]
    agent = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE)
    assert agent.stdout is not None
    async with asyncio.timeout(WAIT_S):
        child, program = map(int, (await agent.stdout.readline()).split())
    assert is_alive(child)
    agent.kill()
    await agent.wait()
    await gone(child)
    os.kill(program, signal.SIGKILL)  # what a handler starts by itself is its own: only the group's end is ours


async def test_exclusive_process_of_an_agent_that_stands_still_ends_at_its_lease() -> None:
    source = textwrap.dedent(PARENT).replace("handlers.deaf", "handlers.exclusive")
    source = source.replace(
        "    job = ",
        "    from agent_stub.clock import now_us\n    runner.renew_lease(now_us() + 1_500_000)\n    job = ",
    )
    agent = await asyncio.create_subprocess_exec(sys.executable, "-c", source, cwd=ROOT, stdout=subprocess.PIPE)
    assert agent.stdout is not None
    try:
        async with asyncio.timeout(WAIT_S):
            child = int(await agent.stdout.readline())
        agent.send_signal(signal.SIGSTOP)
        assert is_alive(child)
        await gone(child)
    finally:
        agent.kill()
        await agent.wait()


async def test_lines_of_a_process_are_written_by_the_agent(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await bench.run(handlers.words)
    found = [(record.name, record.message, record.levelno) for record in caplog.records]
    assert found == [("mesh.operation.x", "rows.skipped", logging.WARNING)]
    assert vars(caplog.records[0])["fields"] == {"job_id": "j", "job_key": "1", "attempt": "2"}


async def test_traceback_of_a_process_reaches_the_log(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await bench.run(handlers.raises)
    assert [record.message for record in caplog.records] == ["job.raised"]
    assert "ValueError: no such row" in str(caplog.records[0].exc_text)


async def test_result_is_measured_in_the_process(bench: Bench) -> None:
    bench.runner.limits = RunLimits(result_bytes_max=2_000_000)
    assert len((await bench.run(handlers.large, b"2000000")).content) == 2_000_000
    assert (await bench.run(handlers.large, b"2000001")).code == "result_too_large"


@pytest.mark.req("R57")
@pytest.mark.parametrize("payload", [b"", b"die"])
async def test_folder_of_an_attempt_is_removed_when_it_has_ended(bench: Bench, payload: bytes) -> None:
    outcome = await bench.run(handlers.folder, payload)
    assert outcome.status is (OutcomeStatus.FAILED if payload else OutcomeStatus.SUCCEEDED)
    assert payload or outcome.content.decode() == str(bench.folders / "1-2")
    assert list(bench.folders.iterdir()) == []


async def test_handler_that_no_process_can_find_fails_for_good(bench: Bench) -> None:
    job = JobContext(job_id="j", job_key=1, attempt=2, operation="x")
    bench.runner.start(job, Operation("x", lambda job: None), is_exclusive=True)
    outcome = await bench.outcome()
    assert (outcome.code, outcome.retryable) == ("operation.not_importable", False)


async def test_process_that_cannot_be_started_is_a_retryable_failure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    outcome = await bench.run(handlers.facts)
    assert (outcome.code, outcome.retryable) == ("process.not_started", True)
