"""A thread that sees what an event loop that stands still cannot see: that it does, and that the lease is over.

It wakes at least twice a second. Exclusive work is killed here when nobody else has done so in time: while a loop is
blocked, and after the machine has slept, when the loop's timers have slept too.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from agent_stub.clock import now_us
from agent_stub.logs import fields

LOOK_EVERY_S = 0.5
BLOCKED_AFTER_S = 1.0
SECOND_US = 1_000_000

log = logging.getLogger("mesh.agent.watchdog")


class Postbox(Protocol):
    """What of an event loop is needed here."""

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> object: ...


@dataclass(slots=True)
class _Watched:
    """A loop, and when it was asked for a sign of life that it has not given yet."""

    name: str
    loop: Postbox
    thread_id: int | None
    asked_s: float | None = None
    is_blocked: bool = False

    def answered(self) -> None:
        self.asked_s = None


class Watchdog:
    """Watches event loops and the lease of one agent.

    Args:
        fence: called from the watchdog's thread when the lease is over while it is guarded.
        look_every_s: how often it looks at least.
    """

    def __init__(
        self, fence: Callable[[], None], look_every_s: float = LOOK_EVERY_S, blocked_after_s: float = BLOCKED_AFTER_S
    ) -> None:
        self._fence = fence
        self._look_every_s = look_every_s
        self._blocked_after_s = blocked_after_s
        self._watched: dict[str, _Watched] = {}
        self._lease_end_us: int | None = None
        self._is_closed = False
        self._news = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="mesh-watchdog", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._is_closed = True
        self._news.set()
        if self._thread.is_alive():
            self._thread.join()

    def watch(self, name: str, loop: Postbox, thread_id: int | None) -> None:
        """Look at this loop, which runs in that thread; a loop of the same name is looked at already."""
        if name not in self._watched:
            self._watched[name] = _Watched(name, loop, thread_id)

    def guard(self, lease_end_us: int | None) -> None:
        """Fence at this time on the agent's clock; None: nothing is to be fenced."""
        is_sooner = lease_end_us is not None and (self._lease_end_us is None or lease_end_us < self._lease_end_us)
        self._lease_end_us = lease_end_us
        if is_sooner:
            self._news.set()

    def _serve(self) -> None:
        while not self._is_closed:
            self._news.wait(self._wait_s())
            self._news.clear()
            end_us = self._lease_end_us
            if end_us is not None and now_us() >= end_us:
                self._lease_end_us = None
                self._fence()
            for watched in list(self._watched.values()):
                self._look_at(watched)

    def _wait_s(self) -> float:
        end_us = self._lease_end_us
        if end_us is None:
            return self._look_every_s
        return min(max((end_us - now_us()) / SECOND_US, 0.0), self._look_every_s)

    def _look_at(self, watched: _Watched) -> None:
        asked_s = watched.asked_s
        if asked_s is None:
            if watched.is_blocked:
                watched.is_blocked = False
                log.warning("loop.recovered", extra=fields(loop=watched.name))
            watched.asked_s = time.monotonic()
            with suppress(RuntimeError):  # it is closed
                watched.loop.call_soon_threadsafe(watched.answered)
        elif not watched.is_blocked and time.monotonic() - asked_s >= self._blocked_after_s:
            watched.is_blocked = True
            facts = fields(loop=watched.name, blocked_s=time.monotonic() - asked_s, at=_where(watched.thread_id))
            log.error("loop.blocked", extra=facts)


def _where(thread_id: int | None) -> str:
    """The innermost lines of a thread: who is blocking it."""
    frame = sys._current_frames().get(thread_id) if thread_id is not None else None
    if frame is None:
        return "?"
    lines = traceback.extract_stack(frame)[-6:]
    return " < ".join(f"{line.name} ({line.filename}:{line.lineno})" for line in reversed(lines))
