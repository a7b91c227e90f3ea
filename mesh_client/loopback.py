"""A broker and agents as real processes on this machine, for programs that show or test what happens to them.

What a process says on standard error is read as it comes, so that whoever waits for something (`broker.ready`,
`session.started`) waits for that line and not for a time. All that was started is ended by `Mesh.__aexit__`; where that
never runs, because whoever started it is killed, the kernel ends it (on Linux).
"""

import asyncio
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

SAID_LINES_MAX: Final = 2_000
START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 10.0
BROKER_PROGRAM: Final = ("-m", "broker.cli")
AGENT_PROGRAM: Final = ("-m", "agent_stub")
"""What the interpreter is told to run; tests put something of theirs in front."""

_WITH_PARENT: Final = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)  # whoever started this was gone before the kernel knew
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
"""A program that becomes another one, after it has asked the kernel to kill it when the thread that started it ends.

Asked here and not between fork and exec of the parent, where gRPC's threads are.
"""


class ProcessError(Exception):
    """A process did not do what was waited for; the text has the last lines that it wrote."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a broker listens: the same before and after a restart."""

    mesh: str
    api: str
    metrics: str

    @staticmethod
    def free() -> "Addresses":
        """Three addresses of this machine that nobody listens on now."""
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
            for one in sockets:
                one.bind(("127.0.0.1", 0))
            return Addresses(*(f"127.0.0.1:{one.getsockname()[1]}" for one in sockets))


class Process:
    """A program that can be started, killed and started again. `on_line` gets each line that it writes on stderr.

    `prefix` are the words of a program that becomes the one that follows them: `nsenter --net=FILE`.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.name = name
        self._arguments = [sys.executable, *arguments]
        self._prefix = prefix
        self._environment = dict(environment or {})
        self._on_line = on_line
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._lines: deque[str] = deque(maxlen=SAID_LINES_MAX)
        self._news = asyncio.Event()
        self.started_s = 0.0
        """When it was started last, by the clock on the wall."""

    @property
    def pid(self) -> int:
        """The number of the running process."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def start(self, prefix: Sequence[str] = ()) -> None:
        """Start it; returns at once. What it said in an earlier life is forgotten. `prefix` is for this life only."""
        assert not self.is_running, f"{self.name} runs already"
        self._lines.clear()
        self.started_s = time.time()
        # Settings of whoever starts this are not settings of the demonstration.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MESH_")}
        self._process = await asyncio.create_subprocess_exec(
            *(prefix or self._prefix),
            *_with_parent(self._arguments),
            env=inherited | self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # an interrupt is for the program that started it, which ends it in order
        )
        assert self._process.stderr is not None
        self._reader = asyncio.create_task(self._read(self._process.stderr), name=f"read-{self.name}")

    async def said(self, event: str, timeout_s: float = START_TIMEOUT_S) -> str:
        """The first line since the start that names the event. Raises ProcessError if it does not come."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    self._news.clear()
                    for line in self._lines:
                        if event in line:
                            return line
                    if self._reader is None or self._reader.done():
                        raise self._failure(f"ended before it said {event}")
                    await self._news.wait()
        except TimeoutError:
            raise self._failure(f"did not say {event} within {timeout_s:g} s") from None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None, f"{self.name} was never started"
        self._process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.is_running:
            self.signal(signal.SIGKILL)
        await self._gone()

    async def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """SIGTERM, and its exit code. Raises ProcessError (and kills it) if it does not leave in time."""
        if self.is_running:
            self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._gone()
        except TimeoutError:
            await self.kill()
            raise self._failure(f"did not leave within {timeout_s:g} s after SIGTERM") from None

    async def ended(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Its exit code, once it has ended by itself. Raises ProcessError if it does not in time."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._gone()
        except TimeoutError:
            raise self._failure(f"did not end within {timeout_s:g} s") from None

    async def _gone(self) -> int:
        if self._process is None:
            return 0
        code = await self._process.wait()
        if self._reader is not None:
            await self._reader
        return code

    async def _read(self, stream: asyncio.StreamReader) -> None:
        try:
            async for raw in stream:
                line = raw.decode(errors="replace").rstrip()
                self._lines.append(line)
                self._news.set()
                if self._on_line is not None:
                    self._on_line(line)
        finally:
            self._news.set()

    def _failure(self, text: str) -> ProcessError:
        last = "\n".join(f"    {line}" for line in list(self._lines)[-12:])
        return ProcessError(f"{self.name} {text}; it wrote last:\n{last or '    (nothing)'}")


def _with_parent(command: Sequence[str]) -> Sequence[str]:
    if sys.platform != "linux":
        return command
    program, *arguments = command
    assert program == sys.executable, "it becomes another program of the same interpreter"
    return [program, "-I", "-S", "-c", _WITH_PARENT, str(os.getpid()), *arguments]


class Mesh:
    """One broker and its agents, all on loopback, over the data directory `data`.

    `settings` are environment variables of the broker (`MESH_STORE__SYNCHRONOUS`). The agents keep what they keep in
    `agents_data`, by default beside `data`. Raises ProcessError.
    """

    def __init__(
        self,
        data: Path,
        *,
        settings: Mapping[str, str] | None = None,
        broker_program: Sequence[str] = BROKER_PROGRAM,
        agent_program: Sequence[str] = AGENT_PROGRAM,
        agents_data: Path | None = None,
    ) -> None:
        self.data = data
        self._agents_data = agents_data or data.with_name(f"{data.name}-agents")
        self.addresses = Addresses.free()
        listen = [
            word for kind in ("mesh", "api", "metrics") for word in (f"--{kind}-listen", getattr(self.addresses, kind))
        ]
        self.broker = Process(
            "broker",
            [*broker_program, "serve", "--dev", "--data", str(data), *listen],
            environment=settings,
        )
        self.agents: dict[str, Process] = {}
        self._agent_program = agent_program

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        every = (*self.agents.values(), self.broker)
        for process in every:  # before anything is waited for: an impatient second signal ends the waiting
            if process.is_running:
                process.signal(signal.SIGKILL)
        for process in every:
            await process.kill()

    async def start_broker(self, prefix: Sequence[str] = ()) -> None:
        """Start the broker (again) on the same data and addresses, behind `prefix`; returns when it is ready."""
        await self.broker.start(prefix)
        await self.broker.said("broker.ready")

    async def start_agent(
        self,
        name: str,
        *,
        slots: int,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
        broker: str = "",
        prefix: Sequence[str] = (),
    ) -> Process:
        """Start an agent of the group `default`; returns when its session has begun.

        `broker` is the address at which it finds its broker, if that is not the broker's own; `prefix` as of `Process`.
        """
        where = ["--broker", broker or self.addresses.mesh, "--dev", "--name", name, "--slots", str(slots)]
        folder = self._agents_data
        folder.mkdir(parents=True, exist_ok=True)
        where += ["--state", str(folder)]
        environment = {"TMPDIR": str(folder), **(environment or {})}
        command = [*self._agent_program, "run", *where, *options]
        agent = Process(name, command, environment=environment, on_line=on_line, prefix=prefix)
        self.agents[name] = agent
        await agent.start()
        await agent.said("session.started")
        return agent

    async def stop(self) -> None:
        """End agents and broker in good order, agents first. Raises ProcessError if one does not leave."""
        with suppress(ProcessLookupError):
            for process in (*self.agents.values(), self.broker):
                await process.stop()
