"""The watchdog with real threads and loops."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator

import pytest

from agent_stub.clock import now_us
from agent_stub.watchdog import Watchdog

WAIT_S = 10.0
S = 1_000_000


class Heard(logging.Handler):
    """Log events of the watchdog, each with what it says, as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.events: dict[str, dict[str, object]] = {}
        self.news = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self.news:
            self.events[record.getMessage()] = vars(record)["fields"]
            self.news.notify_all()

    def wait(self, event: str) -> dict[str, object]:
        with self.news:
            assert self.news.wait_for(lambda: event in self.events, WAIT_S), f"{event} was not logged"
            return self.events[event]


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler = Heard()
    logger = logging.getLogger("mesh.agent.watchdog")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def test_watchdog_fences_at_the_end_of_the_lease_without_any_loop() -> None:
    fenced = threading.Event()
    watchdog = Watchdog(fenced.set, look_every_s=60.0)
    watchdog.start()
    watchdog.guard(now_us() + S // 20)
    assert fenced.wait(WAIT_S)
    watchdog.close()


def test_watchdog_does_not_fence_while_the_lease_is_carried_on_or_nothing_is_guarded() -> None:
    fenced, looked = threading.Event(), threading.Semaphore(0)

    class Loop:
        def call_soon_threadsafe(self, callback: object) -> None:
            looked.release()
            assert callable(callback)
            callback()

    watchdog = Watchdog(fenced.set, look_every_s=0.01)
    watchdog.watch("loop", Loop(), None)
    watchdog.guard(now_us() + 60 * S)
    watchdog.start()
    assert looked.acquire(timeout=WAIT_S)
    watchdog.guard(None)
    assert looked.acquire(timeout=WAIT_S)
    watchdog.close()
    assert not fenced.is_set()


async def test_watchdog_names_who_blocks_a_loop_and_says_when_it_goes_on(heard: Heard) -> None:
    watchdog = Watchdog(lambda: None, look_every_s=0.01, blocked_after_s=0.05)
    watchdog.watch("stream", asyncio.get_running_loop(), threading.get_ident())
    watchdog.start()

    def block() -> dict[str, object]:
        return heard.wait("loop.blocked")  # the loop stands still here

    facts = block()
    assert facts["loop"] == "stream"
    assert "block" in str(facts["at"])
    assert "test_watchdog.py" in str(facts["at"])
    await asyncio.to_thread(heard.wait, "loop.recovered")
    watchdog.close()
