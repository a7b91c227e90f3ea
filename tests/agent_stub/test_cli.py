from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent_stub.cli import main
from agent_stub.host import version
from protos.mesh.v1 import agent_service_pb2 as pb
from tests.agent_stub.broker import WAIT_S, Broker, assign

ROOT = Path(__file__).parents[2]

HANDLERS = """
import threading
from agent_stub.operations import operation

@operation("mine.echo", inline=True)
def echo(job):
    return job.payload

@operation("mine.deaf")
def deaf(job):
    threading.Event().wait()
"""


@asynccontextmanager
async def process(*arguments: str, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """`mesh-agent run` in a folder of its own."""
    command = [sys.executable, "-m", "agent_stub", "run", "--dev", *arguments]
    started = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    async with asyncio.timeout(WAIT_S):
        _, words = await process.communicate()
    return process.returncode, words.decode()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], "use --dev"),
        (["run", "--dev", "--broker", "mesh.example:7401"], "loopback addresses only"),
        (["run", "--dev", "--slots", "0"], "at least one slot"),
        (["run", "--dev", "--slots", "many"], "many"),
        (["run", "--dev", "--name", "A 1"], "agent 'A 1'"),
        (["run", "--dev", "--log-level", "loud"], "'loud' is no log level"),
        (["run", "--dev", "--operations", "no_such_module_anywhere"], "cannot be imported"),
        (["run", "--colour", "red"], "--colour"),
        (["walk"], "walk"),
    ],
)
def test_usage_error_exits_with_2_and_says_why(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert words in output.err
    assert output.out == ""
    assert "Traceback" not in output.err


def test_help_and_version_exit_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == version()
    assert main(["run", "--help"]) == 0
    assert "--operations" in capsys.readouterr().out


def test_help_loads_neither_grpc_nor_protobuf() -> None:
    code = (
        "import sys; from agent_stub.cli import main; main(['--help']);"
        "sys.exit(any(name in sys.modules for name in ('grpc', 'google.protobuf')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False).returncode == 0


@pytest.mark.e2e
async def test_agent_process_runs_operations_of_its_folder_and_leaves_on_sigterm(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HANDLERS)
    async with Broker() as broker:
        options = ["--broker", broker.address, "--name", "a1", "--slots", "2", "--operations", "mine"]
        async with process(*options, folder=tmp_path) as agent:
            session = await broker.session()
            assert session.identity == "default/default/a1"
            assert "mine.echo" in session.hello.operations
            await session.assign(assign(1, "mine.echo", b"hello"))
            outcome = await session.outcome()
            assert outcome.result.content == b"hello"
            agent.send_signal(signal.SIGTERM)
            await session.frame_with("drain_request")
            await session.acknowledge(outcome)
            await session.frame_with("goodbye")
            code, words = await ended(agent)
    assert code == 0
    events = [line.split()[2] for line in words.splitlines()]
    assert events == ["session.started", "agent.draining", "agent.left"]


@pytest.mark.e2e
async def test_agent_process_stops_at_the_second_signal_with_a_handler_that_never_ends(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HANDLERS)
    async with (
        Broker() as broker,
        process("--broker", broker.address, "--operations", "mine:deaf", folder=tmp_path) as agent,
    ):
        session = await broker.session()
        await session.assign(assign(1, "mine.deaf"))
        await session.frame_with("started")
        agent.send_signal(signal.SIGTERM)
        await session.frame_with("drain_request")
        agent.send_signal(signal.SIGTERM)
        code, _ = await ended(agent)
    assert code == 130


@pytest.mark.e2e
async def test_agent_process_that_is_refused_for_good_exits_with_4_and_the_reason(tmp_path: Path) -> None:
    reject = pb.Reject(code=pb.REJECT_CODE_UNKNOWN_GROUP, reason="create the group first")
    async with (
        Broker(lambda _: pb.BrokerFrame(reject=reject)) as broker,
        process("--broker", broker.address, folder=tmp_path) as agent,
    ):
        code, words = await ended(agent)
    assert code == 4
    assert "create the group first" in words
