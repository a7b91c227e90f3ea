"""Log lines of the agent: one event a line, `time level event key=value ...`, on stderr.

The message is the event's name, dotted, `noun.past`; facts are fields. Never payloads, results, tokens or keys.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from logging.handlers import TimedRotatingFileHandler
from pathlib import Path
from types import MappingProxyType
from typing import Final

KEPT_DAYS: Final = MappingProxyType({"agent": 14, "operations": 7})
"""Kinds of log files, and how many days of each are kept."""
DAYS_MAX: Final = 14
OPERATION_LOGGERS: Final = "mesh.operation."
PLAIN = re.compile(r"[^\s=\"]+")


def fields(**facts: object) -> dict[str, Mapping[str, object]]:
    """`extra` for a log call: `log.info("session.started", extra=fields(session=7))`."""
    return {"fields": facts}


class LogfmtFormatter(logging.Formatter):
    """`2026-11-21T10:00:00.123Z INFO session.started session=7`, an exception's traceback on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        parts = [f"{moment}.{int(record.msecs):03d}Z", record.levelname, record.getMessage()]
        facts = getattr(record, "fields", None) or {}
        parts += [f"{name}={_as_text(value)}" for name, value in facts.items()]
        line = " ".join(parts)
        trace = self.formatException(record.exc_info) if record.exc_info else record.exc_text
        return f"{line}\n{trace}" if trace else line


def configure(level: str, folder: Path | None = None, days: Mapping[str, int] = KEPT_DAYS) -> None:
    """Send everything from `level` up to stderr, and to files in `folder`, which are kept for `days` by kind.

    Raises:
        ValueError: there is no such level.
        OSError: the folder cannot be written to.
    """
    number = check_level(level)
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if folder is not None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handlers += [_file_of(folder, kind, days[kind]) for kind in KEPT_DAYS]
    for handler in handlers:
        handler.setFormatter(LogfmtFormatter())
    logging.basicConfig(level=number, handlers=handlers, force=True)


def check_level(level: str) -> int:
    """Its number. Raises ValueError: there is no such level."""
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"{level!r} is no log level: debug, info, warning or error")
    return number


def _file_of(folder: Path, kind: str, days: int) -> logging.Handler:
    """One kind of lines, a file a day: what operations write, or all else."""
    handler = TimedRotatingFileHandler(folder / f"{kind}.log", when="midnight", backupCount=days, utc=True, delay=True)
    handler.addFilter(lambda record: record.name.startswith(OPERATION_LOGGERS) == (kind == "operations"))
    return handler


def _as_text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    return text if PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
