"""Real agent sessions and a real dispatcher in memory, under seeded faults: nothing is lost, nothing runs twice.

A failure names its seed: `run_seed(17)` in a debugger, or the test with `-k "seed-17"`, repeats it step by step.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from agent_stub.session import AgentSession
from tests.integration.broker_process import BrokerProcess
from tests.integration.mesh import GENTLE, Mesh, Settings, swarm
from tests.integration.timeline import S

SEEDS = range(200)
SOMETIMES = {
    *("running: adopted", "queued: agent_lost", "queued: not_listed", "queued: accept_timeout", "queued: fenced"),
    *("queued: rejected_leaving", "queued: agent_left", "queued: drain_requeue", "queued: agent_disabled"),
    *("queued: resolved", "held: agent_lost", "failed: agent_lost", "failed: killed", "dead: attempts_used"),
    *("failed: deadline_exceeded", "scheduled: run_timeout", "cancelled: cancelled", "attempt stop_unconfirmed"),
    *("attempt incarnation_ended", "refused: final", "refused: superseded", "rejected: AGENT_DISABLED"),
    *("killed before commit", "killed after commit", "accepted again", "answer lost"),
    *(
        "fault cut",
        "fault cut_silently",
        "fault cut_one_way",
        "fault cut_off",
        "fault delay",
        "fault resync",
        "fault kill_agent",
    ),
    *("fault freeze_agent", "fault stop_agent", "fault kill_broker", "fault stall_broker", "fault slow_store"),
    *("fault operate", "fault cancel"),
}
"""What must have happened in some of the runs, or they show nothing."""


@cache
def run_seed(seed: int) -> Counter[str]:
    """Run it; what happened. Raises AssertionError."""
    mesh = Mesh(seed, swarm(seed))
    mesh.run()
    return mesh.counts


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"seed-{seed}")
def test_mesh_ends_every_job_once_whatever_fails(seed: int) -> None:
    assert run_seed(seed)["queued: accepted"] > 0


def test_every_fault_and_every_way_out_happened_in_some_run() -> None:
    happened = sum((run_seed(seed) for seed in SEEDS), Counter[str]())
    assert {name for name in SOMETIMES if not happened[name]} == set()


@pytest.mark.parametrize("seed", range(10))
def test_every_job_runs_once_when_nothing_fails(seed: int) -> None:
    mesh = Mesh(seed, Settings(faults=()))
    mesh.run()
    assert len(mesh.journal.started) == len(mesh.journal.succeeded) == mesh.settings.jobs


@pytest.mark.parametrize("seed", range(40))
def test_what_runs_is_never_given_up_when_every_agent_is_back_in_time(seed: int) -> None:
    mesh = Mesh(seed, Settings(GENTLE, every_us=S))
    mesh.run()
    assert mesh.needless == []
    assert set(mesh.ended.values()) == {"succeeded"}


@pytest.mark.soak
@pytest.mark.parametrize("first", range(1_000, 41_000, 1_000))
def test_mesh_ends_every_job_once_in_many_more_runs(first: int) -> None:
    for seed in range(first, first + 1_000):
        try:
            Mesh(seed, swarm(seed)).run()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


# --- the judge itself: each of these mistakes must be found ---------------------------------------------------------


def first_fault(seeds: range) -> str:
    """What the first run that fails says."""
    for seed in seeds:
        try:
            Mesh(seed, swarm(seed)).run()
        except AssertionError as error:
            return str(error)
    return ""


def test_judge_finds_an_agent_that_does_not_fence_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AgentSession, "_check_lease", lambda self, now_us: None)
    assert first_fault(SEEDS).startswith("exclusive job")


def test_judge_finds_a_broker_that_answers_before_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = BrokerProcess._turn

    def hasty(self: BrokerProcess) -> None:
        was_pending = self._batcher.pending
        turn(self)
        pending = self._batcher.pending
        if pending is not None and pending is not was_pending:
            for reply in pending.replies():
                self.waiting.pop(reply.ticket)(reply)
            for effects in pending.effects.values():
                effects.replies.clear()

    monkeypatch.setattr(BrokerProcess, "_turn", hasty)
    assert first_fault(SEEDS)


def test_judge_finds_an_agent_that_forgets_its_outcomes(monkeypatch: pytest.MonkeyPatch) -> None:
    disconnected = AgentSession.disconnected

    def forgetful(self: AgentSession, now_us: int) -> None:
        disconnected(self, now_us)
        for key in [key for key, attempt in self._held.items() if attempt.outcome is not None]:
            del self._held[key]

    monkeypatch.setattr(AgentSession, "disconnected", forgetful)
    meshes = [Mesh(seed, Settings(GENTLE, every_us=S)) for seed in range(40)]
    for mesh in meshes:
        mesh.run()
    assert any(mesh.needless for mesh in meshes)
