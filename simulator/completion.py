"""`mesh-sim completion` and `mesh-sim --install-completion`: what a shell offers when Tab is pressed.

The script is generated from the commands themselves, so it knows every option; after an upgrade it is written again.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from cyclopts import App

Shell = Literal["bash", "zsh", "fish"]


def add_to(app: App) -> None:
    """Give the command line both commands."""

    def completion(shell: Shell, /) -> None:
        """Write the completion script of a shell to standard output.

        Parameters
        ----------
        shell
            For example, in ~/.bashrc: source <(mesh-sim completion bash).
        """
        sys.stdout.write(app.generate_completion(prog_name=app.name[0], shell=shell))

    def install(*, shell: Shell | None = None) -> int:
        """Install completion for the shell that this runs in: its script, and a line in its start-up file.

        Parameters
        ----------
        shell
            Which; found out if it is left out. The line is for ~/.bashrc or ~/.zshrc; fish needs none.
        """
        return _install(app, shell)

    app.command(completion, name="completion")
    app.command(install, name="--install-completion")


def _install(app: App, shell: Shell | None) -> int:
    from cyclopts.completion import ShellDetectionError

    try:
        path = app.install_completion(shell=shell)
    except ShellDetectionError:
        sys.stderr.write("This shell is not known: name it with --shell bash, zsh or fish.\n")
        return 2
    except OSError as error:
        own = f"`{app.name[0]} completion` writes the script to standard output, to be put where it can be read."
        sys.stderr.write(f"{error.filename}: {error.strerror}. {own}\n")
        return 2
    said = "the start-up file of bash and zsh has a line for it. Open a new terminal to use it."
    sys.stderr.write(f"Completion is in {path}; {said}\n")
    return 0
