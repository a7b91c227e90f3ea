from __future__ import annotations

from typing import Any

import pytest

from bench.steps import ATTEMPTS, CASES, measure


@pytest.mark.parametrize("case", CASES)
def test_case_works_all_that_falls_due_in_slices(case: str) -> None:
    row: dict[str, Any] = measure(case, 4 * ATTEMPTS)

    assert (row["case"], row["size"]) == (case, 4 * ATTEMPTS)
    assert row["longest_ms"] > 0
    assert row["in"]
    assert row["calls"] > 2
