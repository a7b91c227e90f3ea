"""`command.run`: a program with arguments, never through a shell. Off unless the agent's configuration switches it on.

The payload is a JSON object:

    {"argv": ["/usr/bin/rsync", "-a", "in/", "out/"],   the program first, as the configuration allows it
     "folder": "/srv/exchange",                         where it runs; left out: an empty folder of the attempt
     "environment": {"LANG": "C.UTF-8"},                besides PATH, only names that the configuration allows
     "input": "text for its standard input",
     "timeout_s": 60,                                   at most the configuration's
     "retry_on": [75]}                                  exit codes after which trying again makes sense

The configuration, and nothing that a submitter says, decides what may run:

    [operations."command.run"]
    enabled = true
    commands = ["/usr/bin/rsync"]      whole paths; a payload must name one of them letter by letter
    folders = ["/srv/exchange"]        where a program may be started, and below
    environment = ["LANG"]
    timeout_s = 3600
    output_bytes_max = 65536           of each of the two outputs; the end of it is kept

Whoever may submit jobs to the group chooses the arguments, so allow no interpreters and nothing that starts others. The
result is `{"exit_code": 0, "output": ..., "errors": ..., "is_cut": false}`. Another exit code is the failure
`command.failed`, for good unless `retry_on` names it. The program runs in the process group of its attempt: it ends at
the latest when the attempt does.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from agent_stub.context import JobContext, OperationError
from agent_stub.operations import operation
from agent_stub.parents import die_with_parent

NAME = "command.run"
PATH = "/usr/local/bin:/usr/bin:/bin"
TEMPORARY_FAILURE = 75
OUTPUT_BYTES_MAX = 65_536
OUTPUT_BYTES_LIMIT = 256 << 10
"""Text in JSON may take six times as many bytes, and both outputs must fit into a result."""
TIMEOUT_S = 3_600.0
LOOK_EVERY_S = 0.1
LOOK_OFTEN_S = 0.01
TERMINATE_S = 1.0
LEFT_OPEN_S = 1.0
"""How long its outputs are heard after a program's end: others that it started may hold them open."""
READ_BYTES = 16_384
ERRORS_SHOWN_BYTES = 2_000


@dataclass(frozen=True, slots=True)
class Policy:
    """What the agent's configuration lets run. Raises ValueError at `of` with what is wrong in it."""

    commands: tuple[str, ...]
    folders: tuple[Path, ...] = ()
    environment: tuple[str, ...] = ()
    timeout_s: float = TIMEOUT_S
    output_bytes_max: int = OUTPUT_BYTES_MAX

    @staticmethod
    def of(options: Mapping[str, Any]) -> Policy:
        """The policy of the section `[operations."command.run"]`."""
        wish = {key: value for key, value in options.items() if key != "enabled"}
        unknown = set(wish) - {"commands", "folders", "environment", "timeout_s", "output_bytes_max"}
        if unknown:
            raise ValueError(f"there is no key {', '.join(sorted(unknown))}")
        lists = {key: _texts(key, wish.get(key, [])) for key in ("commands", "folders", "environment")}
        for path in (*lists["commands"], *lists["folders"]):
            if not Path(path).is_absolute():
                raise ValueError(f"{path} is no whole path")
        timeout_s, output_bytes_max = wish.get("timeout_s", TIMEOUT_S), wish.get("output_bytes_max", OUTPUT_BYTES_MAX)
        if not _is_number(timeout_s) or timeout_s <= 0:
            raise ValueError("timeout_s must be above 0")
        if type(output_bytes_max) is not int or not 0 <= output_bytes_max <= OUTPUT_BYTES_LIMIT:
            raise ValueError(f"output_bytes_max must be 0 to {OUTPUT_BYTES_LIMIT}")
        folders = tuple(Path(folder).resolve() for folder in lists["folders"])
        return Policy(lists["commands"], folders, lists["environment"], float(timeout_s), output_bytes_max)


@operation(NAME, process=True)
def command_run(job: JobContext) -> dict[str, Any]:
    """Run a program; see the module."""
    policy = Policy.of(job.options)
    command = _Command.parsed(job, policy)
    try:
        process = subprocess.Popen(
            command.argv,
            cwd=command.folder,
            env=command.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # each write says how much went
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - one call into libc, prepared before the fork
        )
    except OSError as error:
        raise OperationError("command.not_started", f"{command.argv[0]}: {error.strerror}") from error
    with process:
        try:
            return _result(command, *_Pipes(process, command.input, policy.output_bytes_max).wait(job, command))
        finally:
            process.kill()


@dataclass(frozen=True, slots=True)
class _Command:
    """What a payload asks for, as far as the policy lets it."""

    argv: list[str]
    folder: Path
    environment: dict[str, str]
    input: bytes
    timeout_s: float
    retry_on: tuple[int, ...]

    @staticmethod
    def parsed(job: JobContext, policy: Policy) -> _Command:
        wish = job.json()
        if not isinstance(wish, dict):
            raise _bad_payload("the payload must be an object")
        unknown = set(wish) - {"argv", "folder", "environment", "input", "timeout_s", "retry_on"}
        if unknown:
            raise _bad_payload(f"unknown: {', '.join(sorted(unknown))}")
        argv = wish.get("argv")
        if (
            not isinstance(argv, list)
            or not argv
            or not all(isinstance(word, str) and "\0" not in word for word in argv)
        ):
            raise _bad_payload("argv must be a list of text, the program first")
        if argv[0] not in policy.commands:
            raise OperationError("command.not_allowed", f"this agent does not allow {argv[0]}")
        timeout_s, text, retry_on = wish.get("timeout_s", policy.timeout_s), wish.get("input", ""), wish.get("retry_on")
        if not _is_number(timeout_s) or not 0 < timeout_s <= policy.timeout_s:
            raise _bad_payload(f"timeout_s must be above 0 and at most {policy.timeout_s:g}")
        if not isinstance(text, str):
            raise _bad_payload("input must be text")
        codes = [TEMPORARY_FAILURE] if retry_on is None else retry_on
        if not isinstance(codes, list) or not all(type(code) is int for code in codes):
            raise _bad_payload("retry_on must be a list of exit codes")
        folder, environment = (
            _folder(job, wish.get("folder"), policy),
            _environment(wish.get("environment", {}), policy),
        )
        return _Command(argv, folder, environment, text.encode(errors="replace"), float(timeout_s), tuple(codes))


