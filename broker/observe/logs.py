"""How a broker's log lines look: for people on a terminal, one JSON object a line otherwise; always on standard error.

The event is a dotted name (`broker.ready`), everything else is a field.
"""

import logging
import sys
from typing import TextIO

import structlog
from structlog.types import Processor


def configure(level: str, stream: TextIO | None = None) -> None:
    """Write log lines of `level` and above to `stream` (standard error). Also those of libraries, from WARNING on."""
    target = sys.stderr if stream is None else stream
    is_terminal = target.isatty()
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]
    renderer: Processor = (
        structlog.dev.ConsoleRenderer() if is_terminal else structlog.processors.JSONRenderer(default=str)
    )
    errors: list[Processor] = [] if is_terminal else [structlog.processors.format_exc_info]
    structlog.configure(
        processors=[*shared, *errors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *errors, renderer],
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
