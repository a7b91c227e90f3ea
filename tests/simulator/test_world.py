"""The dispatcher in virtual time against closed forms, and against itself."""

from math import factorial
from typing import Any

from simulator.world import Answer, Question, World


def erlang_c_wait_s(servers: int, rate_per_s: float, mean_s: float) -> float:
    """Mean wait of M/M/c: Erlang's C formula over the spare rate."""
    load = rate_per_s * mean_s
    top = load**servers / factorial(servers) * servers / (servers - load)
    waits = top / (sum(load**k / factorial(k) for k in range(servers)) + top)
    return waits / (servers / mean_s - rate_per_s)


def play(**changes: Any) -> Answer:
    question = {"agents": 5, "slots": 2, "rate_per_s": 7.0, "mean_s": 1.0, "jobs": 30_000, "seed": 11, **changes}
    return World(Question(**question)).run()


def test_world_reproduces_the_mean_wait_of_a_central_queue() -> None:
    days = [play(seed=seed) for seed in range(1, 5)]
    seen_s = sum(day.mean_wait_s() for day in days) / len(days)
    truth_s = erlang_c_wait_s(10, 7.0, 1.0)
    assert abs(seen_s - truth_s) < 0.10 * truth_s
    assert all(abs(day.mean_s() - 1.0 - truth_s) < 0.025 for day in days)
    assert all(abs(day.busy_s / (day.seconds * 10) - 0.7) < 0.02 for day in days)


def test_world_loses_no_job() -> None:
    answer = play(jobs=5_000)
    assert answer.jobs == 5_000
    assert sum(answer.assigned.values()) == 5_000


def test_world_gives_the_same_answer_for_the_same_seed() -> None:
    first, again, other = play(jobs=2_000), play(jobs=2_000), play(jobs=2_000, seed=12)
    assert first.sojourn_s == again.sojourn_s
    assert first.sojourn_s != other.sojourn_s


def test_world_shows_every_fleet_the_same_work() -> None:
    small, large = play(jobs=2_000, agents=4), play(jobs=2_000, agents=40)
    assert abs(small.busy_s - large.busy_s) < 1e-6
    assert large.mean_wait_s() == 0.0
    assert small.mean_wait_s() > 0.0
