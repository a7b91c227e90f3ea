from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

from broker.cli import main
from broker.cli.access import API_DEFAULT
from broker.cli.exits import EXIT_CODES
from broker.settings import Settings
from mesh_client import MeshClientError, errors
from mesh_client.client import DEFAULT_TARGET
from tests.broker.cli.conftest import Mesh
from tests.mesh_client.broker import WAIT_S, BrokerThread
from tests.meta.check import ROOT

HELP = """
import json, sys
from broker.cli import main
code = main({arguments!r})
print()
print(json.dumps(sorted(sys.modules)))
sys.exit(code)
"""

COMMANDS = ("serve", "demo", "config", "completion", "jobs", "groups", "environments", "organizations", "agents")


@pytest.mark.parametrize("arguments", [["--help"], ["jobs", "--help"], ["jobs", "submit", "--help"], ["--version"]])
def test_help_loads_neither_grpc_nor_the_broker(arguments: list[str]) -> None:
    code = HELP.format(arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    # The last three are loaded by libraries for what help does not need.
    heavy = {"grpc", "google", "protos", "mesh_client", "pydantic", "sqlalchemy", "structlog"}
    heavy |= {"markdown_it", "pygments", "ruamel"}
    assert loaded & heavy == set()


def test_help_names_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MeshClientError)]
    codes = {kind.exit_code for kind in kinds} | {0, 2, 130}
    assert set(EXIT_CODES) == codes
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert [code for code, words in EXIT_CODES.items() if f"{code}  {words}" not in shown] == []


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert [name for name in COMMANDS if name not in shown] == []


@pytest.mark.parametrize("arguments", [[name, "--help"] for name in COMMANDS])
def test_every_command_has_help(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert f"mesh {arguments[0]}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["jbs"], 'Did you mean "jobs"?'),
        (["jobs", "submit"], "Try: mesh jobs submit --help"),
        (["jobs", "list", "--state", "lost"], '"succeeded"'),
        (["jobs", "list", "--limit", "0"], "Must be >= 1"),
        (["jobs", "submit", "done", "--priority", "6"], "Must be <= 5"),
        (["jobs", "submit", "done", "--delay", "soon"], "--delay"),
        (["jobs", "list", "-o", "xml"], '"yaml"'),
        (["groups", "get"], "GROUP"),
        (["serve", "--nope"], "--nope"),
    ],
)
def test_usage_error_says_what_is_wrong_and_ends_with_2(
    arguments: Sequence[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("mesh: ")
    assert words in written.err
    assert "Traceback" not in written.err


def test_default_address_is_where_a_broker_listens() -> None:
    assert API_DEFAULT == DEFAULT_TARGET == Settings.load().api_listen


def test_module_is_the_program_and_an_interrupt_ends_it_with_130(threaded: BrokerThread) -> None:
    command = [sys.executable, "-m", "broker.cli", "jobs", "watch", "--api", threaded.broker.address]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        threaded.run(threaded.broker.watching.wait())
        process.send_signal(signal.SIGINT)
        out, words = process.communicate(timeout=WAIT_S)
    assert (process.returncode, out, words) == (130, "", "")


def test_reader_that_has_seen_enough_gets_no_traceback(mesh: Mesh, threaded: BrokerThread) -> None:
    assert mesh("jobs", "submit", "done", "--count", "1000").code == 0
    command = [sys.executable, "-m", "broker.cli", "jobs", "list", "--limit", "1000", "-o", "json"]
    with subprocess.Popen(
        [*command, "--api", threaded.broker.address],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        words = process.stderr.read()
    assert "Traceback" not in words
    assert "BrokenPipe" not in words
