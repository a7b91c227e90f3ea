from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.observe.distribution import MICRO, Distribution
from broker.series import Series, SeriesType

SECONDS = Series("seconds", SeriesType.HISTOGRAM, "", (), (0.001, 0.01, 1.0))
VALUES = st.lists(st.integers(0, 2 * MICRO) | st.sampled_from([1_000, 10_000, MICRO]))


def test_values_are_told_in_the_unit_of_the_series() -> None:
    found = Distribution(SECONDS, MICRO)
    found.add(1_000)
    found.add(1_001)
    found.add_all([5_000_000])
    assert found.buckets() == [("0.001", 1.0), ("0.01", 2.0), ("1.0", 2.0), ("+Inf", 3.0)]
    assert (found.count, found.total) == (3, 5.002001)


@given(st.lists(VALUES, max_size=4))
def test_batches_are_counted_as_if_each_value_came_alone(batches: list[list[int]]) -> None:
    together, alone = Distribution(SECONDS, MICRO), Distribution(SECONDS, MICRO)
    for batch in batches:
        for value in batch:
            alone.add(value)
        together.add_all(list(batch))
    assert together.buckets() == alone.buckets()
    assert (together.count, together.total) == (alone.count, alone.total)
