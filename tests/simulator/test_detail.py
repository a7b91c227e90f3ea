"""What is kept of a replication, in the cache too."""

from pathlib import Path

from simulator.cache import ResultCache
from simulator.experiments import Laboratory, Plan, Question
from simulator.world import simulate
from tests.simulator.toys import ToyScenario, queue
from tests.simulator.worlds import scenario


def test_detail_comes_out_of_the_cache_as_it_went_in(tmp_path: Path) -> None:
    question = Question(scenario(fidelity="exact", run="20 s", faults=[{"at": "15 s", "crash": "erp/1", "for": "5 s"}]))
    laboratory = Laboratory(simulate, cache=ResultCache(tmp_path), in_depth=True)
    first, again = laboratory.replicate(question, Plan(2)), laboratory.replicate(question, Plan(2))
    assert again.cached == 2
    assert again.outcomes == first.outcomes
    detail = first.outcomes[0].detail
    assert detail is not None
    assert detail.samples["orders.latency"].whole().count == first.outcomes[0].figures["orders.succeeded"]


def test_outcomes_have_no_detail_unless_asked_for(tmp_path: Path) -> None:
    question, cache = Question(scenario(fidelity="exact", run="20 s")), ResultCache(tmp_path)
    Laboratory(simulate, cache=cache, in_depth=True).replicate(question, Plan(1))
    plain = Laboratory(simulate, cache=cache).replicate(question, Plan(1))
    assert plain.outcomes[0].detail is None


def test_world_without_detail_has_none() -> None:
    series = Laboratory(queue, in_depth=True).replicate(Question(ToyScenario(jobs=50)), Plan(1))
    assert series.outcomes[0].detail is None
