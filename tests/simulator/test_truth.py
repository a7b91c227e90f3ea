"""The truth table through the real dispatcher, and that it notices when something is wrong.

`MESH_SABOTAGE=service=1.05` makes everything that takes time take 5 % longer; then these tests must fail.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from simulator.cache import code_version
from simulator.experiments import Outcome, Run
from simulator.scenario import Scenario
from simulator.statistics import Interval
from simulator.trial import Mean, Sizing, Trial
from simulator.truth import Report, Target, TruthPlan, trials_of, verify
from simulator.truth_table import Bound, Case, read_table
from tests.simulator.verification import verified

TABLE = read_table()
CASES = {case.id: case for case in TABLE.cases}
SEED = int(os.environ.get("SEED", "1"))
RESULTS = Path("build") / "verify"
"""Where a soak files the result of each case; what is there and was made by the same code is not run again."""


def wrong(report: Report) -> list[str]:
    """The figures that do not pass, in words."""
    return [
        f"{row.id} {row.figure}: {row.simulated:.6g} +- {row.half_width:.3g}, truth {row.truth:.6g}, {row.bound=:.3g}"
        for row in report.rows
        if not row.passed
    ]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_world_reproduces_the_quick_cases_of_every_family() -> None:
    report = verified(seed=SEED)
    assert wrong(report) == []
    assert report.skipped == {}
    assert report.passed == sorted(TABLE.quick)
    assert {id_[0] for id_ in report.passed} == set("QPFSE")


@pytest.mark.slow
@pytest.mark.parametrize("id_", ["Q11", "F14"])
def test_table_notices_that_everything_takes_five_per_cent_longer(id_: str) -> None:
    report = verified(id_, factor=1.05)
    assert report.failed == [id_]


@pytest.mark.soak
@pytest.mark.parametrize("id_", CASES)
def test_world_reproduces_the_truth(id_: str) -> None:
    path = RESULTS / f"{id_}-{SEED}-{code_version()[:16]}.json"
    if not path.exists():
        report = verified(id_, quick=False, seed=SEED)
        assert report.skipped == {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"rows": len(report.rows), "wrong": wrong(report), "report": report.as_json()}))
    filed = json.loads(path.read_text())
    assert filed["rows"]
    assert filed["wrong"] == []


@pytest.mark.soak
def test_table_turns_red_where_everything_takes_five_per_cent_longer() -> None:
    report = verified(quick=False, seed=SEED, factor=1.05)
    assert len(report.failed) >= 0.8 * len(CASES), report.passed


def test_table_has_the_cases_of_the_quick_run_and_bounds_for_all() -> None:
    assert len(TABLE.cases) == len(CASES)
    assert len(TABLE.quick) >= 10
    for case in TABLE.cases:
        assert list(case.judged()), case.id
    assert [name for name, _, _ in CASES["Q14"].judged()] == ["wait_mean_by_priority[0]", "wait_mean_by_priority[1]"]
    assert "lognormal_sigma" not in [name for name, _, _ in CASES["Q09"].judged()]


@pytest.mark.parametrize("id_", CASES)
def test_every_case_has_a_valid_scenario_that_measures_all_its_figures(id_: str) -> None:
    trials = trials_of(CASES[id_])
    for trial in trials:
        Scenario.model_validate(trial.scenario)
    assert {name for name, _, _ in CASES[id_].judged()} <= {name for trial in trials for name in trial.figures}


def test_setup_of_a_further_case_is_read_not_remembered() -> None:
    further = Case(
        id="X1", name="M/M/c central queue", setup="lam=3.5, 5 agents x 2 slots", truth={"wait_mean": 1.0}, bounds={}
    )
    (trial,) = trials_of(further)
    assert trial.scenario["groups"]["group"]["agents"] == {"count": 5, "slots": 2}
    assert trial.scenario["work"]["work"]["arrivals"] == {"poisson": "3.5/s"}
    (sizing,) = trials_of(CASES["S02"])
    assert isinstance(sizing, Sizing)
    assert sizing.scenario["work"]["work"] == {
        "group": "group",
        "arrivals": {"poisson": "60.0/s"},
        "duration": {"exponential": "0.35 s"},
    }
    assert sizing.scenario["objectives"] == ["work.latency.p99 < 1.8 s"]


def test_case_that_nobody_knows_is_skipped_with_the_reason() -> None:
    case = Case(id="X2", name="heavenly queue", setup="none", truth={"a": 1.0}, bounds={"a": Bound(rel=0.1)})
    report = verify([case], seed=1)
    assert report.rows == []
    assert "heavenly queue" in report.skipped["X2"]
    assert report.as_json()["skipped"] == [{"id": "X2", "reason": report.skipped["X2"]}]


def own(figure: str, truth: float, bound: Bound) -> Case:
    """A case with a scenario of its own."""
    tree = trials_of(CASES["E02"])[0].scenario
    return Case(
        id="X3",
        name="own",
        setup="",
        truth={figure: truth},
        bounds={figure: bound},
        scenario=tree,
        figures={figure: figure},
    )


def test_case_may_bring_its_own_scenario() -> None:
    report = verify([own("work.arrived", 1000.0, Bound(abs=0))], seed=1)
    assert [(row.simulated, row.passed, row.policy) for row in report.rows] == [(1000.0, True, "round-robin")]


class Biased:
    """A world whose only figure is around `centre`; every other run is a little above it, every other below."""

    def __init__(self, centre: float, spread: float) -> None:
        self.centre, self.spread = centre, spread

    def __call__(self, scenario: Scenario, /, *, seed: int, replication: int, changes: Mapping[str, object]) -> Run:
        value = self.centre + (self.spread if replication % 2 else -self.spread)
        return Outcome("", {"v": value}, 10, 1.0, 0.0)


@pytest.mark.parametrize(
    ("centre", "spread", "passes"), [(1.0, 0.01, True), (1.09, 0.03, False), (0.89, 0.0, False), (1.0, 4.0, False)]
)
def test_figure_passes_only_when_it_is_right_and_precise(centre: float, spread: float, *, passes: bool) -> None:
    report = verify([own("v", 1.0, Bound(rel=0.10))], seed=1, simulate=Biased(centre, spread))
    assert [row.passed for row in report.rows] == [passes]
    assert report.failed == ([] if passes else ["X3"])


class Interrupting(Biased):
    """Somebody presses Ctrl-C at the second case."""

    def __call__(self, scenario: Scenario, /, *, seed: int, replication: int, changes: Mapping[str, object]) -> Run:
        if scenario.name != "E02":
            raise KeyboardInterrupt
        return super().__call__(scenario, seed=seed, replication=replication, changes=changes)


def test_interrupted_table_says_what_was_finished_and_that_it_is_partial() -> None:
    report = verify([CASES["Q02"], own("v", 1.0, Bound(rel=0.10))], seed=1, simulate=Interrupting(1.0, 0.0))
    assert (report.passed, report.partial, report.as_json()["partial"]) == (["X3"], True, True)


def test_bound_is_widened_only_in_the_quick_run_and_only_where_it_would_take_long() -> None:
    target = Target("v", 2.0, Bound(rel=0.02), Mean("v"))
    wide, narrow = Interval(2.0, 0.03, 10), Interval(2.0, 0.013, 10)
    assert target.allowed(wide, 100_000, quick=False) == (0.04, False)
    assert target.allowed(wide, 10_000, quick=True) == (0.04, False)
    assert target.allowed(wide, 100_000, quick=True) == (0.1, True)
    assert target.allowed(narrow, 100_000_000, quick=True) == (0.04, False)
    assert Target("v", 2.0, Bound(abs=0.01), Mean("v")).allowed(wide, 10**9, quick=True) == (0.01, False)


def test_plan_goes_on_until_half_an_interval_is_a_third_of_its_bound() -> None:
    target = Target("v", 1.0, Bound(rel=0.06), Mean("v"))
    plan = TruthPlan(targets=(target,), trial=Trial({}, {}, at_least=4, at_most=50))

    def outcomes(*values: float) -> list[Outcome]:
        return [Outcome("", {"v": value}, 10, 1.0, 0.0) for value in values]

    assert not plan.is_enough(outcomes(1.0, 1.0, 1.0))
    assert plan.is_enough(outcomes(1.0, 1.001, 1.0, 1.001))
    assert not plan.is_enough(outcomes(1.0, 1.2, 0.8, 1.0))
    assert plan.is_enough(outcomes(*[1.0, 1.2] * 25))
