from __future__ import annotations

from pathlib import Path

from bench.history import figures, measure


async def test_measurement_of_a_small_history_has_all_its_figures(tmp_path: Path) -> None:
    measured = await measure(tmp_path, jobs=2_000, commits=5)

    questions = measured["questions_idle"]
    assert questions.keys() == measured["questions_beside_commits"].keys()
    assert all(one["n"] for one in questions.values())
    for name in ("commits_alone", "commits_beside_reader", "commits_beside_retention", "commits_alone_again"):
        assert measured[name]["commits"]["n"] == 5
    # What retention freed is used again before the file grows.
    full, after, later = (measured["file"][name] for name in ("full", "after_retention", "after_more_jobs"))
    assert full["bytes"] == after["bytes"] == later["bytes"]
    assert after["free_bytes"] > later["free_bytes"]


def test_figures_are_in_milliseconds() -> None:
    assert figures([0.001] * 99 + [0.5]) == {"n": 100, "p50_ms": 1.0, "p99_ms": 500.0, "max_ms": 500.0}
