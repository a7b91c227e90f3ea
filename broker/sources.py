"""Where settings come from: flags, the environment, a directory of secrets, a TOML file; and which one said what.

A source is a flat map from the path of a setting (`("dispatch", "lease_s")`) to what it says. The first source that
names a path wins; tables are joined path by path. Values are as they were written: whoever has the model reads them.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from broker.errors import ConfigError

NESTED: Final = "__"
"""Between table and key in the names of variables and of secret files."""
FLAG: Final = "flag"
ENVIRONMENT: Final = "environment"
HIDDEN: Final = "secret"
FILE: Final = "file"

SettingPath = tuple[str, ...]


class Said(NamedTuple):
    """What a source says of one setting: `kind` of the source, and `place` in it (a variable, a file)."""

    value: object
    kind: str
    place: str = ""

    @property
    def origin(self) -> str:
        """Where it comes from, for people: `environment MESH_DATA_DIR`."""
        return f"{self.kind} {self.place}".rstrip()


Source = Mapping[SettingPath, Said]


def flags(given: Mapping[str, object]) -> Source:
    """What the command line said, nested like the settings."""
    return {path: Said(value, FLAG) for path, value in _leaves((), given)}


def environment(variables: Mapping[str, str], prefix: str) -> Source:
    """Variables with the prefix: `MESH_DISPATCH__LEASE_S`; empty ones say nothing. A table may be given as JSON."""
    said: dict[SettingPath, Said] = {}
    for variable, text in sorted(variables.items()):
        if variable.startswith(prefix) and text:
            path = path_of(variable.removeprefix(prefix))
            said |= {inner: Said(value, ENVIRONMENT, variable) for inner, value in _leaves(path, _table(text))}
    return said


def secrets(folder: Path) -> Source:
    """One file a setting, named like the variable without its prefix; hidden files are left alone.

    Raises ConfigError if the folder or a file cannot be read.
    """
    said: dict[SettingPath, Said] = {}
    try:
        for file in sorted(folder.iterdir()):
            if file.is_file() and not file.name.startswith("."):
                for path, value in _leaves(path_of(file.name), _table(file.read_text().strip())):
                    said[path] = Said(value, HIDDEN, file.name)
    except FileNotFoundError:
        raise ConfigError(f"The directory of secrets {folder} does not exist; check the path.") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"The directory of secrets {folder} cannot be read: {why}") from error
    return said


def toml(file: Path) -> Source:
    """A configuration file. Raises ConfigError if it cannot be read."""
    try:
        given = tomllib.loads(file.read_text())
    except FileNotFoundError:
        raise ConfigError(f"The configuration file {file} does not exist; check the path.") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"The configuration file {file} cannot be read: {why}") from error
    return {path: Said(value, FILE, str(file)) for path, value in _leaves((), given)}


def joined(*sources: Source) -> dict[SettingPath, Said]:
    """What is said of each setting by the first source that names it.

    Raises ConfigError if one source gives a value where another gives a table.
    """
    said: dict[SettingPath, Said] = {}
    for source in reversed(sources):
        said |= source
    for path, one in said.items():
        for depth in range(1, len(path)):
            above = said.get(path[:depth])
            if above is not None and above.value != {}:
                raise ConfigError(
                    f"{'.'.join(path[:depth])}: {above.origin} gives a value, {one.origin} a table; give it once"
                )
    return said


def nested(said: Mapping[SettingPath, Said]) -> dict[str, object]:
    """The values as a tree of tables."""
    tree: dict[str, object] = {}
    for path, one in sorted(said.items()):
        table = tree
        for part in path[:-1]:
            inner = table.setdefault(part, {})
            assert isinstance(inner, dict)
            table = inner
        table[path[-1]] = one.value
    return tree


def path_of(name: str) -> SettingPath:
    """The path that a variable without its prefix, or a secret file, names."""
    return tuple(name.lower().split(NESTED))


def _leaves(path: SettingPath, value: object) -> Iterator[tuple[SettingPath, object]]:
    if isinstance(value, Mapping) and (value or not path):
        for key, inner in value.items():
            yield from _leaves((*path, str(key)), inner)
    else:
        yield path, value


def _table(text: str) -> object:
    """A table or a list that is written as JSON; all else as it is."""
    if text[:1] not in ("{", "["):
        return text
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return value
