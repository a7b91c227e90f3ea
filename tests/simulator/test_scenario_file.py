"""Files of scenarios: what is wrong is said with its line."""

from pathlib import Path

import jsonschema
import pytest

from simulator.scenario_file import ScenarioError, dump, load, parse, schema

GOOD = """\
version: 1
name: peak hour, zone b lost
horizon: {settle: 10 min, run: 60 min}
groups:
  erp:
    agents: {count: 18, slots: 4, spread: [zone-a, zone-b, zone-c]}
work:
  orders:
    group: erp
    arrivals: {poisson: 100/s}
    duration: {exponential: 400 ms}
    attempts: 3
network: {same-zone: 1 ms, other-zone: {p50: 3 ms, p99: 25 ms}}
faults:
  - {at: 20 min, zone-down: zone-b, for: 15 min}
  - {at: 45 min, rolling-upgrade: erp, batch: 2, each: 90 s}
  - {random: crash, agents: all, mttf: 30 d, mttr: 4 min}
"""


def test_file_reads_back_as_the_same_scenario_when_it_was_resolved() -> None:
    one = parse(GOOD)
    assert parse(dump(one)) == one
    assert one.horizon.run == 3600.0


@pytest.mark.parametrize(
    ("good", "bad", "says"),
    [
        ("slots: 4", "slot: 4", "a.yaml:6: groups.erp.agents.slot: unknown key `slot`; did you mean `slots`?"),
        ("attempts: 3", "atempts: 3", "a.yaml:12: work.orders.atempts: unknown key"),
        ("same-zone", "samezone", "a.yaml:13: network.samezone: unknown key `samezone`; did you mean `same-zone`?"),
        ("zone-down: zone-b", "zone-dwn: zone-b", "a.yaml:15: faults.0: .*did you mean `zone-down`?"),
        ("zone-b, for: 15", "zone-b, fro: 15", "unknown key `fro`; did you mean `for`?"),
        ("100/s", "100/sek", "a.yaml:10: work.orders.arrivals.poisson: `sek` is no unit of time"),
        ("400 ms", "400", "a.yaml:11: .*400 has no unit"),
        ("at: 20 min", "at: 2 d", "a.yaml:15: .*the run ends at 4200 s"),
        ("count: 18", "count: -1", "a.yaml:6: groups.erp.agents.count"),
        ("group: erp", "group: erb", "a.yaml:8: work.orders: .*did you mean `erp`?"),
        ("mttr", "mtr", "did you mean `mttr`?"),
        ("{same", "[same", "a.yaml:13: "),
        ("poisson: 100/s", "cron: {when: '99 * * * *'}", "a.yaml:10: work.orders.arrivals: .*not within 0 and 59"),
    ],
)
def test_fault_of_a_file_is_told_with_its_line_and_the_nearest_right_form(good: str, bad: str, says: str) -> None:
    assert good in GOOD
    with pytest.raises(ScenarioError, match=says):
        parse(GOOD.replace(good, bad), "a.yaml")


def test_file_that_is_no_mapping_or_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="a scenario is a mapping"):
        parse("- a\n", "a.yaml")
    with pytest.raises(ScenarioError, match="cannot be read"):
        load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("trace", "says"),
    [("1\n\n3\n", ":2: is empty: the trace has a gap"), ("1\n0.5\n", ":2: 0.5 is before"), ("1\nx\n", ":2: `x`")],
)
def test_trace_is_refused_with_its_line_when_it_has_a_gap_or_is_out_of_order(
    tmp_path: Path, trace: str, says: str
) -> None:
    (tmp_path / "history.csv").write_text(trace)
    (tmp_path / "a.yaml").write_text(GOOD.replace("poisson: 100/s", "trace: history.csv"))
    with pytest.raises(ScenarioError, match=says):
        load(tmp_path / "a.yaml")


def test_trace_is_named_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(GOOD.replace("poisson: 100/s", "trace: history.csv"))
    (tmp_path / "history.csv").write_text("1\n2\n")
    before = load(file)
    (tmp_path / "history.csv").write_text("1\n3\n")
    assert load(file) != before


def test_schema_knows_what_a_resolved_scenario_says() -> None:
    document = schema()
    jsonschema.Draft202012Validator.check_schema(document)
    jsonschema.validate(parse(GOOD).resolved(), document)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**parse(GOOD).resolved(), "grups": 1}, document)
