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
network: {same-zone: 1 ms, other-zone: {p50: 3 ms, p99: 25 ms}, loss: 0}
broker: {fidelity: broker, heartbeat: 2 s, lease: 10 s}
faults:
  - {at: 20 min, zone-down: zone-b, for: 15 min}
  - {at: 45 min, rolling-upgrade: erp, batch: 2, each: 90 s}
  - {random: crash, agents: all, mttf: 30 d, mttr: 4 min}
objectives: [orders.latency.p99 < 2 s, lost == 0, backlog.drain < 5 min]
cost: {agent-hour: 0.21 EUR}
statistics: {replications: auto, precision: 5 %, seed: 7}
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
        ("zone-down: zone-b", "zone-dwn: zone-b", "a.yaml:16: faults.0: .*did you mean `zone-down`?"),
        ("zone-b, for: 15", "zone-b, fro: 15", "unknown key `fro`; did you mean `for`?"),
        ("100/s", "100/sek", "a.yaml:10: work.orders.arrivals.poisson: `sek` is no unit of time"),
        ("400 ms", "400", "a.yaml:11: .*400 has no unit"),
        ("at: 20 min", "at: 2 d", "a.yaml:16: .*the run ends at 4200 s"),
        ("count: 18", "count: -1", "a.yaml:6: groups.erp.agents.count"),
        ("group: erp", "group: erb", "a.yaml:8: work.orders: .*did you mean `erp`?"),
        ("mttr", "mtr", "did you mean `mttr`?"),
        ("{same", "[same", "a.yaml:13: "),
        ("zone-b, for: 15 min", "zone-b, for: -15 min", "a.yaml:16: .*cannot be negative"),
        ("slots: 4", "slots: 4000000000", "a.yaml:6: groups.erp.agents.slots: .*less than or equal to 1000000"),
        ("spread: [zone-a, zone-b, zone-c]", "spread: []", "a.yaml:6: groups.erp.agents.spread"),
        ("loss: 0", "loss: 80 %", "a.yaml:13: network.loss: .*less than or equal to 0.5"),
        ("mttf: 30 d", "mttf: 0", "a.yaml:18: faults.2.random: `mttf` must be above 0"),
        ("loss: 0}", "loss: 0, loss: 0}", "a.yaml:13: found duplicate key"),
        (
            "attempts: 3",
            "labels: [gpu=yes]",
            "a.yaml:8: work.orders: .*no agents of `erp` offer gpu=yes; they offer none",
        ),
        (
            "    agents: {c",
            "    need: 20\n    agents: {c",
            "a.yaml:5: groups.erp: .*needs 20 agents and never has more than 18",
        ),
        (
            "at: 45 min, rolling-upgrade: erp, batch: 2, each: 90 s",
            "at: 30 min, zone-down: zone-b, for: 1 s",
            "a.yaml:17",
        ),
        (
            "rolling-upgrade: erp, batch: 2, each: 90 s",
            "clock-jump: ahead, by: 1 h",
            "a.yaml:17: .*add a `broker-crash`",
        ),
        ("orders.latency.p99 <", "order.latency.p99 <", "a.yaml:19: objectives.0: .*did you mean `orders.latency.p99`"),
        ("< 2 s", "< 2 sec", "a.yaml:19: objectives.0: .*unit `sec` is not known"),
        ("< 5 min", "is 5 min", "a.yaml:19: objectives.2: .*not of the form"),
        ("100/s", "100/s, even: 100/s", "a.yaml:10: .*exactly one of"),
        ("poisson: 100/s", "trace: none.csv", "a.yaml:10: work.orders.arrivals.trace: .*none.csv cannot be read"),
        ("poisson: 100/s", "diurnal: {mean: 1/s, period: 0}", "a.yaml:10: .*greater than 0"),
        ("exponential: 400 ms", "lognormal: {mean: 0, scv: 1}", "a.yaml:11: .*`mean` must be above 0"),
        ("lease: 10 s", "lease: 1 s", "a.yaml:14: broker: .*`margin` must be less than `lease`"),
        ("poisson: 100/s", "cron: {when: '99 * * * *'}", "a.yaml:10: work.orders.arrivals: .*not within 0 and 59"),
    ],
)
def test_fault_of_a_file_is_told_with_its_line_and_the_nearest_right_form(good: str, bad: str, says: str) -> None:
    assert good in GOOD
    with pytest.raises(ScenarioError, match=says):
        parse(GOOD.replace(good, bad), "a.yaml")


def test_file_of_aliases_of_aliases_is_refused_before_memory_is_full() -> None:
    layers = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12))
    with pytest.raises(ScenarioError, match=r"a\.yaml:1: more than 100000 values"):
        parse(f"l0: &l0 [x]\n{layers}\n", "a.yaml")
    with pytest.raises(ScenarioError, match="30 deep"):
        parse("a: " + "[" * 40 + "]" * 40, "a.yaml")


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
