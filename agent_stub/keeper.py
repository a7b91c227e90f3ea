"""Keeps outcomes until a broker has acknowledged them: decides what goes to the spool, when, and how much fits.

In the spool go: outcomes of exclusive attempts, and of those whose loss nobody makes up for, before they are sent; the
others when the stream is down, when the agent leaves, or when they have waited a second. Each attempt that the agent
takes reserves room for the largest result, so what is taken can be kept: if the room shrinks, the agent takes less.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from agent_stub.logs import fields
from agent_stub.outcomes import RunLimits
from agent_stub.session import AgentSession, Key, Outcome
from agent_stub.spool import Spool

SWEEP_EVERY_S: Final = 0.5
OLD_SWEEPS: Final = 2
"""An outcome that has seen so many sweeps has waited a second."""
OUTCOME_BYTES: Final = 4_096
"""What a file takes besides result and message, in blocks of the file system."""
DISK_LEFT_BYTES: Final = 16 << 20
"""What is left to others on a disk that is nearly full."""

log = logging.getLogger("mesh.agent.spool")


class Keeper:
    """The outcomes of one session, on the agent's event loop.

    Args:
        bytes_max: what the spool may take.
        changed: called when something may be sent that could not before.
    """

    def __init__(self, spool: Spool, session: AgentSession, bytes_max: int, changed: Callable[[], None]) -> None:
        self.limits = RunLimits()
        self._spool = spool
        self._session = session
        self._bytes_max = bytes_max
        self._changed = changed
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mesh-spool")
        self._waited: dict[Key, int] = {}
        self._writing: set[Key] = set()
        self._kept_first: dict[Key, Outcome] = {}  # must be durable, and are not yet
        self._is_failing = False

    def restore(self) -> None:
        """Hand what an earlier process kept to the session."""
        outcomes = self._spool.read()
        if outcomes:
            log.info("spool.read", extra=fields(outcomes=len(outcomes), bytes=self._spool.used_bytes))
        self._session.restore(outcomes, self._spool.mesh_id if outcomes else "")
        self._limit()
        if self._session.capacity < self._session.capacity_max:
            facts = fields(capacity=self._session.capacity, wished=self._session.capacity_max)
            log.warning("spool.limits_capacity", extra=facts)

    def belong_to(self, mesh_id: str) -> None:
        """The agent is in this mesh from now on."""
        if mesh_id and mesh_id != self._spool.mesh_id:
            try:
                self._spool.belong_to(mesh_id)
            except (OSError, UnicodeEncodeError) as error:
                log.warning("spool.mesh_not_kept", extra=fields(mesh=mesh_id, reason=error))

    @property
    def has_all(self) -> bool:
        """Whether every outcome that is not acknowledged is in the spool."""
        return all((one.job_key, one.attempt) in self._spool for one in self._session.unacknowledged)

    def keep_first(self, outcome: Outcome) -> None:
        """Write it to the disk; then the session may send it."""
        self._kept_first[(outcome.job_key, outcome.attempt)] = outcome
        self._write([outcome], is_durable=True)

    def acknowledged(self, keys: Iterable[Key]) -> None:
        """A broker has them."""
        if self._spool:
            for key in keys:
                self._spool.remove(key)

    def flush(self) -> None:
        """Write all that is not acknowledged, and return when it is written: the process ends."""
        for outcome in self._session.unacknowledged:
            self._write_now(outcome, is_durable=True)
        self._spool.belong_to_nobody()

    def close(self) -> None:
        """Write nothing more."""
        self._thread.shutdown(wait=True)

    def sweep(self) -> None:
        """Write what is due, remove what is owed no more, and state what fits. Call it every SWEEP_EVERY_S, and when
        the stream ends or the agent is to leave.
        """
        session = self._session
        pending = {(one.job_key, one.attempt): one for one in session.unacknowledged}
        is_urgent = not session.is_live or session.is_leaving
        waited = {key: self._waited.get(key, 0) + 1 for key in pending}
        self._waited = waited
        due = [key for key in pending if is_urgent or waited[key] > OLD_SWEEPS]
        due = [key for key in due if key not in self._spool and key not in self._kept_first]
        self._write([pending[key] for key in due], is_durable=False)
        self._write(list(self._kept_first.values()), is_durable=True)
        if not pending:
            self._is_failing = False  # nothing is left to try it with: take work again
        for key in self._spool:
            if key not in pending:
                self._spool.remove(key)
        self._limit()

    def _write(self, outcomes: list[Outcome], *, is_durable: bool) -> None:
        new = [one for one in outcomes if (one.job_key, one.attempt) not in self._writing]
        if not new:
            return
        self._writing.update((one.job_key, one.attempt) for one in new)
        loop = asyncio.get_running_loop()

        def write() -> None:
            for one in new:
                is_written = self._write_now(one, is_durable=is_durable)
                loop.call_soon_threadsafe(self._on_written, (one.job_key, one.attempt), is_written)

        self._thread.submit(write)

    def _write_now(self, outcome: Outcome, *, is_durable: bool) -> bool:
        try:
            self._spool.write(outcome, is_durable=is_durable)
        except OSError as error:
            facts = fields(job_key=outcome.job_key, attempt=outcome.attempt, reason=error)
            log.error("spool.failed", extra=facts)  # noqa: TRY400 - the reason says it all
            return False
        return True

    def _on_written(self, key: Key, is_written: bool) -> None:
        self._writing.discard(key)
        if self._is_failing == is_written:
            self._is_failing = not is_written
            self._limit()
        if not is_written:
            return  # the next sweep tries again
        if not self._session.holds(key):
            self._spool.remove(key)
        if self._kept_first.pop(key, None) is not None:
            self._session.kept(key)
        self._changed()

    def _limit(self) -> None:
        """State how many attempts fit: those in the spool, and one largest result for each of the others."""
        reserve = self.limits.result_bytes_max + self.limits.failure_message_bytes_max + OUTCOME_BYTES
        room = min(self._bytes_max - self._spool.used_bytes, self._free_bytes() - DISK_LEFT_BYTES)
        capacity = 0 if self._is_failing else len(self._spool) + max(room, 0) // reserve
        if min(capacity, self._session.capacity_max) != self._session.capacity:
            self._session.limit(capacity)
            self._changed()

    def _free_bytes(self) -> int:
        try:
            return self._spool.free_bytes
        except OSError:
            return 0
