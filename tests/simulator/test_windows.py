"""Numbers by window of the run."""

import numpy as np
import pytest

from simulator.windows import WINDOWS, LatencyWindows, Shares, evenness_of, jain
from tests.simulator.worlds import play


def test_latencies_fall_into_the_window_of_their_arrival() -> None:
    seen = LatencyWindows(WINDOWS * 1_000_000)
    seen.add(np.asarray([100.0, 200.0, 1_500_000.0]), np.asarray([0.5, 0.5, 2.0]))
    seen.add(np.asarray([47_900_000.0]), np.asarray([4.0]))
    median = seen.quantile(0.5)
    assert median[0] == pytest.approx(0.5, rel=0.02)
    assert median[1] == pytest.approx(2.0, rel=0.02)
    assert median[2:47] == [None] * 45
    assert median[47] == pytest.approx(4.0, rel=0.02)


def test_evenness_of_windows_looks_at_agents_that_were_there_throughout() -> None:
    up = [[True, True], [True, True], [True, False]]
    shares = Shares(["a", "b", "c"], 0.0, 10.0, [[10, 10], [10, 30], [10, 0]], up)
    seen = evenness_of(shares, [1, 1, 1])
    assert seen["least"] == pytest.approx(jain(np.asarray([10.0, 30.0])))
    assert seen["mean"] == pytest.approx((1 + seen["least"]) / 2)
    assert evenness_of(shares, [1, 3, 1])["least"] == pytest.approx(jain(np.asarray([10.0, 10 / 3, 10.0])))
    assert evenness_of(None, [1]) == {"count": 0, "least": 1.0, "mean": 1.0}


def test_shares_of_a_run_are_all_assignments_of_its_window() -> None:
    run = play(fidelity="exact", faults=[{"at": "30 s", "crash": "erp/2", "for": "20 s"}])
    shares = run.shares["erp"]
    assert shares.agents[1] == "erp/2 zone-b"
    assert shares.from_s == pytest.approx(10, abs=2)
    assert sum(map(sum, shares.counts)) == pytest.approx(run.figures["orders.arrived"], rel=0.06)
    down = [number for number, is_up in enumerate(shares.up[1]) if not is_up]
    seconds = [shares.from_s + number * shares.width_s for number in down]
    assert min(seconds) == pytest.approx(30, abs=2 * shares.width_s)
    assert max(seconds) == pytest.approx(50, abs=2 * shares.width_s)
    assert sum(shares.counts[1][number] for number in down[1:-1]) == 0
