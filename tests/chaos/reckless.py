"""An agent with a deliberate defect, put in from outside: what rows must catch that look at agents.

python -m tests.chaos.reckless no-lease HISTORY run --broker 127.0.0.1:7401 --dev --name a1
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Sequence
from typing import Final

import pytest

from agent_stub.clock import now_us
from agent_stub.session import AgentSession
from tests.e2e.course import AGENT_PROGRAM

REPLACED: Final = pytest.MonkeyPatch()
HOUR_US: Final = 3_600_000_000


def no_lease() -> None:
    """Its lease lasts, whether the broker hears it or not; those who watch over exclusive work are told so too."""
    REPLACED.setattr(AgentSession, "lease_end_us", property(lambda self: now_us() + HOUR_US))


DEFECTS: Final[dict[str, Callable[[], None]]] = {"no-lease": no_lease}


def reckless(defect: str) -> Sequence[str]:
    """The program of an agent with this defect, for `Course`."""
    assert defect in DEFECTS
    return ("-m", "tests.chaos.reckless", defect)


if __name__ == "__main__":
    DEFECTS[sys.argv.pop(1)]()
    runpy.run_module(AGENT_PROGRAM[-1], run_name="__main__", alter_sys=True)
