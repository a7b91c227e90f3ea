from __future__ import annotations

from io import StringIO
from typing import Any

from rich.console import Console

from bench.figures import figure
from bench.table import show

RESULTS: dict[str, Any] = {
    "calibration": {"loop_ns": figure([25.0, 26.0], "ns")},
    "dispatch": [
        {"agents": 1_000, "queued": 0, "rounds": 2, "us_per_job": {"median": 12.5, "min": 12.0, "max": 13.0}},
    ],
    "steps": [
        {"case": "deadlines", "size": 1_000_000, "calls": 3_673, "longest_ms": 9.56, "in": "TimerFired"},
    ],
    "end_to_end": {
        "jobs": 30_000,
        "synchronous": "FULL",
        "jobs_per_s": figure([15_000.0], "1/s", 0),
        "fsyncs": figure([], "1"),
        "cpu_us_per_job": {"broker": figure([55.5], "us")},
    },
    "open_loop": [
        {
            "rate": 500.0,
            "achieved": figure([499.5], "1/s"),
            "p50_ms": figure([4.5], "ms"),
            "p99_ms": figure([9.5], "ms"),
            "p999_ms": figure([19.5], "ms"),
            "jain": figure([0.99995], "1", 6),
            "max_minus_min": figure([3], "1", 0),
        }
    ],
    "memory": {"bytes_per_queued_job": 784.4, "n": 100_000},
    "simulation": {
        "peers": [{"name": "simpy", "jobs_per_s": figure([100_500.0], "1/s", 0)}],
        "mesh": [
            {
                "case": "steady",
                "fidelity": "broker",
                "jobs_per_s": figure([20_100.0], "1/s", 0),
                "us_per_job": figure([49.75], "us", 2),
                "ratio_to_simpy": figure([0.25], "1"),
                "ratio_to_ciw": figure([0.375], "1"),
            }
        ],
        "memory": {"bytes_per_queued_job": 288.4, "n": 30_000},
    },
    "commands": {
        "mesh_help_s": figure([0.21], "s"),
        "mesh_agent_help_s": figure([0.19], "s"),
        "mesh_sim_help_s": figure([0.41], "s"),
        "demo": {"elapsed_s": figure([9.35], "s"), "ok": True},
    },
    "failover": {
        "accepted_p50_ms": figure([1_006.8], "ms"),
        "accepted_p99_ms": figure([1_007.7], "ms"),
        "unaccepted_p99_ms": figure([7.407], "ms"),
        "accepted_moved": 3,
        "unaccepted_moved": 9,
        "violations": [],
    },
    "solve": {
        "equal": {"agents": figure([18], "1", 0), "seconds": figure([51.6], "s", 1)},
        "any": {"agents": figure([17], "1", 0), "seconds": figure([], "s", 1)},
        "report_bytes": figure([1_234_567], "B", 0),
    },
}


def shown(results: dict[str, Any]) -> str:
    """As a person sees it, with one space between words."""
    out = StringIO()
    show(Console(file=out, width=120, highlight=False), results)
    return " ".join(out.getvalue().replace("│", "|").split())


def test_table_shows_every_figure_with_its_unit_and_says_what_was_not_measured() -> None:
    out = shown(RESULTS)

    for words in (
        "12.5",
        "15,000.0 1/s",
        "55.5 us",
        "9.56 ms",
        "4.5 ms",
        "784 bytes",
        "M/M/20 in simpy",
        "100,500.0 1/s",
        "20,100.0 1/s",
        "49.75 us",
        "0.375",
        "288 bytes",
        "25.5 ns (spread 1.0)",
        "not measured",
    ):
        assert words in out


def test_table_shows_each_target_beside_what_was_reached() -> None:
    out = shown(RESULTS)

    for row in (
        "| jobs per s | 15,000.0 1/s | >= 15,000 1/s |",
        "| mesh --help | 0.21 s | < 0.3 s |",
        "| mesh-agent --help | 0.19 s | |",
        "| mesh-sim --help | 0.41 s | < 0.5 s |",
        "| demo | 9.35 s | < 60 s |",
        "| failover, accepted p99 ms | 1,007.7 ms | <= grace + 0.5 s |",
        "| failover, unaccepted p99 ms | 7.407 ms | <= 100 ms |",
        "| solve, zones equal: agents | 18 | 18 |",
        "| solve, zones equal: time | 51.6 s | <= 60 s |",
        "| solve, zones any: agents | 17 | 17 |",
        "| solve, zones any: time | not measured | <= 60 s |",
        "| report of a simulation | 1,234,567 B | <= 3 MB |",
        "0.375 | >= 40,000 1/s |",
        "asked <= 300 B",
    ):
        assert row in out


def test_table_says_so_when_the_demo_failed_and_when_failover_broke_a_promise() -> None:
    demo = {"elapsed_s": figure([9.35], "s"), "ok": False}
    failover = {**RESULTS["failover"], "violations": ["a job was lost"]}

    out = shown(RESULTS | {"commands": RESULTS["commands"] | {"demo": demo}, "failover": failover})

    assert "9.35 s, NOT ok" in out
    assert "failover, VIOLATED | a job was lost" in out
