"""An answer as one JSON object."""

import json

import pytest

from simulator.document import document
from tests.meta.schemas import validate
from tests.simulator.test_answer import FAULT, GROWING, asked


def test_document_is_as_its_schema_says_and_is_json() -> None:
    found = asked(2, faults=[FAULT], objectives=("orders.latency.p99 < 9 s", "lost == 0", "backlog.drain < 1 min"))
    made = json.loads(json.dumps(document(found), allow_nan=False))
    validate("run", made)
    assert made["phases"][1]["figures"]["orders.latency.p99"]["n"] == 2
    assert made["faults"] == [{"name": "crash erp/1", "from_s": 30.0, "to_s": 50.0}]
    assert len(made["shares"]["erp"]["counts"]) == 6
    assert made["scenario"]["groups"]["erp"]["agents"][0]["slots"] == 4
    assert [run["jobs"] for run in made["runs"]] == [outcome.jobs for outcome in found.series.outcomes]


def test_document_of_an_unstable_system_has_no_figures() -> None:
    made = json.loads(json.dumps(document(asked(0, **GROWING)), allow_nan=False))
    validate("run", made)
    assert made["unstable"].startswith("UNSTABLE")
    assert made["figures"] == {}
    assert made["exit_code"] == 3


def test_backlog_that_never_drains_is_null_and_missed() -> None:
    found = asked(
        2,
        objectives=("backlog.drain < 1 min",),
        horizon={"settle": "10 s", "run": "50 s", "finish": "1 s"},
        arrivals={"closed": {"clients": 40, "think": "1 ms"}},
        duration={"constant": "90 s"},
    )
    made = json.loads(json.dumps(document(found), allow_nan=False))
    validate("run", made)
    assert made["figures"]["backlog.drain"]["value"] is None
    assert (made["objectives"][0]["value"], made["exit_code"]) == (None, 3)
    assert made["verdict"] == "Missed: backlog.drain is never, asked < 1 min."


def test_distribution_says_which_share_of_jobs_takes_longer() -> None:
    found = asked(2, duration={"exponential": "400 ms"})
    seen = document(found)["distributions"]["orders.latency"]
    assert seen["count"] == found.figures["orders.succeeded"].mean * 2
    shares = [share for _, share in seen["points"]]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == 0
    above = next(share for seconds, share in seen["points"] if seconds >= 0.8)
    assert above == pytest.approx(0.1353, abs=0.02)  # exp(-2)


def test_formulas_stand_beside_the_simulation_of_the_same_work() -> None:
    made = document(asked(4))
    theory = {one["figure"]: one for one in made["theory"]}
    assert theory["erp.utilisation"]["theory"] == pytest.approx(20 * 0.4 / 24)
    assert theory["orders.latency.mean"]["simulated"] == pytest.approx(theory["orders.latency.mean"]["theory"], rel=0.1)
    assert any("Student's t, n = 4" in sentence for sentence in made["assumptions"])
