"""`mesh-agent`: the agent on the command line.

Exit codes: 0 left in good order, 1 a check failed, 2 usage, 4 refused for good (unknown, removed, revoked, expired),
5 not stopped in time, 6 refused in this state (version too old, superseded, runs already), 130 stopped by a second
signal.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from agent_stub.settings import DEFAULT_BROKER, AgentSettings, SettingsError
from command_line import completion, program

if TYPE_CHECKING:
    from agent_stub.configuration import Configuration
    from agent_stub.operations import Operations

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 5
EXIT_WRONG_STATE = 6
POLL_S = 0.05

Flag = Annotated[bool, Parameter(negative="")]
Words = Annotated[list[str] | None, Parameter(negative="")]


def _version() -> str:
    from agent_stub.host import version

    return version()


app = App(
    name="mesh-agent",
    help="Runs jobs where the data is.",
    version=_version,
    result_action="return_value",
)
completion.add_to(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    from agent_stub.folders import FoldersError, RunningError
    from agent_stub.operations import OperationLoadError

    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return program.run(app, words)
    except RunningError as error:
        print(f"mesh-agent: {error}", file=sys.stderr)
        return EXIT_WRONG_STATE
    except (SettingsError, FoldersError, OperationLoadError, ValueError) as error:
        print(f"mesh-agent: {error}", file=sys.stderr)
        return EXIT_USAGE


@app.command
def init(
    file: Path = Path("mesh-agent.toml"), *, name: str | None = None, broker: str = DEFAULT_BROKER, force: Flag = False
) -> int:
    """Write a configuration with every setting explained.

    Parameters
    ----------
    file
        Where to write it.
    name
        The agent's name in its group; the host's name if left out.
    broker
        host:port of the broker's mesh port.
    force
        Overwrite a file that exists.
    """
    from agent_stub.configuration import TEMPLATE, load

    name = name or load(file=None, environment={}).name
    AgentSettings(agent=name, dev=True)  # a name that it refuses could never run
    text = TEMPLATE.format(name=json.dumps(name), broker=json.dumps(broker))
    try:
        with file.open("w" if force else "x") as out:
            out.write(text)
    except FileExistsError:
        print(f"mesh-agent: {file} exists: name another file, or overwrite it with --force", file=sys.stderr)
        return EXIT_WRONG_STATE
    except OSError as error:
        print(f"mesh-agent: {file}: {error.strerror}", file=sys.stderr)
        return EXIT_USAGE
    print(f"{file} is written. Next: mesh-agent check, then mesh-agent run", file=sys.stderr)
    return EXIT_OK


@app.command
def run(  # noqa: PLR0913 - one parameter for each option
    *,
    config: Path | None = None,
    broker: str | None = None,
    dev: Flag = False,
    organization: str | None = None,
    group: str | None = None,
    name: str | None = None,
    slots: int | None = None,
    prefetch: int | None = None,
    operations: Words = None,
    state: Path | None = None,
    log_level: str | None = None,
) -> int:
    """Connect to a broker and run what it assigns, until SIGTERM (drains) or a second one (stops now).

    Parameters
    ----------
    config
        The configuration; `mesh-agent.toml` if there is one here. Options win over it.
    broker
        host:port of the broker's mesh port.
    dev
        No certificates: plain text to a broker on this machine.
    organization
        The organisation that the agent belongs to.
    group
        Its agent group.
    name
        Its name in the group; the host's name if left out.
    slots
        Jobs that run at the same time.
    prefetch
        Jobs that wait here, per slot, unless the group says how many.
    operations
        More operations, as `module` or `module:attribute`; may be given several times.
    state
        Folder of what outlives the process.
    log_level
        debug, info, warning or error.
    """
    flags = {
        "agent.broker": broker,
        "agent.dev": dev or None,
        "agent.organization": organization,
        "agent.group": group,
        "agent.name": name,
        "agent.slots": slots,
        "agent.prefetch": prefetch,
        "agent.modules": operations,
        "folders.state": None if state is None else str(state.absolute()),
        "log.level": log_level,
    }
    from agent_stub.folders import RunningError

    try:
        return _serve(_load(config, flags))
    except RunningError as error:
        given = {"config": config, "organization": organization, "group": group, "name": name, "state": state}
        command = _command("stop", given | {"broker": broker}, dev=dev)
        print(f"mesh-agent: {error}: stop it with `{command}`", file=sys.stderr)
        return EXIT_WRONG_STATE


def _command(verb: str, given: Mapping[str, object], *, dev: bool) -> str:
    """The command line that means the agent of these options."""
    words = [word for option, value in given.items() if value is not None for word in (f"--{option}", str(value))]
    return shlex.join(["mesh-agent", verb, *words, *(["--dev"] if dev else [])])


@app.command
def check(
    *, config: Path | None = None, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False
) -> int:
    """Look whether this machine and the configuration can run the agent; exit 1 if something is missing.

    Parameters
    ----------
    config
        The configuration; `mesh-agent.toml` if there is one here.
    as_json
        Print one JSON object.
    """
    from agent_stub.check import check as find

    configuration = _load(config)
    findings = find(configuration, lambda: _operations(configuration))
    is_met = all(finding.is_met for finding in findings)
    if as_json:
        print(json.dumps({"is_met": is_met, "findings": [asdict(finding) for finding in findings]}))
        return EXIT_OK if is_met else EXIT_FAILED
    for finding in findings:
        print(f"{'yes' if finding.is_met else 'NO '} {finding.need}: {finding.found}")
        if not finding.is_met:
            print(f"    {finding.remedy}")
    return EXIT_OK if is_met else EXIT_FAILED


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Which:
    """Which agent is meant: the options that `run` was given."""

    config: Path | None = None
    """The configuration; `mesh-agent.toml` if there is one here."""
    organization: str | None = None
    """Its organisation, if it was started with one."""
    group: str | None = None
    """Its group, if it was started with one."""
    name: str | None = None
    """Its name, if it was started with one."""
    state: Path | None = None
    """Its folder, if it was started with one."""
    broker: str | None = None
    """Its broker, if it was started with one."""
    dev: Flag = False
    """It was started with --dev."""

    def load(self) -> Configuration:
        """Its configuration. Raises SettingsError."""
        flags = {
            "agent.organization": self.organization,
            "agent.group": self.group,
            "agent.name": self.name,
            "agent.broker": self.broker,
            "agent.dev": self.dev or None,
            "folders.state": None if self.state is None else str(self.state.absolute()),
        }
        return _load(self.config, flags)


WHICH = Which()


@app.command
def stop(*, which: Which = WHICH, now: Flag = False, timeout_s: float | None = None) -> int:
    """Stop an agent: it takes nothing new, finishes what it holds, delivers it and leaves.

    Give it the options that `run` was given: they say which agent is meant.

    Parameters
    ----------
    now
        Stop what runs; the broker gives it to another agent.
    timeout_s
        Wait at most so long (exit 5); for ever if left out.
    """
    folders = which.load().folders
    pid = folders.running_pid()
    if pid is None:
        again = "give `stop` what `run` was given (--config, --name, --group, --state, --broker, --dev)"
        print(f"mesh-agent: no agent runs with {folders.state}; {again}", file=sys.stderr)
        return EXIT_OK
    # Two different signals: a second one of a kind is lost while the first one waits.
    with suppress(ProcessLookupError):
        for number in (signal.SIGTERM, signal.SIGINT)[: 2 if now else 1]:
            os.kill(pid, number)
    until_s = time.monotonic() + timeout_s if timeout_s is not None else float("inf")
    while folders.running_pid() == pid:
        if time.monotonic() > until_s:
            print(f"mesh-agent: process {pid} still finishes what it holds; --now stops that", file=sys.stderr)
            return EXIT_UNAVAILABLE
        time.sleep(POLL_S)
    print(f"The agent (process {pid}) has left.", file=sys.stderr)
    return EXIT_OK


@app.command
def paths(*, which: Which = WHICH, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False) -> int:
    """Print where the agent keeps its files.

    Parameters
    ----------
    as_json
        Print one JSON object.
    """
    configuration = which.load()
    folders = configuration.folders
    found = {
        "configuration": configuration.file,
        "state": folders.state,
        "spool": folders.spool,
        "logs": folders.logs,
        "temporary": folders.temporary,
        "pid_file": folders.pid_file,
    }
    lines = {what: None if path is None else str(path) for what, path in found.items()}
    if as_json:
        print(json.dumps(lines))
    else:
        for what, path in lines.items():
            print(f"{what:14}{path or '-'}")
    return EXIT_OK


@app.command(name="clean")
def clean_up(
    *,
    config: Path | None = None,
    dry_run: Flag = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Remove the files that the configuration's rules want removed now; the agent does so by itself while it runs.

    Parameters
    ----------
    config
        The configuration; `mesh-agent.toml` if there is one here.
    dry_run
        Only list what would go.
    as_json
        Print one JSON object.
    """
    from agent_stub.cleanup import clean, due

    cleanup = _load(config).cleanup
    found = list(due(cleanup)) if dry_run else clean(cleanup)
    if as_json:
        files = [{"rule": one.rule, "file": str(one.path), "bytes": one.bytes} for one in found]
        print(json.dumps({"is_dry_run": dry_run, "files": files}))
        return EXIT_OK
    for one in found:
        print(f"{one.path} ({one.bytes} bytes, {one.rule})")
    did = "would be removed" if dry_run else "removed"
    print(f"{len(found)} files {did}, {sum(one.bytes for one in found)} bytes", file=sys.stderr)
    return EXIT_OK


