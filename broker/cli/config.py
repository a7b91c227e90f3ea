"""`mesh config`: the settings that a broker would start with, where each comes from, and whether a file can work."""

from __future__ import annotations

import tomllib
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import App, Parameter

from broker.cli.exits import EXIT_OK, EXIT_USAGE, UsageError
from broker.cli.output import choose, say, write_json, write_table
from broker.cli.serve import Config, SecretsDir

if TYPE_CHECKING:
    from broker.settings import Loaded

Form = Annotated[Literal["table", "json", "yaml"], Parameter(name=["--output", "-o"])]
Flag = Annotated[bool, Parameter(negative="", show_default=False)]
HEADS: Final = ("SETTING", "VALUE", "ORIGIN")

app = App(name="config", help="Settings of a broker: see them, check a file.")


@app.command
def show(
    *,
    origin: Flag = False,
    changed: Flag = False,
    config: Config = None,
    secrets_dir: SecretsDir = None,
    output: Form = "table",
) -> None:
    """Show the settings that `mesh serve` would have here. Secrets are masked.

    Parameters
    ----------
    origin
        Show where each comes from, too: the environment, a secret, the file, a profile, a default.
    changed
        Only what is not a default.
    config
        TOML file with settings.
    secrets_dir
        Directory with one file for each secret setting.
    output
        For people, or for programs.
    """
    loaded = _load(config, secrets_dir)
    rows = [
        (_key(path), _shown(value), came) for path, value, came in loaded.values() if not changed or came != "default"
    ]
    if output != "table":
        choose(output)
        write_json({key: {"value": value, "origin": came} if origin else value for key, value, came in rows})
    elif rows:
        width = len(HEADS) if origin else len(HEADS) - 1
        write_table(HEADS[:width], [tuple(map(_cell, row[:width])) for row in rows])
    else:
        say("All settings are defaults.")


@app.command
def check(file: Path, /, *, dev: Flag = False) -> int:
    """Say whether a broker could start with a configuration file, and nothing else. Exit code 2 if not.

    Parameters
    ----------
    file
        TOML file with settings.
    dev
        `mesh serve` will be given --dev, too.
    """
    from broker.errors import ConfigError
    from broker.settings import load

    try:
        loaded = load(config=file, variables={})
    except ConfigError as error:
        if _is_agents(file):
            raise UsageError(f"{file} is of an agent: `mesh-agent check --config {file}` looks at it") from error
        raise UsageError(f"{file} cannot work.\n{error.text}") from error
    number = len(loaded.said)
    say(f"{file} is good: {number} {'setting' if number == 1 else 'settings'}.")
    if dev or loaded.settings.dev:
        return EXIT_OK
    say("A broker does not start with it alone: give `mesh serve` --dev too, or write `dev = true`.")
    return EXIT_USAGE


def _is_agents(file: Path) -> bool:
    """Whether it is the other kind of configuration."""
    try:
        return "agent" in tomllib.loads(file.read_text())
    except (OSError, ValueError):
        return False


def _load(config: Path | None, secrets_dir: Path | None) -> Loaded:
    from broker.errors import ConfigError
    from broker.settings import load

    try:
        return load(config=config, secrets_dir=secrets_dir)
    except ConfigError as error:
        raise UsageError(error.text) from error


def _key(path: tuple[str, ...]) -> str:
    """As TOML writes it: parts that are no bare keys in quotes."""
    return ".".join(part if part.replace("_", "").replace("-", "").isalnum() else f'"{part}"' for part in path)


def _shown(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
