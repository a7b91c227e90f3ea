from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jsonschema
import pytest

from bench.simulation import CASES, FIDELITIES, RATE_PER_S, SERVERS, SERVICE_S, by_ciw, by_mesh, by_simpy, measure
from simulator.erlang import erlang_c
from tests.meta.check import ROOT
from tests.meta.schemas import schema


@pytest.mark.parametrize("play", [by_simpy, by_ciw, partial(by_mesh, "steady", "exact")])
def test_simulators_play_the_same_queue(play: Callable[[int, int], tuple[int, float]]) -> None:
    jobs, mean_s = play(4_000, 1)

    truth_s = SERVICE_S + erlang_c(SERVERS, RATE_PER_S * SERVICE_S) / (SERVERS / SERVICE_S - RATE_PER_S)
    assert jobs == pytest.approx(4_000, rel=0.05)
    assert mean_s == pytest.approx(truth_s, rel=0.1)


def test_measuring_gives_a_row_for_each_case_and_fidelity_as_the_schema_says() -> None:
    seen: dict[str, Any] = measure(jobs=200, rounds=2, queued=500)

    jsonschema.Draft202012Validator(
        schema("bench")["properties"]["simulation"] | {"$defs": schema("bench")["$defs"]}
    ).validate(seen)
    assert [(row["case"], row["fidelity"]) for row in seen["mesh"]] == [
        (case, fidelity) for case in CASES for fidelity in FIDELITIES
    ]
    assert not any(row["compiled"] for row in seen["mesh"])
    assert all(row["jobs_per_s"]["value"] > 0 and row["ratio_to_ciw"]["value"] > 0 for row in seen["mesh"])
    assert 0 < seen["memory"]["bytes_per_queued_job"] < 1_000


def test_our_tests_are_the_ones_that_are_found_beside_those_that_ciw_installs() -> None:
    program = "import ciw, tests; print(tests.__path__[0])"
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    )

    assert found.stdout.strip() == str(ROOT / "tests")
