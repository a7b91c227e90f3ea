from __future__ import annotations

import io
import json
import logging

import pytest
import structlog

from broker.observe import logs

pytestmark = pytest.mark.usefixtures("process_logging")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_line_is_one_json_object_when_nobody_looks() -> None:
    stream = io.StringIO()
    logs.configure("info", stream)
    log = structlog.get_logger()
    log.debug("job.assigned", job_key=1)
    log.info("broker.ready", mesh="127.0.0.1:1", path=ValueError("x"))
    try:
        raise RuntimeError("broken")
    except RuntimeError as error:
        log.warning("request.failed", trace_id="t", exc_info=error)
    ready, failed = map(json.loads, stream.getvalue().splitlines())
    assert (ready["event"], ready["level"], ready["mesh"], ready["path"]) == (
        "broker.ready",
        "info",
        "127.0.0.1:1",
        "x",
    )
    assert ready["at"].endswith("Z")
    assert "RuntimeError: broken" in failed["exception"]


def test_line_is_for_people_on_a_terminal() -> None:
    stream = Terminal()
    logs.configure("debug", stream)
    structlog.get_logger().debug("job.assigned", job_key=1)
    assert "job.assigned" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_warnings_of_libraries_look_the_same() -> None:
    stream = io.StringIO()
    logs.configure("info", stream)
    logging.getLogger("grpc").info("nothing to see")
    logging.getLogger("grpc").warning("too many %s", "pings")
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert (line["event"], line["level"]) == ("too many pings", "warning")


def test_level_that_is_none_is_an_error() -> None:
    with pytest.raises(KeyError):
        logs.configure("loud", io.StringIO())
