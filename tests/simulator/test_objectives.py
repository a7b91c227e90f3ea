"""What is asked, and the three answers: met, missed, not precise enough."""

from math import inf

import pytest

from simulator.objectives import (
    Exit,
    ObjectiveError,
    Verdict,
    check_names,
    exit_code,
    parse,
    verdict_sentence,
)

NARROW = [1.40, 1.41, 1.42, 1.43]
WIDE = [1.2, 2.9, 1.4, 2.4]


@pytest.mark.parametrize(
    ("text", "figure", "relation", "bound"),
    [
        ("orders.latency.p99 < 2 s", "orders.latency.p99", "<", 2.0),
        ("orders.latency.p99<250ms", "orders.latency.p99", "<", 0.25),
        ("  lost == 0 ", "lost", "==", 0.0),
        ("backlog.drain <= 5 min", "backlog.drain", "<=", 300.0),
        ("erp.utilisation > 60 %", "erp.utilisation", ">", 0.6),
        ("throughput >= 1e2 /s", "throughput", ">=", 100.0),
        ("backlog.peak < 50_000", "backlog.peak", "<", 50_000.0),
    ],
)
def test_objective_is_read_in_the_unit_of_the_figure(text: str, figure: str, relation: str, bound: float) -> None:
    objective = parse(text)
    assert (objective.figure, objective.relation) == (figure, relation)
    assert objective.bound == pytest.approx(bound)


@pytest.mark.parametrize(
    "text", ["", "orders.latency.p99", "p99 < ", "p99 = 2 s", "p99 << 2", "2 s > p99", "p99 < two s"]
)
def test_objective_is_refused_when_it_is_not_a_comparison(text: str) -> None:
    with pytest.raises(ObjectiveError, match=r"orders\.latency\.p99 < 2 s"):
        parse(text)


def test_objective_is_refused_with_the_nearest_unit() -> None:
    with pytest.raises(ObjectiveError, match="unit `mins` is not known; did you mean `min`"):
        parse("backlog.drain < 5 mins")


def test_objective_that_names_nothing_is_refused_with_the_nearest_figure() -> None:
    with pytest.raises(ObjectiveError, match=r"names nothing.*did you mean `orders\.latency\.p99`"):
        check_names([parse("order.latency.p99 < 2 s")], {"orders.latency.p99", "orders.latency.p50", "lost"})
    check_names([parse("lost == 0")], {"lost"})


def test_objective_is_met_or_missed_by_its_whole_interval() -> None:
    assert parse("p99 < 2 s").judge(NARROW).verdict == Verdict.MET
    assert parse("p99 > 2 s").judge(NARROW).verdict == Verdict.MISSED
    assert parse("p99 < 1.3 s").judge(NARROW).verdict == Verdict.MISSED
    assert parse("p99 < 2 s").judge(WIDE).verdict == Verdict.NOT_PRECISE
    assert parse("p99 < 2 s").judge([1.4]).verdict == Verdict.NOT_PRECISE


def test_equality_is_a_claim_about_every_replication() -> None:
    assert parse("lost == 0").judge([0.0] * 20).verdict == Verdict.MET
    assert parse("lost == 0").judge([0.0] * 19 + [1.0]).verdict == Verdict.MISSED
    assert parse("lost == 0").judge([0.0]).verdict == Verdict.MET


def test_time_that_jobs_never_took_misses_and_says_why() -> None:
    judged = parse("orders.latency.p99 < 2 s").judge([1.4, inf, 1.5])
    assert judged.verdict == Verdict.MISSED
    assert judged.fact == "orders.latency.p99 is never (some jobs were not over when the run was), asked < 2 s"
    assert judged.seen.is_precise(0.05)  # no further day makes it finite


def test_margin_is_a_share_of_the_bound_and_negative_outside() -> None:
    assert parse("p99 < 2 s").judge(NARROW).margin == pytest.approx(0.2925)
    assert parse("p99 > 2 s").judge(NARROW).margin == pytest.approx(-0.2925)
    assert parse("lost == 0").judge([0.0]).margin is None


def test_sentence_names_what_is_missed_first() -> None:
    met, missed = parse("p99 < 2 s").judge(NARROW), parse("drain < 5 min").judge([600.0, 606.0])
    open_ = parse("p50 < 2 s").judge(WIDE)
    assert verdict_sentence([met]).startswith("The objective is met: p99 is 1.415 s (")
    assert verdict_sentence([met, met]).startswith("All 2 objectives are met")
    assert verdict_sentence([met, missed, open_]).startswith("Missed: drain is 10.05 min")
    assert verdict_sentence([met, open_]).startswith("Not precise enough for a verdict: p50")
    assert verdict_sentence([met], "UNSTABLE: backlog grows 4.1 jobs/s") == "UNSTABLE: backlog grows 4.1 jobs/s"
    assert verdict_sentence([met], partial=True).startswith("Interrupted")
    assert verdict_sentence([]) == "No objectives were asked for."


def test_exit_code_is_the_worst_of_all() -> None:
    met, missed, open_ = (parse(text).judge(WIDE) for text in ("p99 < 9 s", "p99 > 9 s", "p99 < 2 s"))
    assert exit_code([met]) == Exit.MET
    assert exit_code([met, open_]) == Exit.NOT_PRECISE
    assert exit_code([met, open_, missed]) == Exit.MISSED
    assert exit_code([met], unstable=True) == Exit.MISSED
    assert exit_code([met], partial=True) == Exit.NOT_PRECISE
    assert exit_code([]) == Exit.MET


def test_objective_about_what_never_happened_decides_nothing() -> None:
    judgement = parse("failover.restart.max < 10 s").judge([])
    assert judgement.verdict is Verdict.NOT_PRECISE
    assert judgement.as_json()["value"] is None
    assert judgement.fact == "failover.restart.max was not measured: it never happened, asked < 10 s"
    assert exit_code([judgement]) is Exit.NOT_PRECISE


@pytest.mark.parametrize("text", ["orders.latency.p99 < 3", "backlog.drain < 5 %", "failover.restart.max < 4/s"])
def test_bound_of_a_time_has_a_unit_of_time(text: str) -> None:
    with pytest.raises(ObjectiveError, match=r"this is a time; its bound has a unit, such as \d s"):
        parse(text)
    assert parse("orders.wait.mean == 0").bound == 0
