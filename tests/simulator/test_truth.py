"""The truth table through the real dispatcher, and that it notices when something is wrong.

`MESH_SABOTAGE=service=1.05` makes everything that takes time take 5 % longer; then these tests must fail.
"""

import json
import os
import re
from pathlib import Path

import pytest

from broker.errors import ConfigError
from simulator.backends import Loky
from simulator.experiments import Laboratory, Outcome, Run
from simulator.fault_trials import KINDS as FAULT_KINDS
from simulator.queue_trials import KINDS as QUEUE_KINDS
from simulator.scenario import Scenario
from simulator.statistics import Interval
from simulator.trial import Mean, NotExpressedError, Sizing, Tree, Trial
from simulator.truth import (
    Bound,
    Case,
    Report,
    Target,
    TruthPlan,
    read_table,
    simulate_with_controls,
    trials_of,
    verify,
)

TABLE = read_table()
CASES = {case.id: case for case in TABLE.cases}
_SECONDS = re.compile(r"([0-9.]+(?:e-?[0-9]+)?) (ms|s|min|h)")


def slower(tree: Tree, factor: float) -> Tree:
    """The same scenario, with jobs, repairs and heartbeats that take `factor` times as long; patience stays."""

    def stretched(value: object) -> object:
        if isinstance(value, dict):
            return {key: stretched(one) for key, one in value.items()}
        if isinstance(value, str) and (found := _SECONDS.fullmatch(value)):
            return f"{float(found[1]) * factor!r} {found[2]}"
        return value

    bent: Tree = json.loads(json.dumps(tree))
    for work in bent["work"].values():
        work["duration"] = stretched(work["duration"])
    for fault in bent.get("faults", ()):
        fault |= {key: stretched(value) for key, value in fault.items() if key in ("mttr", "each")}
    for key in ("heartbeat", "idle-heartbeat", "suspect", "lease"):
        if key in bent["broker"]:
            bent["broker"][key] = stretched(bent["broker"][key])
    return bent


def bend(tree: Tree) -> Tree:
    """What the sabotage asks for."""
    name, _, factor = os.environ.get("MESH_SABOTAGE", "").partition("=")
    return slower(tree, float(factor)) if name == "service" else tree


def run(*ids: str, factor: float | None = None) -> Report:
    bent = bend if factor is None else lambda tree: slower(tree, factor)
    laboratory = Laboratory(simulate_with_controls, Loky(2))
    return verify(laboratory, [CASES[id_] for id_ in ids], seed=int(os.environ.get("SEED", "1")), quick=True, bend=bent)


@pytest.mark.slow
@pytest.mark.parametrize("id_", ["Q11", "Q16", "F14", "E02"])
def test_world_reproduces_the_truth(id_: str) -> None:
    report = run(id_)
    assert report.skipped == {}
    assert [row for row in report.rows if not row.passed] == []
    assert report.rows


@pytest.mark.slow
@pytest.mark.parametrize("id_", ["Q11", "Q16", "F14"])
def test_table_notices_that_everything_takes_five_per_cent_longer(id_: str) -> None:
    report = run(id_, factor=1.05)
    assert report.failed == [id_]


def test_table_has_the_cases_of_the_quick_run_and_bounds_for_all() -> None:
    assert len(TABLE.cases) == len(CASES)
    assert set(TABLE.quick) <= set(CASES)
    for case in TABLE.cases:
        assert list(case.judged()), case.id
    assert [name for name, _, _ in CASES["Q14"].judged()] == ["wait_mean_by_priority[0]", "wait_mean_by_priority[1]"]
    assert "lognormal_sigma" not in [name for name, _, _ in CASES["Q09"].judged()]


def test_every_case_has_a_scenario_that_is_valid_or_says_what_is_missing() -> None:
    missing = {}
    for case in TABLE.cases:
        try:
            for trial in trials_of(case):
                Scenario.model_validate(trial.scenario)
        except NotExpressedError as error:
            missing[case.id] = error.text
    assert not set(missing) & set(TABLE.quick)
    assert all(len(reason) > 20 for reason in missing.values())


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
    assert sizing.guesses == {True: 18, False: 18}


def test_names_of_cases_lead_to_one_kind_each() -> None:
    for case in TABLE.cases:
        found = [p for p, _ in (*FAULT_KINDS, *QUEUE_KINDS) if re.search(p, f"{case.name}; {case.setup}")]
        assert len(found) <= 2, (case.id, found)


def test_case_that_nobody_knows_is_skipped_with_the_reason() -> None:
    case = Case(id="X2", name="heavenly queue", setup="none", truth={"a": 1.0}, bounds={"a": Bound(rel=0.1)})
    report = verify(Laboratory(simulate_with_controls), [case], seed=1)
    assert report.rows == []
    assert "heavenly queue" in report.skipped["X2"]
    assert report.as_json()["skipped"] == [{"id": "X2", "reason": report.skipped["X2"]}]


def test_case_may_bring_its_own_scenario() -> None:
    tree = trials_of(CASES["E02"])[0].scenario
    case = Case(
        id="X3",
        name="own",
        setup="",
        truth={"n": 1000.0},
        bounds={"n": Bound(abs=0)},
        scenario=tree,
        figures={"n": "work.arrived"},
    )
    report = verify(Laboratory(simulate_with_controls), [case], seed=1)
    assert [(row.simulated, row.passed, row.policy) for row in report.rows] == [(1000.0, True, "round-robin")]


class Biased:
    """A world whose only figure is around `centre`; every other run is a little above it, every other below."""

    def __init__(self, centre: float, spread: float) -> None:
        self.centre, self.spread = centre, spread

    def __call__(self, scenario: Scenario, /, *, seed: int, replication: int, changes: object) -> Run:
        value = self.centre + (self.spread if replication % 2 else -self.spread)
        return Outcome("", {"v": value}, 10, 1.0, 0.0)


@pytest.mark.parametrize(
    ("centre", "spread", "passes"), [(1.0, 0.01, True), (1.09, 0.03, False), (0.89, 0.0, False), (1.0, 4.0, False)]
)
def test_figure_passes_only_when_it_is_right_and_precise(centre: float, spread: float, *, passes: bool) -> None:
    case = Case(
        id="X4",
        name="own",
        setup="",
        truth={"v": 1.0},
        bounds={"v": Bound(rel=0.10)},
        scenario=trials_of(CASES["E02"])[0].scenario,
        figures={"v": "v"},
    )
    report = verify(Laboratory(Biased(centre, spread)), [case], seed=1)
    assert [row.passed for row in report.rows] == [passes]
    assert report.failed == ([] if passes else ["X4"])


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


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "not a table of cases"), ("[]", "not a table of cases"), ('{"cases": [{"id": "Q"}]}', "cases.0.name")],
)
def test_table_that_is_none_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "cases.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        read_table(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_table(tmp_path / "none.json")
