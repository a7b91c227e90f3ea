"""The agent's configuration: defaults, then `mesh-agent.toml`, then the environment, then flags; the later one wins.

In the environment a key of `[agent]` is `MESH_AGENT_SLOTS`, one of another section `MESH_AGENT_SPOOL__BYTES_MAX`;
lists are joined by commas. A key that does not exist is an error that names the nearest one.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import socket
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from agent_stub.cleanup import DAY_S, Cleanup, Rule
from agent_stub.folders import Folders
from agent_stub.logs import DAYS_MAX, KEPT_DAYS, check_level
from agent_stub.settings import DEFAULT_BROKER, AgentSettings, SettingsError

FILE_NAME: Final = "mesh-agent.toml"
PREFIX: Final = "MESH_AGENT_"
FILE_VARIABLE: Final = "MESH_AGENT_CONFIG"
VARIABLE: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")

KEYS: Final[Mapping[str, Mapping[str, type]]] = MappingProxyType(
    {
        "agent": {
            "organization": str,
            "group": str,
            "name": str,
            "broker": str,
            "dev": bool,
            "slots": int,
            "prefetch": int,
            "modules": list,
        },
        "folders": {"state": str, "logs": str, "temporary": str},
        "spool": {"bytes_max": int, "leave_s": float},
        "log": {"level": str, "files": bool, "agent_days": int, "operations_days": int},
        "cleanup": {"every_s": float},
    }
)
"""The sections whose keys are fixed."""
RULE_SECTIONS: Final = ("file_cleanup", "result_files")
"""Their keys are names of rules, their values tables of these:"""
RULE_KEYS: Final[Mapping[str, type]] = MappingProxyType(
    {
        "directory": str,
        "pattern": str,
        "older_than_days": float,
        "larger_than_bytes": int,
        "subdirectories": bool,
    }
)
CLEAN_EVERY_MIN_S: Final = 1.0
OPEN_SECTIONS: Final = ("labels", "variables")
"""Their keys are names that the user chooses, their values are text."""
SECTIONS: Final = (*KEYS, *OPEN_SECTIONS, *RULE_SECTIONS, "operations")

Tables = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Configuration:
    """What an agent was told, from all sources. Values are checked by `settings`.

    Attributes:
        file: the file that was read; None: there was none.
        tables: section, key and value of what was said.
    """

    file: Path | None
    tables: Tables

    @cached_property
    def settings(self) -> AgentSettings:
        """The settings of the agent.

        Raises:
            SettingsError: one of them is wrong.
        """
        agent, spool = self.tables["agent"], self.tables["spool"]
        named = {name: value for name, value in agent.items() if name not in ("name", "modules")}
        if "bytes_max" in spool:
            named["spool_bytes_max"] = spool["bytes_max"]
        if "leave_s" in spool:
            named["spool_leave_s"] = spool["leave_s"]
        return AgentSettings(
            agent=self.name,
            labels=self.tables["labels"],
            spool=self.folders.spool,
            job_folders=self.folders.jobs,
            variables=self.tables["variables"],
            options=self.tables["operations"],
            cleanup=self.cleanup,
            **named,
        )

    @property
    def name(self) -> str:
        """The agent's name in its group; the host's if none is given."""
        return str(self.tables["agent"].get("name") or _host_slug())

    @cached_property
    def folders(self) -> Folders:
        """Where the agent keeps its files."""
        agent = self.tables["agent"]
        base = self.file.parent if self.file is not None else Path.cwd()
        given = {key: base / Path(value).expanduser() for key, value in self.tables["folders"].items()}
        identity = f"{agent.get('organization', 'default')}/{agent.get('group', 'default')}/{self.name}"
        return Folders.of(identity, agent.get("broker", DEFAULT_BROKER), dev=agent.get("dev", False), given=given)

    @cached_property
    def cleanup(self) -> Cleanup:
        """Which files are removed when they are old."""
        base = self.file.parent if self.file is not None else Path.cwd()
        rules = tuple(
            Rule(
                f"{section}.{name}",
                base / Path(table["directory"]).expanduser(),
                table.get("pattern", "*"),
                table.get("older_than_days", 0) * DAY_S,
                table.get("larger_than_bytes", -1),
                table.get("subdirectories", False),
            )
            for section in RULE_SECTIONS
            for name, table in self.tables[section].items()
        )
        own = (self.folders.state, self.folders.jobs)
        return Cleanup(rules, self.tables["cleanup"].get("every_s", Cleanup().every_s), own)

    @property
    def modules(self) -> list[str]:
        """Modules of operations, as `module` or `module:attribute`."""
        return list(self.tables["agent"].get("modules", ()))

    @property
    def import_folders(self) -> list[Path]:
        """Where modules are looked for first: beside the file, then where the agent was started."""
        return list(dict.fromkeys([*([self.file.parent] if self.file is not None else ()), Path.cwd()]))

    @property
    def log_level(self) -> str:
        """From which level up lines are written."""
        return str(self.tables["log"].get("level", "info"))

    @property
    def log_folder(self) -> Path | None:
        """Where log files are written; None: to stderr only."""
        return self.folders.logs if self.tables["log"].get("files", False) else None

    @property
    def log_days(self) -> dict[str, int]:
        """How many days of each kind of log file are kept."""
        return {kind: self.tables["log"].get(f"{kind}_days", days) for kind, days in KEPT_DAYS.items()}

    def is_enabled(self, operation: str, *, default: bool) -> bool:
        """Whether `[operations."..."]` lets this operation run."""
        return bool(self.tables["operations"].get(operation, {}).get("enabled", default))


def load(
    file: Path | None = None,
    flags: Mapping[str, Any] = MappingProxyType({}),
    environment: Mapping[str, str] | None = None,
) -> Configuration:
    """Put together what all sources say.

    Args:
        file: the TOML file; None: that of `MESH_AGENT_CONFIG`, or `mesh-agent.toml` here if there is one.
        flags: `section.key` and value; None as value says nothing.
        environment: the process's own if left out.

    Raises:
        SettingsError: a source cannot be read, or holds what it should not.
    """
    environment = os.environ if environment is None else environment
    path = _file(file, environment)
    tables: Tables = {section: {} for section in SECTIONS}
    if path is not None:
        _merge(tables, _read(path), str(path))
    _merge(tables, _of_environment(environment), "the environment")
    for name, value in flags.items():
        if value is not None:
            section, _, key = name.partition(".")
            tables[section][key] = value
    _check(tables)
    return Configuration(path, tables)


def _file(given: Path | None, environment: Mapping[str, str]) -> Path | None:
    named = given or (Path(environment[FILE_VARIABLE]) if environment.get(FILE_VARIABLE) else None)
    if named is not None:
        return named.absolute()
    here = Path.cwd() / FILE_NAME
    return here if here.is_file() else None


def _read(path: Path) -> Tables:
    try:
        with path.open("rb") as file:
            tables = tomllib.load(file)
    except FileNotFoundError:
        raise SettingsError(f"{path} does not exist: write one with `mesh-agent init`") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{path} is no TOML: {error}") from error
    for section, table in tables.items():
        if not isinstance(table, dict):
            raise SettingsError(f"{path}: {section} stands in no section{_nearest(section, KEYS['agent'])}")
    return tables


def _of_environment(environment: Mapping[str, str]) -> Tables:
    tables: Tables = {}
    for name, text in environment.items():
        if not name.startswith(PREFIX) or name == FILE_VARIABLE:
            continue
        section, divider, key = name.removeprefix(PREFIX).lower().partition("__")
        if not divider:
            section, key = "agent", section
        kind = KEYS.get(section, {}).get(key, str)
        tables.setdefault(section, {})[key] = _parsed(name, text, kind)
    return tables


def _parsed(name: str, text: str, kind: type) -> object:
    readers: dict[type, Callable[[str], object]] = {
        str: str,
        int: int,
        float: float,
        bool: lambda word: {"true": True, "1": True, "false": False, "0": False}[word.lower()],
        list: lambda words: [word.strip() for word in words.split(",") if word.strip()],
    }
    try:
        return readers[kind](text)
    except (ValueError, KeyError):
        raise SettingsError(f"{name}={text}: not of the type {kind.__name__}") from None


def _merge(into: Tables, tables: Tables, source: str) -> None:
    for section, table in tables.items():
        if section not in SECTIONS:
            raise SettingsError(f"{source}: there is no section [{section}]{_nearest(section, SECTIONS)}")
        for key in table:
            if section in KEYS and key not in KEYS[section]:
                raise SettingsError(f"{source}: there is no key {key} in [{section}]{_nearest(key, KEYS[section])}")
        into[section] |= table


def _nearest(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), 1, 0.5)
    return f"; did you mean {found[0]}?" if found else f"; there are {', '.join(known)}"


def _check(tables: Tables) -> None:
    for section, keys in KEYS.items():
        for key, value in tables[section].items():
            if not _is_of(value, keys[key]):
                raise SettingsError(f"[{section}] {key} = {value!r}: not of the type {keys[key].__name__}")
    for section in OPEN_SECTIONS:
        for key, value in tables[section].items():
            if not isinstance(value, str):
                raise SettingsError(f"[{section}] {key}: the value must be text, in quotation marks")
    _check_names(tables)
    _check_rules(tables)
    try:
        check_level(tables["log"].get("level", "info"))
    except ValueError as error:
        raise SettingsError(f"[log] level: {error}") from error
    for kind in KEPT_DAYS:
        if not 1 <= tables["log"].get(f"{kind}_days", 1) <= DAYS_MAX:
            raise SettingsError(f"[log] {kind}_days: 1 to {DAYS_MAX}")


def _check_names(tables: Tables) -> None:
    for key in tables["variables"]:
        if not VARIABLE.fullmatch(key):
            raise SettingsError(f"[variables] {key}: lower-case letters, digits and '_', a letter first, at most 63")
    for name, table in tables["operations"].items():
        if not isinstance(table, dict):
            raise SettingsError(f'[operations] {name}: write a section, [operations."{name}"]')
        if not isinstance(table.get("enabled", True), bool):
            raise SettingsError(f'[operations."{name}"] enabled: true or false')
        try:
            json.dumps(table)  # so that it can be given to a process
        except TypeError as error:
            raise SettingsError(f'[operations."{name}"]: write dates and times as text') from error


def _check_rules(tables: Tables) -> None:
    if not tables["cleanup"].get("every_s", CLEAN_EVERY_MIN_S) >= CLEAN_EVERY_MIN_S:
        raise SettingsError(f"[cleanup] every_s: at least {CLEAN_EVERY_MIN_S:g}")
    for section in RULE_SECTIONS:
        for name, table in tables[section].items():
            _check_rule(f"[{section}.{name}]", table)


def _check_rule(where: str, table: object) -> None:
    if not isinstance(table, dict):
        raise SettingsError(f"{where}: write a section with `directory` and what is to go")
    for key, value in table.items():
        if key not in RULE_KEYS:
            raise SettingsError(f"{where}: there is no key {key}{_nearest(key, RULE_KEYS)}")
        if not _is_of(value, RULE_KEYS[key]) or (key in ("older_than_days", "larger_than_bytes") and value < 0):
            raise SettingsError(f"{where} {key} = {value!r}: not of the type {RULE_KEYS[key].__name__}, or negative")
    if not table.get("directory"):
        raise SettingsError(f"{where}: `directory` is needed")
    if not {"older_than_days", "larger_than_bytes"} & table.keys():
        raise SettingsError(f"{where}: say `older_than_days` or `larger_than_bytes`, or all of its files would go")


def _is_of(value: object, kind: type) -> bool:
    if kind is list:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is kind


def _host_slug() -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().lower()).strip("-")[:63].rstrip("-")
    return slug if slug[:1].isalpha() else f"agent-{slug}"[:63].rstrip("-")


TEMPLATE: Final = """\
# Configuration of a mesh agent. Flags of `mesh-agent run` win over the environment (MESH_AGENT_SLOTS,
# MESH_AGENT_SPOOL__BYTES_MAX), the environment over this file. What is commented out shows the default.
# Paths are relative to this file. Changes take effect at the next start: mesh-agent stop, mesh-agent run.

