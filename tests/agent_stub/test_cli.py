from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent_stub.cli import _command, main
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

@operation("mine.where", inline=True)
def where(job):
    return job.variable("database")

@operation("mine.deaf")
def deaf(job):
    threading.Event().wait()
"""


@asynccontextmanager
async def process(*arguments: str, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """`mesh-agent run` in a folder of its own."""
    command = [sys.executable, "-m", "agent_stub", "run", "--dev", "--state", str(folder / "state"), *arguments]
    started = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


def command(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command of `mesh-agent` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "agent_stub", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=WAIT_S * 2,
        check=False,
    )


def configured(folder: Path, broker: str, more: str = "") -> None:
    """A configuration in `folder`, with the operations of HANDLERS."""
    (folder / "mine.py").write_text(HANDLERS)
    agent = f'[agent]\nname = "a1"\ndev = true\nbroker = "{broker}"\nmodules = ["mine"]\n'
    (folder / "mesh-agent.toml").write_text(f'{agent}[folders]\nstate = "state"\ntemporary = "temporary"\n{more}')


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
        (["run", "--config", "missing.toml"], "mesh-agent init"),
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


@pytest.mark.e2e
def test_init_writes_a_configuration_that_check_understands_and_overwrites_none(tmp_path: Path) -> None:
    done = command("init", "--name", "a1", "--broker", "127.0.0.1:1", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    before = (tmp_path / "mesh-agent.toml").read_text()
    again = command("init", "--name", "a2", folder=tmp_path)
    assert again.returncode == 6
    assert "--force" in again.stderr
    assert (tmp_path / "mesh-agent.toml").read_text() == before
    assert command("init", "--name", "a2", "--force", folder=tmp_path).returncode == 0
    assert 'name = "a2"' in (tmp_path / "mesh-agent.toml").read_text()


@pytest.mark.e2e
@pytest.mark.req("R91")
def test_check_names_each_need_that_is_not_met_and_exits_with_1(tmp_path: Path) -> None:
    configured(tmp_path, "127.0.0.1:1", '[operations."command.run"]\nenabled = true\n')
    done = command("check", folder=tmp_path)
    assert done.returncode == 1
    assert [line.split(":")[0] for line in done.stdout.splitlines() if line.startswith("NO ")] == [
        "NO  commands",
        "NO  broker",
    ]
    document = json.loads(command("check", "--json", folder=tmp_path).stdout)
    assert document["is_met"] is False
    assert [one["need"] for one in document["findings"] if not one["is_met"]] == ["commands", "broker"]


@pytest.mark.e2e
@pytest.mark.req("R93")
def test_paths_are_those_that_the_configuration_names(tmp_path: Path) -> None:
    configured(tmp_path, "127.0.0.1:7401")
    found = json.loads(command("paths", "--json", folder=tmp_path).stdout)
    state = tmp_path / "state" / "default.default.a1"
    assert found.pop("temporary").startswith(str(tmp_path / "temporary" / "default.default.a1-"))
    assert found == {
        "configuration": str(tmp_path / "mesh-agent.toml"),
        "state": str(state),
        "spool": str(state / "spool"),
        "logs": str(state / "logs"),
        "pid_file": str(state / "agent.pid"),
    }
    assert str(state / "spool") in command("paths", folder=tmp_path).stdout


@pytest.mark.e2e
@pytest.mark.parametrize(
    "more", ['[operations."echo2"]\n', '[operations."command.run"]\nenabled = true\ncommand = 1\n']
)
def test_settings_of_an_operation_that_make_no_sense_are_a_usage_error(tmp_path: Path, more: str) -> None:
    configured(tmp_path, "127.0.0.1:7401", more)
    done = command("run", folder=tmp_path)
    assert done.returncode == 2
    assert "[operations." in done.stderr


@pytest.mark.e2e
async def test_operation_that_is_switched_off_is_not_offered_and_commands_are_if_switched_on(tmp_path: Path) -> None:
    async with Broker() as broker:
        more = (
            '[operations."echo"]\nenabled = false\n[operations."command.run"]\nenabled = true\ncommands = ["/bin/sh"]\n'
        )
        configured(tmp_path, broker.address, more)
        async with process(folder=tmp_path) as agent:
            session = await broker.session()
            assert "echo" not in session.hello.operations
            assert "command.run" in session.hello.operations
            payload = json.dumps({"argv": ["/bin/sh", "-c", "echo $0"]}).encode()
            await session.assign(assign(1, "command.run", payload))
            outcome = await session.outcome()
            assert json.loads(outcome.result.content)["output"] == "/bin/sh\n"
            await session.acknowledge(outcome)
            agent.send_signal(signal.SIGTERM)
            assert (await ended(agent))[0] == 0


@pytest.mark.e2e
async def test_second_process_of_an_agent_is_refused_with_the_first_ones_number(tmp_path: Path) -> None:
    async with Broker() as broker:
        configured(tmp_path, broker.address)
        async with process(folder=tmp_path) as agent:
            await broker.session()
            second = await asyncio.to_thread(command, "run", folder=tmp_path)
            assert second.returncode == 6
            assert f"process {agent.pid}" in second.stderr


@pytest.mark.e2e
@pytest.mark.req("R39", "R88")
async def test_change_of_the_configuration_takes_effect_when_the_agent_is_stopped_and_started(tmp_path: Path) -> None:
    async with Broker() as broker:
        seen = []
        configured(tmp_path, broker.address, '[variables]\ndatabase = "north"\n')
        for change in ("south", "west"):
            async with process(folder=tmp_path) as agent:
                session = await broker.session()
                configured(tmp_path, broker.address, f'[variables]\ndatabase = "{change}"\n')
                await session.assign(assign(1, "mine.where"))
                outcome = await session.outcome()
                seen.append(outcome.result.content.decode())
                await session.acknowledge(outcome)
                stopping = asyncio.to_thread(command, "stop", folder=tmp_path)
                assert (await stopping).returncode == 0
                assert (await ended(agent))[0] == 0
        assert seen == ["north", "south"]
        nobody = await asyncio.to_thread(command, "stop", folder=tmp_path)
        assert (nobody.returncode, "no agent runs" in nobody.stderr) == (0, True)
        assert "give `stop` what `run` was given" in nobody.stderr


@pytest.mark.e2e
async def test_stop_waits_for_what_runs_and_now_does_not(tmp_path: Path) -> None:
    async with Broker() as broker:
        configured(tmp_path, broker.address)
        async with process(folder=tmp_path) as agent:
            session = await broker.session()
            await session.assign(assign(1, "mine.deaf"))
            await session.frame_with("started")
            waited = await asyncio.to_thread(command, "stop", "--timeout-s", "0.2", folder=tmp_path)
            assert waited.returncode == 5
            assert "--now" in waited.stderr
            again = await asyncio.to_thread(command, "run", "--log-level", "info", folder=tmp_path)
            assert (again.returncode, "stop it with `mesh-agent stop`" in again.stderr) == (6, True)
            stopped = await asyncio.to_thread(command, "stop", "--now", folder=tmp_path)
            assert (stopped.returncode, "has left" in stopped.stderr) == (0, True)
            assert (await ended(agent))[0] == 130


@pytest.mark.e2e
async def test_outcomes_of_an_agent_that_was_killed_are_said_by_the_next_one_and_corrupt_ones_are_not(
    tmp_path: Path,
) -> None:
    spool = tmp_path / "state" / "default.default.a1" / "spool"
    async with Broker() as broker:
        configured(tmp_path, broker.address, "")
        async with process(folder=tmp_path) as agent:
            session = await broker.session()
            await session.assign(assign(1, "mine.echo", b"one"), assign(2, "mine.echo", b"two"))
            await session.frame_with("outcomes")
            async with asyncio.timeout(WAIT_S):
                while len(list(spool.glob("*.outcome"))) < 2:  # noqa: ASYNC110 - another process writes them
                    await asyncio.sleep(0.02)
            agent.kill()
            await agent.wait()
        broken = spool / "1-1.outcome"
        broken.write_bytes(broken.read_bytes()[:-1])
        async with process(folder=tmp_path) as agent:
            session = await broker.session()
            assert [outcome.result.content for outcome in session.hello.outcomes] == [b"two"]
            await session.acknowledge(*session.hello.outcomes)
            agent.send_signal(signal.SIGTERM)
            code, words = await ended(agent)
    assert code == 0
    assert "spool.corrupt" in words
    assert [path.name for path in spool.iterdir()] == ["1-1.corrupt"]


@pytest.mark.e2e
@pytest.mark.req("R55", "R93")
async def test_log_files_lie_where_paths_says_by_kind(tmp_path: Path) -> None:
    async with Broker() as broker:
        configured(tmp_path, broker.address, "[log]\nfiles = true\n")
        with (tmp_path / "mine.py").open("a") as module:
            module.write("\n@operation('mine.words')\ndef words(job):\n    job.logger.warning('rows.skipped')\n")
        async with process(folder=tmp_path) as agent:
            session = await broker.session()
            await session.assign(assign(1, "mine.words"))
            await session.acknowledge(await session.outcome())
            agent.send_signal(signal.SIGTERM)
            await ended(agent)
        logs = Path(json.loads((await asyncio.to_thread(command, "paths", "--json", folder=tmp_path)).stdout)["logs"])
        assert "session.started" in (logs / "agent.log").read_text()
        assert "rows.skipped" not in (logs / "agent.log").read_text()
        assert "rows.skipped" in (logs / "operations.log").read_text()


def test_command_that_stops_an_agent_names_what_it_was_started_with() -> None:
    given = {"config": Path("my agent.toml"), "name": "a1", "group": None}
    assert _command("stop", given, dev=True) == "mesh-agent stop --config 'my agent.toml' --name a1 --dev"


def test_init_refuses_a_name_that_could_never_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "agent.toml"
    assert main(["init", str(file), "--name", "A"]) == 2
    assert "agent 'A': lower-case letters" in capsys.readouterr().err
    assert not file.exists()


def test_check_refuses_a_log_level_that_run_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('[agent]\ndev = true\n[log]\nlevel = "loud"\n')
    assert main(["check", "--config", str(file)]) == 2
    assert "'loud' is no log level" in capsys.readouterr().err
