"""Replications of a queue with a known answer: how many, in which process, and what is kept of them."""

import subprocess
import sys
from pathlib import Path

import pytest

from simulator.backends import Backend, Loky, Serial
from simulator.cache import ResultCache
from simulator.experiments import Laboratory, Plan, Question, UnstableError
from simulator.objectives import ObjectiveError, Verdict, parse
from simulator.statistics import StoppingRule
from tests.simulator.toys import ToyScenario, queue

MEAN = parse("orders.latency.mean < 3 s")
AUTO = Plan(0, (MEAN,), StoppingRule(0.05, at_least=3, at_most=60))


def runs_in(journal: Path) -> list[int]:
    return [int(line.split()[0]) for line in journal.read_text().splitlines()] if journal.exists() else []


def test_laboratory_replicates_until_the_objective_is_precise_enough() -> None:
    series = Laboratory(queue).replicate(Question(ToyScenario()), AUTO)
    seen = series.interval("orders.latency.mean")
    assert 6 <= seen.n < 60
    assert seen.half_width <= 0.05 * 3.0
    assert seen.holds(2.0)
    assert series.judge([MEAN])[0].verdict == Verdict.MET
    assert not series.partial


def test_laboratory_runs_as_many_replications_as_asked_for() -> None:
    series = Laboratory(queue).replicate(Question(ToyScenario(jobs=100)), Plan(7))
    assert len(series.outcomes) == 7
    assert series.jobs == 700
    assert len({outcome.digest for outcome in series.outcomes}) == 7


def test_laboratory_counts_progress_up_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    Laboratory(queue).replicate(Question(ToyScenario(jobs=100)), Plan(4), lambda done, all_: seen.append((done, all_)))
    assert [done for done, _ in seen] == [1, 2, 3, 4]
    assert seen[-1] == (4, 4)


@pytest.mark.slow
@pytest.mark.parametrize("backend", [Loky(2), Loky(3)], ids=["two", "three"])
def test_parallel_replications_are_those_of_one_process_to_the_bit(backend: Backend, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    question = Question(ToyScenario(jobs=500), seed=5)
    serial = Laboratory(queue, Serial()).replicate(question, AUTO)
    spread = Laboratory(queue, backend).replicate(question, AUTO)
    assert spread.outcomes == serial.outcomes
    # Long enough that on a busy machine, too, no worker does all of them before another one begins.
    Laboratory(queue, backend).replicate(Question(ToyScenario(jobs=40_000, journal=str(journal))), Plan(8))
    assert len({line.split()[1] for line in journal.read_text().splitlines()}) > 1


def test_replications_of_one_seed_are_the_same_days_for_every_fleet() -> None:
    laboratory = Laboratory(queue)
    slow = laboratory.replicate(Question(ToyScenario(), seed=9), Plan(5))
    fast = laboratory.replicate(Question(ToyScenario(), seed=9, changes={"speed": 2.0}), Plan(5))
    assert slow.values("arrivals.sum_s") == fast.values("arrivals.sum_s")
    assert all(
        a > b for a, b in zip(slow.values("orders.latency.mean"), fast.values("orders.latency.mean"), strict=True)
    )
    other = laboratory.replicate(Question(ToyScenario(), seed=10), Plan(5))
    assert not set(other.values("arrivals.sum_s")) & set(slow.values("arrivals.sum_s"))


def test_series_refuses_to_average_a_growing_backlog_and_stops_early() -> None:
    series = Laboratory(queue).replicate(Question(ToyScenario(rate=1.4)), AUTO)
    assert len(series.outcomes) == 3
    with pytest.raises(UnstableError, match=r"UNSTABLE: backlog grows 0\.\d+ jobs/s"):
        series.intervals()
    with pytest.raises(UnstableError):
        series.judge([MEAN])


def test_laboratory_refuses_an_objective_that_names_nothing_after_one_replication(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    plan = Plan(50, (parse("order.latency.mean < 3 s"),))
    with pytest.raises(ObjectiveError, match=r"did you mean `orders\.latency\.mean`"):
        Laboratory(queue).replicate(Question(ToyScenario(jobs=50, journal=str(journal))), plan)
    assert runs_in(journal) == [0]


def test_cache_gives_the_same_outcomes_without_running_anything(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    question = Question(ToyScenario(jobs=200, journal=str(journal)))
    laboratory = Laboratory(queue, cache=ResultCache(tmp_path / "cache"))
    first = laboratory.replicate(question, Plan(4))
    again = laboratory.replicate(question, Plan(6))
    assert again.outcomes[:4] == first.outcomes
    assert (first.cached, again.cached) == (0, 4)
    assert runs_in(journal) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "other",
    [
        Question(ToyScenario(jobs=201)),
        Question(ToyScenario(jobs=200), seed=2),
        Question(ToyScenario(jobs=200), changes={"speed": 2.0}),
    ],
    ids=["scenario", "seed", "changes"],
)
def test_cache_does_not_answer_another_question(other: Question, tmp_path: Path) -> None:
    laboratory = Laboratory(queue, cache=ResultCache(tmp_path))
    laboratory.replicate(Question(ToyScenario(jobs=200)), Plan(2))
    assert laboratory.replicate(other, Plan(2)).cached == 0


def test_interrupted_series_keeps_what_it_has_says_so_and_goes_on_later(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    cache = ResultCache(tmp_path / "cache")
    question = Question(ToyScenario(jobs=200, interrupt_at=3, journal=str(journal)))
    partial = Laboratory(queue, cache=cache).replicate(question, Plan(8))
    assert partial.partial
    assert len(partial.outcomes) == 3
    assert Laboratory(queue, cache=cache).replicate(question, Plan(3)).cached == 3
    assert runs_in(journal) == [0, 1, 2, 3]


def test_interrupt_before_the_first_result_is_passed_on() -> None:
    with pytest.raises(KeyboardInterrupt):
        Laboratory(queue).replicate(Question(ToyScenario(jobs=200, interrupt_at=0)), Plan(8))


@pytest.mark.slow
def test_interrupt_between_two_results_ends_workers_that_are_busy() -> None:
    """The fifth replication stands still for ever, once it has said so to another process."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stderr=subprocess.DEVNULL) as other:
        question = Question(ToyScenario(jobs=200, interrupt_parent_at=4, driver_pid=other.pid))

        def interrupt(done: int, started: int) -> None:
            if done == 3:
                other.wait()
                raise KeyboardInterrupt

        partial = Laboratory(queue, Loky(2)).replicate(question, Plan(8), interrupt)

    assert partial.partial
    assert len(partial.outcomes) == 3


def test_interrupted_parallel_series_keeps_what_it_has_and_ends_its_workers(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path)
    question = Question(ToyScenario(jobs=200, interrupt_parent_at=4))
    partial = Laboratory(queue, Loky(2), cache).replicate(question, Plan(8))
    assert partial.partial
    assert len(partial.outcomes) >= 2  # the first round was done; of the second what came before the interrupt
    again = Laboratory(queue, Loky(2), cache).replicate(question, Plan(len(partial.outcomes)))
    assert again.cached == len(partial.outcomes)
    assert again.outcomes == partial.outcomes
