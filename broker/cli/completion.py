"""`mesh completion` and `mesh --install-completion`: what a shell offers when Tab is pressed.

The script is generated from the commands themselves, so it knows every option; after an upgrade it is written again.
"""

from __future__ import annotations

from typing import Literal

from broker.cli.exits import UsageError
from broker.cli.output import say

Shell = Literal["bash", "zsh", "fish"]


def completion(shell: Shell, /) -> None:
    """Write the completion script of a shell to standard output.

    Parameters
    ----------
    shell
        For example, in ~/.bashrc: source <(mesh completion bash).
    """
    from broker.cli import app

    print(app.generate_completion(prog_name="mesh", shell=shell))


def install(*, shell: Shell | None = None) -> None:
    """Install completion for the shell that this runs in, or another: its script, and a line in its start-up file.

    Parameters
    ----------
    shell
        Which; found out if it is left out. The line is for ~/.bashrc or ~/.zshrc; fish needs none.
    """
    from cyclopts.completion import ShellDetectionError

    from broker.cli import app

    try:
        path = app.install_completion(shell=shell)
    except ShellDetectionError as error:
        raise UsageError("This shell is not known. Name it with --shell bash, zsh or fish.") from error
    except OSError as error:
        own = "`mesh completion` writes the script to standard output, to be put where it can be read."
        raise UsageError(f"{error.filename}: {error.strerror}. {own}") from error
    say(f"Completion is in {path}; the start-up file of bash and zsh has a line for it. Open a new terminal to use it.")
