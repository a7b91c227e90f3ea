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
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure(level: str) -> None:
    """Send everything from `level` up to stderr.

    Raises:
        ValueError: there is no such level.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"{level!r} is no log level: debug, info, warning or error")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogfmtFormatter())
    logging.basicConfig(level=number, handlers=[handler], force=True)


def _as_text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    return text if PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
