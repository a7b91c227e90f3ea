"""`mesh-agent`: the agent on the command line.

Exit codes: 0 left in good order, 2 usage, 4 refused for good (unknown, removed, revoked, expired), 6 refused in this
state (version too old, superseded), 130 stopped by a second signal.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from agent_stub.settings import DEFAULT_BROKER, AgentSettings, SettingsError

EXIT_USAGE = 2


def _version() -> str:
    from agent_stub.host import version

    return version()


app = App(
    name="mesh-agent",
    help="Runs jobs where the data is.",
    version=_version,
    result_action="return_value",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    try:
        result = app(list(sys.argv[1:] if arguments is None else arguments), exit_on_error=False, print_error=False)
    except CycloptsError as error:
        print(f"mesh-agent: {error}\nTry: mesh-agent --help", file=sys.stderr)
        return EXIT_USAGE
    return result if isinstance(result, int) else 0


@app.command
def run(  # noqa: PLR0913 - one parameter for each option
    *,
    broker: str = DEFAULT_BROKER,
    dev: Annotated[bool, Parameter(negative="")] = False,
    organization: str = "default",
    group: str = "default",
    name: str | None = None,
    slots: int = 4,
    prefetch: int = 0,
    operations: Annotated[list[str] | None, Parameter(negative="")] = None,
    log_level: str = "info",
) -> int:
    """Connect to a broker and run what it assigns, until SIGTERM (drains) or a second one (stops now).

    Parameters
    ----------
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
        Jobs that wait here, per slot.
    operations
        More operations, as `module` or `module:attribute`; may be given several times.
    log_level
        debug, info, warning or error.
    """
    try:
        settings = AgentSettings(
            organization=organization,
            group=group,
            agent=name or _host_slug(),
            broker=broker,
            slots=slots,
            prefetch=prefetch,
            dev=dev,
        )
        return _serve(settings, operations or [], log_level)
    except (SettingsError, ValueError) as error:
        print(f"mesh-agent: {error}", file=sys.stderr)
        return EXIT_USAGE


def _serve(settings: AgentSettings, references: Sequence[str], log_level: str) -> int:
    # Late: help and usage errors need neither gRPC nor protobuf.
    from agent_stub.builtins import builtin_operations
    from agent_stub.client import Agent
    from agent_stub.logs import configure
    from agent_stub.operations import OperationLoadError

    operations = builtin_operations()
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # an installed script does not look where it is started
    try:
        for reference in references:
            operations.load(reference)
    except OperationLoadError as error:
        print(f"mesh-agent: --operations: {error}", file=sys.stderr)
        return EXIT_USAGE
    configure(log_level)

    async def serve() -> tuple[int, bool]:
        agent = Agent(settings, operations)
        agent.handle_signals()
        return await agent.run(), agent.is_running

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        code, is_running = runner.run(serve())
    if is_running:
        # A handler's thread that does not listen must not keep the process; the interpreter would wait for it.
        logging.shutdown()
        os._exit(code)
    return code


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed: about a third more round trips."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.Loop


def _host_slug() -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().lower()).strip("-")[:63].rstrip("-")
    return slug if slug[:1].isalpha() else f"agent-{slug}"[:63].rstrip("-")
