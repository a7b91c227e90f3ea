"""The dispatcher of a simulated broker, judged by the invariants while it steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.invariants import Violation, check
from broker.dispatch.messages import AgentNoticed, AssignJob, AttemptProgressed, Effects, Event
from broker.dispatch.model import LIVE_PHASES, JobKey, Phase
from broker.dispatch.watcher import Watcher
from simulator.fuzz.broken import BrokenPromiseError, expect

_GOES_ON: Final = (Phase.SENT, Phase.ACCEPTED)
"""Attempts that nobody wants to end."""


class JudgedDispatcher(Dispatcher):
    """Each step is judged by what only a step shows, and every few batches by all invariants of a state.

    `begin` when it is recovered. It is looked at as a whole after each step (`looks_every` 0) or after so many batches.
    With `keeps`, what it is given and what it orders is kept, so that `Watcher.replay` can judge invariant 9.
    """

    def begin(self, *, keeps: bool, looks_every: int) -> None:
        """It is recovered: from now on it is watched."""
        self.watcher = Watcher(self)
        self._keeps = keeps
        self._looks_every = looks_every
        self._unlooked = 0  # batches
        self._progress: dict[JobKey, tuple[object, int]] = {}
        self.judge_state()

    def judge_state(self) -> None:
        """All invariants of a state.

        What is wrong in the books stays there, so that a later look finds it too; what passes by itself (work that
        could have started, and did later) is found where every step is looked at.
        """
        self._unlooked = 0
        judge(check(self))
        for job in self.ledger.jobs.values():
            if job.phase in _GOES_ON and (job.cancel_requested or job.stop_reason):
                promise = "P2" if job.cancel_requested else "P6"
                raise BrokenPromiseError(promise, f"job {job.key} was told to stop and is {job.phase}: nobody stops it")

    def step(self, now_us: int, event: Event) -> None:
        effects = self.ledger.effects
        replies, sends, notices = len(effects.replies), len(effects.sends), len(effects.notices)
        is_known = self.watcher.knows(event)
        if isinstance(event, AttemptProgressed):
            self._note_progress(now_us, event)
        super().step(now_us, event)
        if self._keeps:
            self.watcher.script.append((now_us, event))
        self.watcher.judge(
            event,
            Effects(replies=effects.replies[replies:], sends=effects.sends[sends:], notices=effects.notices[notices:]),
            is_known=is_known,
        )
        for notice in effects.notices[notices:]:
            if isinstance(notice, AgentNoticed) and notice.why == "drained":
                held = self.ledger.agents[notice.agent].held
                expect(not held, "inv13", f"agent {notice.agent} is drained and holds {held} attempts")
        if self.ledger.is_removed and any(isinstance(send, AssignJob) for send in effects.sends[sends:]):
            raise BrokenPromiseError("P5", f"work is given out after the group was removed: {event}")
        if not self._looks_every:
            self.judge_state()
        judge(self.watcher.violations)

    def take_effects(self) -> Effects:
        self._unlooked += 1
        if self._unlooked >= self._looks_every > 0:
            self.judge_state()
        effects = super().take_effects()
        ledger = self.ledger
        named = {*ledger.lazy, *ledger.checkpoints, *ledger.cancelled_by, *(job.key for job in ledger.fresh.values())}
        left = sorted(key for key in named if key not in ledger.jobs)
        expect(not left, "inv12", f"finished jobs are remembered: {left}")
        expect(not (ledger.fresh or ledger.fresh_keys), "inv12", "what is written still counts as fresh")
        self._judge_progress(effects)
        if self._keeps:
            self.watcher.script.append((self.ledger.now_us, None))
            self.watcher.taken.append(replace(effects, replies=[*effects.replies], sends=[*effects.sends]))
        return effects

    def _note_progress(self, now_us: int, event: AttemptProgressed) -> None:
        job = self.ledger.jobs.get(event.job_key)
        if job is not None and (job.attempt, job.agent) == (event.attempt, event.agent) and job.phase in LIVE_PHASES:
            self._progress[job.key] = (event.body, now_us)

    def _judge_progress(self, effects: Effects) -> None:
        """The checkpoint of a live attempt is written when lazy writes are due at the latest."""
        for key, (body, at_us) in list(self._progress.items()):
            is_late = self.ledger.now_us > at_us + self.ledger.policy.lazy_write_us
            is_written = effects.writes.checkpoints.get(key) == body
            if is_written or key not in self.ledger.jobs:
                del self._progress[key]
            elif is_late:
                raise BrokenPromiseError("P4", f"the checkpoint {body!r} of job {key} is not written")


def judge(found: list[Violation]) -> None:
    """Raises BrokenPromiseError with the first that was found."""
    if found:
        text = "; ".join(one.text for one in found if one.number == found[0].number)
        raise BrokenPromiseError(f"inv{found[0].number:02}", text)