def _load(config: Path | None, flags: Mapping[str, object] | None = None) -> Configuration:
    from agent_stub.configuration import load

    return load(config, flags or {})


def _operations(configuration: Configuration) -> Operations:
    """The operations of the agent: those that come with it and those of its modules, as far as they are enabled."""
    from agent_stub.builtins import builtin_operations
    from agent_stub.command_run import NAME, Policy

    options = configuration.settings.options
    for folder in reversed(configuration.import_folders):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))  # an installed script does not look where it is started
    operations = builtin_operations(with_commands=configuration.is_enabled(NAME, default=False))
    for reference in configuration.modules:
        operations.load(reference)
    for name in options:
        if name not in operations and name != NAME:
            raise SettingsError(f'[operations."{name}"]: there is no such operation; there are {operations.names()}')
        if not configuration.is_enabled(name, default=True):
            operations.remove(name)
    if NAME in operations:
        try:
            Policy.of(options[NAME])
        except ValueError as error:
            raise SettingsError(f'[operations."{NAME}"]: {error}') from error
    return operations


def _serve(configuration: Configuration) -> int:
    # Late: help and usage errors need neither gRPC nor protobuf.
    from agent_stub.folders import FoldersError, Tenancy
    from agent_stub.logs import configure

    settings, operations = configuration.settings, _operations(configuration)
    configure(configuration.log_level)
    with Tenancy(configuration.folders):
        configure(configuration.log_level, configuration.log_folder, configuration.log_days)
        from agent_stub.client import Agent

        async def serve() -> tuple[int, bool]:
            try:
                agent = Agent(settings, operations)
            except OSError as error:
                raise FoldersError(f"{error.filename}: {error.strerror}: name another in [folders]") from error
            agent.handle_signals()
            return await agent.run(), agent.is_running

        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            code, is_running = runner.run(serve())
    logging.shutdown()
    if is_running:
        # A handler's thread that does not listen must not keep the process; the interpreter would wait for it.
        os._exit(code)
    return code


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed: about a third more round trips."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.Loop
