"""How a command ends: the exit codes of all programs of the mesh, and the error that carries one."""

from typing import Final

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
# Not found (3), denied (4), unavailable or timeout (5) and wrong state (6) come with the client's errors.


class CommandError(Exception):
    """The command cannot go on. The text, one or more sentences, says why and what to do; `main` prints it."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class UsageError(CommandError):
    """What was asked for makes no sense."""

    def __init__(self, text: str) -> None:
        super().__init__(text, EXIT_USAGE)
