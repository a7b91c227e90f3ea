"""What the agent was given and answers for: attempts that wait, run, and have an outcome.

The rules by their numbers are those of `session`. Nothing here knows of streams but whether what is said now is heard
(`is_heard`): what is not heard is said by the next Hello.
"""

import heapq
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from agent_stub.session.messages import (
    Assign,
    KeepOutcome,
    Key,
    Order,
    Outcome,
    OutcomeStatus,
    StartRun,
    StopRun,
)
from agent_stub.session.outbox import Outbox

FENCED = "fenced"
RUN_TIMEOUT = "run_timeout"
DEADLINE_EXCEEDED = "deadline_exceeded"
SUPERSEDED = "superseded"
STOPPED_BY_VERDICT = "verdict"


@dataclass(slots=True, eq=False)
class Attempt:
    """An attempt that the agent was given. It waits, runs (until `finished`), and then has an outcome."""

    assign: Assign
    key: Key
    is_running: bool = False
    stop: str = ""
    outcome: Outcome | None = None
    is_kept: bool = True
    is_sent: bool = False

    @property
    def is_sayable(self) -> bool:
        """Whether its outcome may leave the agent."""
        return self.outcome is not None and self.is_kept


class Attempts:
    """The attempts of one session.

    Args:
        slots: attempts that run at the same time.
        outbox: where outcomes, accepts and starts go.
        keeps_first: order KeepOutcome for exclusive attempts and those that are to be kept first.
    """

    def __init__(self, slots: int, outbox: Outbox, *, keeps_first: bool) -> None:
        self.held: dict[Key, Attempt] = {}
        self.forgotten: dict[Key, Attempt] = {}  # stopped by a verdict, still running
        self.exclusive: dict[Key, Attempt] = {}  # unfinished, not fenced
        self.running = 0
        self.orders: list[Order] = []
        self.is_heard = False
        self._slots = slots
        self._outbox = outbox
        self._keeps_first = keeps_first
        self._live: dict[int, Attempt] = {}  # by job: its unfinished attempt
        self._blocked: dict[int, Attempt] = {}  # by job: waits for the end of the lower attempt
        self._waiting: deque[Attempt] = deque()
        self._deadlines: list[tuple[int, Key, str]] = []

    @property
    def next_deadline_us(self) -> int | None:
        """When an attempt may have run long enough; None: none has a limit."""
        return self._deadlines[0][0] if self._deadlines else None

    def take(self, now_us: int, assign: Assign) -> None:
        """Answer for an attempt from now on: start it, or let it wait for a slot or for a lower one of its job."""
        attempt = Attempt(assign, (assign.job_key, assign.attempt))
        self.held[attempt.key] = attempt
        self._outbox.accepts[attempt.key] = None
        lower = self._live.get(assign.job_key)
        newest = self._blocked.get(assign.job_key, lower)
        if newest is not None and newest.assign.attempt > assign.attempt:
            self._settle(attempt, Outcome(*attempt.key, OutcomeStatus.CANCELLED))
            return
        if assign.exclusive:
            self.exclusive[attempt.key] = attempt
        if assign.total_remaining_us:
            self._arm(now_us + assign.total_remaining_us, attempt.key, DEADLINE_EXCEEDED)
        if lower is not None:
            self._replace(lower, attempt)
            return
        self._live[assign.job_key] = attempt
        if self.running < self._slots:
            self._start(now_us, attempt)
        else:
            self._waiting.append(attempt)

    def add_ended(self, key: Key) -> None:
        """An attempt that is over before it was known: held like any other until its outcome is acknowledged."""
        attempt = Attempt(Assign(*key, operation=""), key)
        self.held[key] = attempt
        self._settle(attempt, Outcome(*key, OutcomeStatus.CANCELLED))

    def restore(self, outcomes: Iterable[Outcome]) -> None:
        """Answer for what an earlier process of this agent ended."""
        for outcome in outcomes:
            key = (outcome.job_key, outcome.attempt)
            self.held[key] = Attempt(Assign(*key, operation=""), key, outcome=outcome)

    def answer_again(self, attempt: Attempt) -> None:
        """It was assigned once more: say what was said."""
        if attempt.is_sayable:
            self.send_outcome(attempt)
        else:
            self._outbox.accepts[attempt.key] = None

    def finish(self, now_us: int, outcome: Outcome) -> None:
        """A run has ended: its slot is free."""
        key = (outcome.job_key, outcome.attempt)
        attempt = self.forgotten.pop(key, None) or self.held.get(key)
        if attempt is None or not attempt.is_running:
            return
        attempt.is_running = False
        self.running -= 1
        self._settle(attempt, _as_reported(attempt.stop, outcome))
        while self._waiting and self.running < self._slots:
            self._start(now_us, self._waiting.popleft())

    def stop(self, attempt: Attempt, reason: str, grace_us: int = 0) -> None:
        """End an unfinished attempt; the first reason is the one that its outcome is reported by."""
        if attempt.is_running:
            attempt.stop = attempt.stop or reason
            self.orders.append(StopRun(*attempt.key, reason, grace_us))
        else:
            with suppress(ValueError):
                self._waiting.remove(attempt)
            self._settle(attempt, _as_reported(reason, Outcome(*attempt.key, OutcomeStatus.CANCELLED)))

    def stop_overdue(self, now_us: int) -> None:
        """End what has run, or waited, as long as it may."""
        while self._deadlines and self._deadlines[0][0] <= now_us:
            _, key, reason = heapq.heappop(self._deadlines)
            attempt = self.held.get(key)
            if attempt is not None and attempt.outcome is None:
                self.stop(attempt, reason)

    def fence(self) -> None:
        """Rule 4. Fenced attempts leave the table: they are fenced once."""
        fenced = list(self.exclusive.values())
        self.exclusive.clear()
        for attempt in fenced:
            self.stop(attempt, FENCED)

    def forget_by_verdict(self, attempt: Attempt) -> None:
        """The broker wants nothing of it any more: end it, say once how it ended, and do not answer for it."""
        del self.held[attempt.key]
        self._outbox.forget(attempt.key)
        if attempt.outcome is not None:
            self._outbox.add_outcome(attempt.outcome)
        else:
            if attempt.is_running:
                self.forgotten[attempt.key] = attempt
            self.stop(attempt, STOPPED_BY_VERDICT)

    def acknowledge(self, keys: Iterable[Key]) -> None:
        """Rule 5: these outcomes are not held any more."""
        for key in keys:
            attempt = self.held.get(key)
            if attempt is not None and attempt.outcome is not None:
                del self.held[key]
                self._outbox.forget(key)

    def kept(self, key: Key) -> None:
        """The outcome outlives the process: it may be sent."""
        attempt = self.held.get(key)
        if attempt is not None and attempt.outcome is not None and not attempt.is_kept:
            attempt.is_kept = True
            if self.is_heard:
                self.send_outcome(attempt)

    def send_outcome(self, attempt: Attempt) -> None:
        """Say how it ended."""
        assert attempt.outcome is not None
        attempt.is_sent = True
        self._outbox.add_outcome(attempt.outcome)

    # Inside ----------------------------------------------------------------------------------------------------------

    def _replace(self, lower: Attempt, higher: Attempt) -> None:
        """Rule 2: `higher` waits until the lower attempt of its job has ended."""
        job_key = higher.assign.job_key
        between = self._blocked.pop(job_key, None)
        self._blocked[job_key] = higher
        if between is not None:
            self._settle(between, Outcome(*between.key, OutcomeStatus.CANCELLED))
        self.stop(lower, SUPERSEDED)

    def _start(self, now_us: int, attempt: Attempt) -> None:
        attempt.is_running = True
        self.running += 1
        if self.is_heard:
            self._outbox.starts[attempt.key] = None
        if attempt.assign.run_timeout_us:
            self._arm(now_us + attempt.assign.run_timeout_us, attempt.key, RUN_TIMEOUT)
        self.orders.append(StartRun(attempt.assign))

    def _settle(self, attempt: Attempt, outcome: Outcome) -> None:
        """The attempt is over: report it, and let the next attempt of its job go on."""
        attempt.outcome = outcome
        key = attempt.key
        self.exclusive.pop(key, None)
        assign = attempt.assign
        if self._keeps_first and (assign.exclusive or assign.is_kept_first) and key in self.held:
            attempt.is_kept = False
            self.orders.append(KeepOutcome(outcome))
        elif self.is_heard:
            self.send_outcome(attempt)
        job_key = key[0]
        if self._blocked.get(job_key) is attempt:
            del self._blocked[job_key]
        elif self._live.get(job_key) is attempt:
            del self._live[job_key]
            higher = self._blocked.pop(job_key, None)
            if higher is not None:
                self._live[job_key] = higher
                self._waiting.appendleft(higher)

    def _arm(self, at_us: int, key: Key, reason: str) -> None:
        heapq.heappush(self._deadlines, (at_us, key, reason))
        if len(self._deadlines) > 64 + 4 * len(self.held):
            # Most entries are of attempts that ended in time: their rest must not outlive them for hours.
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self.held]
            heapq.heapify(self._deadlines)


def _as_reported(stop: str, outcome: Outcome) -> Outcome:
    """How a run that was stopped here is reported. What it achieved all the same is the truth and stays."""
    if not stop or outcome.status is OutcomeStatus.SUCCEEDED:
        return outcome
    key = (outcome.job_key, outcome.attempt)
    if stop == FENCED:
        return Outcome(*key, OutcomeStatus.FENCED, run_time_us=outcome.run_time_us)
    if outcome.status is not OutcomeStatus.CANCELLED or stop not in (RUN_TIMEOUT, DEADLINE_EXCEEDED):
        return outcome
    text = "ran longer than it may" if stop == RUN_TIMEOUT else "the job's total time is over"
    is_retryable = stop == RUN_TIMEOUT
    return Outcome(*key, OutcomeStatus.FAILED, stop, text, is_retryable, run_time_us=outcome.run_time_us)
