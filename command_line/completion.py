"""`PROGRAM completion` and `PROGRAM --install-completion`: what a shell offers when Tab is pressed.

The script is generated from the commands themselves, so it knows every option; after an upgrade it is written again.
"""

import sys
from typing import Annotated, Literal

from cyclopts import App, Parameter

from command_line.program import UsageError

Shell = Literal["bash", "zsh", "fish"]


def add_to(app: App) -> None:
    """Give the program both commands."""
    name = app.name[0]
    example = Parameter(help=f"For example, in ~/.bashrc: source <({name} completion bash).")

    def completion(shell: Annotated[Shell, example], /) -> None:
        """Write the completion script of a shell to standard output."""
        sys.stdout.write(app.generate_completion(prog_name=name, shell=shell))

    def install(*, shell: Shell | None = None) -> None:
        """Install completion for the shell that this runs in: its script, and a line in its start-up file.

        Parameters
        ----------
        shell
            Which; found out if it is left out. The line is for ~/.bashrc or ~/.zshrc; fish needs none.
        """
        _install(app, shell)

    app.command(completion, name="completion")
    app.command(install, name="--install-completion")


def _install(app: App, shell: Shell | None) -> None:
    from cyclopts.completion import ShellDetectionError

    try:
        path = app.install_completion(shell=shell)
    except ShellDetectionError as error:
        raise UsageError("this shell is not known: name it with --shell bash, zsh or fish") from error
    except OSError as error:
        own = f"`{app.name[0]} completion` writes the script to standard output, to be put where it can be read"
        raise UsageError(f"{error.filename}: {error.strerror}: {own}") from error
    said = "the start-up file of bash and zsh has a line for it. Open a new terminal to use it."
    sys.stderr.write(f"Completion is in {path}; {said}\n")
