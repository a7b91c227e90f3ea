"""What holds for every test: a clean environment, and words for what could not run."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Iterator
from typing import NoReturn

import pytest
import structlog

# Settings of the person who runs the tests are not settings of the tests; a sabotage is meant for the harness.
for _name in [name for name in os.environ if name.startswith("MESH_") and name != "MESH_SABOTAGE"]:
    del os.environ[_name]

# Tests start programs from a process that also speaks gRPC, whose handlers of fork() can bring the child down.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

# Whoever starts the tests in the background has them, and all that they start, ignore Ctrl-C; some of them press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _ctrl_c_is_left_as_found() -> Iterator[None]:
    """What one test leaves deaf to Ctrl-C fails another one, far away."""
    before = signal.getsignal(signal.SIGINT)
    yield
    after = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)
    assert after is before, f"the test left its own handler of SIGINT behind: {after}"


@pytest.fixture(autouse=True)
def _logging_is_left_as_found() -> Iterator[None]:
    """Programs under test send the log to standard error, which is another file, closed by then, in the next test."""
    handlers, level, configuration = logging.root.handlers[:], logging.root.level, structlog.get_config()
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.configure(**configuration)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Here and not beside the scenarios: options are read before their folder is."""
    parser.addoption("--rewrite-scenarios", action="store_true", help="write the effects in tests/scenarios/*.txt anew")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of several workers one runs all tests with real processes: they would disturb one another."""
    for item in items:
        if item.get_closest_marker("e2e"):
            item.add_marker(pytest.mark.xdist_group("processes"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose programs are not installed; on CI, where `make system` has run, that is an error."""
    needed = [program for marker in item.iter_markers("system") for program in marker.args]
    missing = [program for program in needed if shutil.which(program) is None]
    if not missing:
        return
    reason = f"not installed: {', '.join(missing)} (make system)"
    not_run(reason)


def not_run(reason: str) -> NoReturn:
    """Skip the test that lacks something; on CI that is an error."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
