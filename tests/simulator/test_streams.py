"""Random numbers: independent streams, laws with the moments that they say."""

from itertools import islice
from typing import Any

import numpy as np
import pytest

from simulator.laws import Law
from simulator.streams import Stream, Streams, Uniform, mean_s

LAWS: list[tuple[dict[str, Any], float, float | None]] = [
    ({"constant": "2 s"}, 2.0, 0.0),
    ({"exponential": "2 s"}, 2.0, 1.0),
    ({"lognormal": {"mean": "2 s", "scv": 0.5}}, 2.0, 0.5),
    ({"hyperexponential": {"mean": "2 s", "scv": 4}}, 2.0, 4.0),
    ({"pareto": {"mean": "2 s", "shape": 4}}, 2.0, 1 / 8),
    ({"uniform": {"least": "1 s", "most": "3 s"}}, 2.0, 1 / 12),
    ({"empirical": {"quantiles": ["0 s", "1 s", "5 s"]}}, 1.75, None),
]


@pytest.mark.parametrize(("law", "mean", "scv"), LAWS)
def test_law_has_the_moments_that_it_says(law: dict[str, Any], mean: float, scv: float | None) -> None:
    drawn = Streams(3, 0).times_us(Law.model_validate(law), Stream.DURATIONS, 1)
    values = np.array(list(islice(drawn, 200_000))) / 1e6
    assert values.mean() == pytest.approx(mean, rel=0.02)
    assert mean_s(Law.model_validate(law)) == pytest.approx(mean)
    if scv is not None:
        assert values.var() / mean**2 == pytest.approx(scv, rel=0.15, abs=1e-9)


def test_lognormal_has_the_quantiles_that_it_says() -> None:
    law = Law.model_validate({"lognormal": {"p50": "3 ms", "p99": "25 ms"}})
    values = np.array(list(islice(Streams(1, 0).times_us(law, Stream.NETWORK, 1), 100_000))) / 1e6
    assert np.quantile(values, [0.5, 0.99]) == pytest.approx([0.003, 0.025], rel=0.05)


def test_streams_are_the_same_for_the_same_name_and_independent_for_others() -> None:
    def numbers(seed: int, replication: int, stream: Stream, entity: int) -> list[float]:
        return list(islice(Streams(seed, replication).uniform(stream, entity), 5_000))

    base = numbers(1, 0, Stream.ARRIVALS, 1)
    assert numbers(1, 0, Stream.ARRIVALS, 1) == base
    for other in (
        numbers(2, 0, Stream.ARRIVALS, 1),
        numbers(1, 1, Stream.ARRIVALS, 1),
        numbers(1, 0, Stream.DURATIONS, 1),
        numbers(1, 0, Stream.ARRIVALS, 2),
    ):
        assert abs(np.corrcoef(base, other)[0, 1]) < 0.06


def test_uniform_gives_one_number_after_the_other() -> None:
    assert [Uniform(iter([0.25, 0.5])).random()] == [0.25]
