from __future__ import annotations

import sys
from typing import Any

import jsonschema
import pytest

from bench import commands
from bench.commands import CommandError, answer, demo_of, failover_of, help_s, solved_of
from bench.figures import figure
from tests.meta.schemas import schema

NOTHING = {"value": None, "n": 0, "spread": None}


def row(accepted_ms: float, unaccepted_ms: float, **other: object) -> dict[str, Any]:
    """What `python -m tests.chaos --row agent-sigkill --json` says of one run."""
    return {
        "recovery_ms": {"p50": accepted_ms - 1, "p99": accepted_ms},
        "figures": {"unaccepted_p99_ms": unaccepted_ms, "unaccepted_moved": 9, "accepted_moved": 3},
        "violations": [],
        **other,
    }


def test_failover_is_the_median_of_the_runs_and_counts_their_jobs() -> None:
    measured = failover_of([row(1_006.0, 7.5), row(1_010.0, 9.5), row(1_008.0, 6.5)])

    assert measured == {
        "accepted_p50_ms": figure([1_005.0, 1_007.0, 1_009.0], "ms"),
        "accepted_p99_ms": figure([1_006.0, 1_008.0, 1_010.0], "ms"),
        "unaccepted_p99_ms": figure([6.5, 7.5, 9.5], "ms"),
        "accepted_moved": 9,
        "unaccepted_moved": 27,
        "violations": [],
    }


def test_failover_has_no_figure_but_a_violation_when_the_kill_hit_nothing() -> None:
    measured: dict[str, Any] = failover_of([row(0.0, 0.0, recovery_ms=None, figures={}, violations=["hit nothing"])])

    assert measured["accepted_p99_ms"] == NOTHING | {"unit": "ms"}
    assert (measured["accepted_moved"], measured["violations"]) == (0, ["hit nothing"])


def test_failover_says_why_the_row_was_not_run() -> None:
    measured = failover_of([row(0.0, 0.0, recovery_ms=None, status="not_run", reason="no such thing here")])

    assert measured["violations"] == ["not run: no such thing here"]


@pytest.mark.parametrize(("rounds", "is_ok"), [([True, True], True), ([True, False], False)])
def test_demo_is_ok_when_each_round_was(rounds: list[bool], is_ok: bool) -> None:
    measured = demo_of([{"elapsed_s": 9.0 + number, "ok": one} for number, one in enumerate(rounds)])

    assert measured == {"elapsed_s": figure([9.0, 10.0], "s"), "ok": is_ok}


def test_solve_gives_answer_and_seconds() -> None:
    assert solved_of([{"agents": 18}], [51.62]) == {"agents": figure([18], "1", 0), "seconds": figure([51.62], "s", 1)}


def test_solve_says_that_nothing_was_measured_when_it_is_left_out() -> None:
    assert commands.solve(is_measured=False) == {
        "equal": {"agents": NOTHING | {"unit": "1"}, "seconds": NOTHING | {"unit": "s"}},
        "any": {"agents": NOTHING | {"unit": "1"}, "seconds": NOTHING | {"unit": "s"}},
        "report_bytes": NOTHING | {"unit": "B"},
    }


def test_figures_have_the_published_form() -> None:
    helps = {name: figure([0.2], "s") for name in ("mesh_help_s", "mesh_agent_help_s", "mesh_sim_help_s")}
    measured = {
        "commands": helps | {"demo": demo_of([{"elapsed_s": 9.0, "ok": True}])},
        "failover": failover_of([row(1_006.0, 7.5)]),
        "solve": commands.solve(is_measured=False),
    }
    published = schema("bench")

    for key, value in measured.items():
        assert key in published["required"]
        jsonschema.validate(value, published["properties"][key] | {"$defs": published["$defs"]})


def test_help_of_a_command_takes_time() -> None:
    assert help_s("mesh") > 0


def test_answer_is_taken_when_the_command_says_that_it_failed() -> None:
    assert answer(sys.executable, "-c", "print('{\"ok\": false}'); raise SystemExit(1)") == {"ok": False}


def test_answer_that_is_none_is_refused_with_what_the_command_said() -> None:
    with pytest.raises(CommandError, match="ended with code 3: out of luck"):
        answer(sys.executable, "-c", "import sys; print('out of luck', file=sys.stderr); sys.exit(3)")
