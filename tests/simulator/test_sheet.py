"""What people read on the console."""

import pytest

from simulator.sheet import change_of, shown, table, with_half_width
from simulator.statistics import Interval
from tests.simulator.test_answer import FAULT, GROWING, asked


def test_table_has_the_figures_by_phase_and_the_verdict_last() -> None:
    lines = list(table(asked(2, faults=[FAULT], objectives=("orders.latency.p99 < 9 s", "lost == 0"))))
    text = "\n".join(lines)
    assert lines[0].startswith("unnamed: 2 replications of 1 min, ")
    heading = next(line for line in lines if "whole" in line)
    assert heading.split("  ")[-1].strip() == "after crash erp/1"
    p99 = next(line for line in lines if line.strip().startswith("end to end p99 "))
    assert p99.count(" s") == 4  # the whole and three phases
    assert "±" in p99
    assert "running again after" in text
    assert lines[-1].startswith("All 2 objectives are met; the tightest: orders.latency.p99 is ")
    assert all(len(line) <= 132 for line in lines[1:-4])


def test_table_of_an_unstable_system_has_no_figures() -> None:
    lines = list(table(asked(0, **GROWING)))
    assert len(lines) == 2
    assert lines[1].startswith("UNSTABLE: backlog grows ")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0123456, "s", "12.35 ms"),
        (1.878, "s", "1.878 s"),
        (700.0, "s", "11.67 min"),
        (float("inf"), "s", "never"),
        (0.6416, "%", "64.16 %"),
        (99.8, "/s", "99.8/s"),
        (123456.0, "", "123456"),
    ],
)
def test_value_is_shown_in_the_unit_that_reads_best(value: float, unit: str, text: str) -> None:
    assert shown(value, unit) == text


def test_half_width_has_two_digits_and_is_left_out_where_there_is_none() -> None:
    assert with_half_width(Interval(8.0184, 0.51234, 8), "s") == "8.018 s ± 512 ms"
    assert with_half_width(Interval(3.0, 0.0, 8), "") == "3"
    assert with_half_width(Interval(3.0, float("inf"), 1), "") == "3"


def test_change_is_read_as_yaml() -> None:
    assert change_of("groups.erp.agents.count=20") == ("groups.erp.agents.count", 20)
    assert change_of("network.same-zone=2 ms") == ("network.same-zone", "2 ms")