class _Pipes:
    """The three pipes of a program: it is fed, and the end of what it writes is kept.

    Without threads, and nothing here waits for a pipe: whatever the program started may hold its ends for ever.
    """

    def __init__(self, process: subprocess.Popen[bytes], text: bytes, bytes_max: int) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._left = memoryview(text)
        self._bytes_max = bytes_max
        self._kept = {pipe: bytearray() for pipe in (process.stdout, process.stderr)}
        self._open_outputs = set(self._kept)
        self._is_cut = False
        self._selector = selectors.DefaultSelector()
        os.set_blocking(process.stdin.fileno(), False)
        self._selector.register(process.stdin, selectors.EVENT_WRITE)
        for pipe in self._kept:
            self._selector.register(pipe, selectors.EVENT_READ)

    def wait(self, job: JobContext, command: _Command) -> tuple[int, str, str, bool]:
        """Until the program has ended: its exit code, its two outputs, and whether they were cut.

        Raises:
            OperationError: `command.timeout`, retryable.
            JobCancelledError: the attempt should end.
        """
        with self._selector:
            until_s = time.monotonic() + command.timeout_s
            while self._process.poll() is None:
                if job.cancelled:
                    self._terminate()
                    job.raise_if_cancelled()
                if time.monotonic() >= until_s:
                    text = f"{command.argv[0]} ran longer than {command.timeout_s:g} s"
                    raise OperationError("command.timeout", text, retryable=True)
                self._serve()
            until_s = time.monotonic() + LEFT_OPEN_S
            while self._open_outputs and time.monotonic() < until_s:
                self._serve()
        output, errors = (bytes(kept).decode(errors="replace") for kept in self._kept.values())
        return self._process.returncode, output, errors, self._is_cut

    def _terminate(self) -> None:
        self._process.terminate()
        until_s = time.monotonic() + TERMINATE_S
        while self._process.poll() is None and time.monotonic() < until_s:
            self._serve()

    def _serve(self) -> None:
        # A program mostly ends right after its outputs: then no pipe tells.
        for key, _ in self._selector.select(LOOK_EVERY_S if self._open_outputs else LOOK_OFTEN_S):
            pipe = cast("IO[bytes]", key.fileobj)
            if not (self._feed(pipe) if pipe is self._process.stdin else self._read(pipe)):
                self._selector.unregister(pipe)
                pipe.close()

    def _feed(self, pipe: IO[bytes]) -> bool:
        """Write what fits; whether something is left."""
        try:
            self._left = self._left[pipe.write(self._left) or 0 :]
        except OSError:  # nobody reads it any more
            return False
        return bool(self._left)

    def _read(self, pipe: IO[bytes]) -> bool:
        """Take what is there; whether more may come."""
        part = pipe.read(READ_BYTES)
        if not part:
            self._open_outputs.remove(pipe)
            return False
        kept = self._kept[pipe]
        kept += part
        if len(kept) > self._bytes_max:
            self._is_cut = True
            del kept[: len(kept) - self._bytes_max]
        return True


def _result(command: _Command, code: int, output: str, errors: str, is_cut: bool) -> dict[str, Any]:
    if code == 0:
        return {"exit_code": 0, "output": output, "errors": errors, "is_cut": is_cut}
    shown = errors[-ERRORS_SHOWN_BYTES:].strip()
    if code < 0:
        name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
        raise OperationError("command.killed", f"{command.argv[0]} was ended by {name}: {shown}", retryable=True)
    text = f"{command.argv[0]} ended with exit code {code}: {shown}"
    raise OperationError("command.failed", text, retryable=code in command.retry_on)


def _folder(job: JobContext, wish: object, policy: Policy) -> Path:
    if wish is None:
        return job.folder()
    if not isinstance(wish, str) or "\0" in wish:
        raise _bad_payload("folder must be a path")
    folder = Path(wish).resolve()
    if not any(folder.is_relative_to(allowed) for allowed in policy.folders):
        raise OperationError("command.not_allowed", f"this agent does not allow to run in {wish}")
    return folder


def _environment(wish: object, policy: Policy) -> dict[str, str]:
    if not isinstance(wish, dict) or not all(isinstance(value, str) and "\0" not in value for value in wish.values()):
        raise _bad_payload("environment must be an object of text")
    refused = sorted(set(wish) - set(policy.environment))
    if refused:
        raise OperationError("command.not_allowed", f"this agent does not allow to set {', '.join(refused)}")
    return {"PATH": PATH} | wish


def _texts(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{key} must be a list of text")
    return tuple(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bad_payload(text: str) -> OperationError:
    return OperationError("command.bad_payload", text)
