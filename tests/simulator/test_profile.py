"""A profile says the same after it was written, and scenarios take from it what they do not say themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from simulator.profile import MINUTES, Live, Profile, ProfileError, WorkHistory, quantiles_law, read, text_of
from simulator.scenario import Commits, Costs, Scenario
from simulator.scenario_file import ScenarioError, dump, load, parse
from simulator.world import simulate

SCENARIO = """
horizon: {settle: 0, run: 2 min}
groups:
  erp: {agents: {count: 4}}
work:
  orders:
    group: erp
    arrivals: {poisson: 10/s}
    duration: 100 ms
broker: {profile: profile.yaml}
"""
FROM_HISTORY = """
horizon: {settle: 0, run: 2 min}
groups:
  erp: {agents: {count: 8}}
work:
  orders:
    group: erp
    arrivals: {weekly: {of: profile.yaml#orders, begin: 1 h}}
    duration: {empirical: profile.yaml#orders}
    failure: profile.yaml#orders
"""


def live() -> Live:
    return Live.model_validate(
        {
            "made-at": "2026-01-05T00:00:00Z",
            "seed": 3,
            "jobs": 1_000,
            "rate": "50/s",
            "busy": "20 %",
            "costs": Costs.model_validate({"turn": "70 us"}),
            "commits": Commits.model_validate({"time": {"constant": "2 ms"}}),
            "network": quantiles_law([0.0001, 0.0003]),
            "submit": quantiles_law([0.001, 0.003]),
            "overhead": quantiles_law([0.004, 0.006]),
            "broker-start": "0.8 s",
            "agent-start": "0.6 s",
        }
    )


def history() -> WorkHistory:
    """60 jobs in each of the minutes from 1:00 to 1:10 on Monday, none at other times."""
    per_minute = [60.0 if 60 <= minute < 70 else 0.0 for minute in range(MINUTES)]
    quantiles = ["10 ms", "20 ms", "90 ms"]
    said = {"jobs": 600, "weeks": 1, "failure": "10 %", "quantiles": quantiles, "per-minute": per_minute}
    return WorkHistory.model_validate(said)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "profile.yaml").write_text(text_of(Profile(live=live(), work={"orders": history()})))
    return tmp_path


def scenario(folder: Path, text: str) -> Scenario:
    (folder / "scenario.yaml").write_text(text)
    return load(folder / "scenario.yaml")


def test_profile_is_the_same_after_it_was_written_and_read(folder: Path) -> None:
    text = (folder / "profile.yaml").read_text()

    assert read(folder / "profile.yaml") == Profile(live=live(), work={"orders": history()})
    assert "# one turn of the engine" in text
    assert "turn: 70 us" in text


def test_scenario_takes_costs_commits_network_and_agents_from_its_profile(folder: Path) -> None:
    loaded = scenario(folder, SCENARIO)

    assert loaded.broker.costs.turn == pytest.approx(70e-6)
    assert loaded.broker.commits.time.constant == pytest.approx(0.002)
    assert (loaded.network.same_zone, loaded.network.submit) == (live().network, live().submit)
    assert loaded.agent.overhead == live().overhead


def test_scenario_wins_over_its_profile_where_it_says_something_itself(folder: Path) -> None:
    said = "broker: {profile: profile.yaml, costs: {turn: 1 ms}}\nnetwork: {same-zone: 9 ms}\n"
    loaded = scenario(folder, SCENARIO.replace("broker: {profile: profile.yaml}\n", said))

    assert loaded.broker.costs.turn == pytest.approx(1e-3)
    assert loaded.broker.costs.report == live().costs.report
    assert loaded.network.same_zone.constant == pytest.approx(9e-3)


def test_scenario_that_was_written_out_does_not_need_its_profile_any_more(folder: Path) -> None:
    for text in (SCENARIO, FROM_HISTORY.replace("{weekly: {of: profile.yaml#orders, begin: 1 h}}", "{poisson: 1/s}")):
        loaded = scenario(folder, text)
        (folder / "profile.yaml").rename(folder / "gone.yaml")

        assert parse(dump(loaded)) == loaded
        (folder / "gone.yaml").rename(folder / "profile.yaml")


def test_jobs_take_as_much_longer_as_submitters_and_agents_add(folder: Path) -> None:
    added = simulate(scenario(folder, SCENARIO), seed=1).figures["orders.latency.mean"]
    plain = simulate(scenario(folder, SCENARIO + "network: {submit: 0}\nagent: {overhead: 0}\n"), seed=1)

    assert added - plain.figures["orders.latency.mean"] == pytest.approx(0.002 + 0.005, rel=0.1)


def test_arrivals_durations_and_failures_are_those_of_the_history(folder: Path) -> None:
    seen = simulate(scenario(folder, FROM_HISTORY), seed=1).figures

    assert seen["orders.arrived"] == pytest.approx(120, abs=35)
    assert seen["orders.retried"] > 0
    other_time = FROM_HISTORY.replace("begin: 1 h", "begin: 2 h")
    assert simulate(scenario(folder, other_time), seed=1).figures["orders.arrived"] == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SCENARIO.replace("profile.yaml", "nowhere.yaml"), r"scenario.yaml:10: broker.profile: .*cannot be read"),
        (FROM_HISTORY.replace("empirical: profile.yaml#orders", "empirical: profile.yaml#order"), "did you mean `ord"),
        (FROM_HISTORY.replace("failure: profile.yaml#orders", "failure: profile.yaml#"), "does not name work of a"),
        (FROM_HISTORY.replace("begin: 1 h", "began: 1 h"), "unknown key `began`"),
    ],
)
def test_scenario_that_names_no_profile_is_refused_with_its_line(folder: Path, text: str, words: str) -> None:
    with pytest.raises(ScenarioError, match=words):
        scenario(folder, text)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("turn: 70 us", "turn: 70"), r"profile.yaml:\d+: live.costs.turn: 70 has no unit"),
        (lambda text: text.replace("seed: 3", "sede: 3"), r"profile.yaml:\d+: live.se.*"),
        (lambda text: text.replace("version: 1", "version: 2"), r"profile.yaml:6: version: "),
        (lambda text: "- a list", "a profile is a mapping"),
        (lambda text: "a: [", "profile.yaml"),
    ],
)
def test_profile_that_makes_no_sense_is_refused_with_its_line(
    folder: Path, change: Callable[[str], str], words: str
) -> None:
    path = folder / "profile.yaml"
    path.write_text(change(path.read_text()))

    with pytest.raises(ProfileError, match=words):
        read(path)


def test_profile_without_a_live_part_says_how_to_get_one() -> None:
    with pytest.raises(ProfileError, match="mesh-sim calibrate"):
        Profile().live_part()
    with pytest.raises(ProfileError, match="--history"):
        Profile().of_work("orders")
