"""How a command ends: the exit codes of all programs of the mesh, and the error that carries one."""

from collections.abc import Mapping
from typing import Final

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNAVAILABLE: Final = 5
EXIT_INTERRUPTED: Final = 130
EXIT_CODES: Final[Mapping[int, str]] = {
    EXIT_OK: "done",
    EXIT_FAILED: "failed: a job did not succeed, the answer was no, or a bug of the broker",
    EXIT_USAGE: "not well formed, or settings that cannot work: nothing was done",
    3: "not found",
    4: "denied",
    EXIT_UNAVAILABLE: "unavailable, full or too late: trying again may help",
    6: "wrong state, or the name is taken",
    EXIT_INTERRUPTED: "interrupted by Ctrl-C",
}
"""What each code says. Those without a name here come with the client's errors."""


class CommandError(Exception):
    """The command cannot go on. The text, one or more sentences, says why and what to do; `main` prints it."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class UsageError(CommandError):
    """What was asked for makes no sense."""

    def __init__(self, text: str) -> None:
        super().__init__(text, EXIT_USAGE)