[agent]
# The organisation and the agent group that the agent belongs to, and its name there (default: the host's).
# organization = "default"
# group = "default"
name = {name}

# The broker's mesh port. `dev` means no certificates: plain text, to a broker on this machine only.
broker = {broker}
dev = true

# Jobs that run at the same time, and jobs that wait here for each of them (unless the group says how many).
# slots = 4
# prefetch = 0

# Your operations: modules, or `module:attribute`, that are found beside this file.
# modules = ["mine"]

[variables]
# What your operations read with job.variable("name"). The values never leave this agent.
# database = "/srv/erp/orders.sqlite"

[labels]
# What this agent says of itself. Of the same key what operators gave it wins (mesh agents update --label).
# zone = "a"

[spool]
# Outcomes wait on disk while the broker is away: how much they may take, and how long an agent that was told to stop
# waits for its broker when nothing else is left.
# bytes_max = 1073741824
# leave_s = 10.0

[log]
# debug, info, warning or error. Lines go to stderr, and with `files` to the folder of logs too, a file a day, which
# are kept 1 to 14 days: the agent's own lines and those of operations.
# level = "info"
files = true
# agent_days = 14
# operations_days = 7

[folders]
# Where files lie; `mesh-agent paths` shows it.
# state = "state"
# logs = "logs"
# temporary = "temporary"

# Files that operations leave behind go by rules: [file_cleanup.NAME] and, for what they hand on, [result_files.NAME].
# What is old and large enough, as far as said, is removed at every interval; `mesh-agent clean --dry-run` shows it.
# [cleanup]
# every_s = 3600
# [file_cleanup.exchange]
# directory = "/srv/exchange/done"
# pattern = "*.csv"
# older_than_days = 14
# larger_than_bytes = 0
# subdirectories = false

# Every operation may be switched off, and may have settings of its own, which it reads from job.options.
# [operations."files.csv_to_sql"]
# enabled = false

# Runs programs for whoever may submit jobs to this group: off unless you switch it on, for these programs only.
# [operations."command.run"]
# enabled = true
# commands = ["/usr/bin/rsync"]
# folders = ["/srv/exchange"]
# environment = ["LANG"]
# timeout_s = 3600
# output_bytes_max = 65536
"""
