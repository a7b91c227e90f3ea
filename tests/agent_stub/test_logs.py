from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from logging.handlers import TimedRotatingFileHandler
from pathlib import Path

import pytest

from agent_stub.logs import LogfmtFormatter, configure, fields


def line_of(**facts: object) -> str:
    record = logging.makeLogRecord({"msg": "job.assigned", "levelname": "INFO", "created": 0.0, "msecs": 7.0})
    vars(record).update(fields(**facts))
    return LogfmtFormatter().format(record)


def test_line_is_time_level_event_and_facts() -> None:
    assert line_of(job=7, lag_s=0.25) == "1970-01-01T00:00:00.007Z INFO job.assigned job=7 lag_s=0.250"


@pytest.mark.parametrize(
    ("value", "text"),
    [("two words", '"two words"'), ("", '""'), ('a"b', '"a\\"b"'), ("a=b", '"a=b"'), ("one\ntwo", '"one\\ntwo"')],
)
def test_fact_cannot_break_its_line(value: str, text: str) -> None:
    assert line_of(reason=value).endswith(f"reason={text}")


def test_traceback_follows_its_line() -> None:
    try:
        raise ValueError("x")
    except ValueError:
        record = logging.makeLogRecord({"msg": "job.raised", "exc_info": sys.exc_info()})
    assert re.search(r"job\.raised\nTraceback .*\nValueError: x$", LogfmtFormatter().format(record), re.DOTALL)


def test_level_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="'loud' is no log level"):
        configure("loud")


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, as it was afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    yield root
    for handler in root.handlers:
        handler.close()
    root.handlers[:], root.level = handlers, level


@pytest.mark.req("R55")
def test_each_kind_of_log_file_is_kept_for_its_own_days(tmp_path: Path, root: logging.Logger) -> None:
    for kind in ("agent", "operations"):
        for day in range(1, 20):
            (tmp_path / f"{kind}.log.2026-01-{day:02}").touch()
    configure("info", tmp_path, {"agent": 14, "operations": 1})
    logging.getLogger("mesh.agent").info("session.started")
    logging.getLogger("mesh.operation.x").info("rows.copied")
    for handler in root.handlers:
        if isinstance(handler, TimedRotatingFileHandler):
            handler.doRollover()
    assert len(list(tmp_path.glob("agent.log.*"))) == 14
    assert len(list(tmp_path.glob("operations.log.*"))) == 1
