"""Queues, placement and evenness: cases `Q`, `P` and `E` of the truth table as scenarios.

A case is recognised by its name, and its numbers are read out of its set-up, so that further cases of the same kind
need no code. Lengths follow the relaxation time of the queue: the emptier start is left out, and a replication is long
enough that its mean is nearly normal.
"""

import re
from collections.abc import Callable
from math import sqrt
from typing import Final

from simulator.trial import (
    GROUP,
    WORK,
    Estimate,
    Mean,
    NotExpressedError,
    Quantile,
    RootMeanSquare,
    Tree,
    Trial,
    arrivals,
    exponential,
    scenario_of,
)

_NUMBER: Final = r"([0-9]*\.?[0-9]+)"
WINDOW: Final = 1_000_000
"""Jobs that an agent takes beyond its slots where every agent has a queue of its own."""
JOBS: Final = 8_000
"""Jobs of a replication."""

LATENCIES: Final[dict[str, Estimate]] = {
    "wait_mean": Mean(f"{WORK}.wait.mean"),
    "sojourn_mean": Mean(f"{WORK}.latency.mean"),
    "sojourn_p50": Mean(f"{WORK}.latency.p50"),
    "sojourn_p95": Quantile(f"{WORK}.latency.p95", 0.05),
    "sojourn_p99": Quantile(f"{WORK}.latency.p99", 0.01),
    "utilisation": Mean(f"{GROUP}.utilisation"),
    "throughput": Mean(f"{WORK}.throughput"),
}


def number(pattern: str, text: str, default: float | None = None) -> float:
    """The number that a pattern (with `#` where it stands) finds in a set-up.

    Raises:
        NotExpressedError: it is not there, and there is no default.
    """
    found = re.search(pattern.replace("#", _NUMBER), text)
    if found:
        return float(found[found.lastindex or 1])
    if default is None:
        raise NotExpressedError(f"no number like `{pattern}` in `{text}`")
    return default


def slots_of(text: str) -> Tree:
    """`10 agents x 4 slots`, or `10 slots` as agents of one."""
    agents = number(r"# agents? x", text, 0)
    slots = number(r"# slots?", text)
    return {"count": int(agents or slots), "slots": int(slots) if agents else 1}


def _relaxation_s(load: float, mean_s: float) -> float:
    """How long a queue at this load remembers, roughly: that of M/M/1 (Cohen 1982)."""
    return mean_s / max(1e-3, (1 - sqrt(min(load, 0.99))) ** 2)


def _open(name: str, text: str, duration: Tree | str, mean_s: float, **work: object) -> Tree:
    """Poisson arrivals at a central queue."""
    rate, agents = number(r"lam=#", text), slots_of(text)
    servers = agents["count"] * agents["slots"]
    relaxation_s = _relaxation_s(rate * mean_s / servers, mean_s / servers)
    # Before one server long sojourns come in clusters: a percentile needs many of them, or it is too small.
    run_s = max(JOBS / rate, (15 if servers > 1 else 300) * relaxation_s)
    settle_s = max(10 * mean_s, 6 * relaxation_s)
    tree: Tree = {"arrivals": arrivals(rate), "duration": duration, **work}
    return scenario_of(name, agents=agents, work=tree, run_s=run_s, settle_s=settle_s)


def _central(name: str, text: str) -> Trial:
    mean_s = number(r"mean #", text, 1.0)
    figures = {**LATENCIES, "p_wait": Mean(f"{WORK}.wait.share"), "queue_mean": Mean("backlog.mean")}
    return Trial(_open(name, text, exponential(mean_s), mean_s), figures, uses_controls=True)


def _bounded(name: str, text: str) -> Trial:
    scenario = _open(name, text, exponential(1.0), 1.0)
    scenario["groups"][GROUP]["queue"]["limit"] = int(number(r"# in system", text))
    return Trial(scenario, {**LATENCIES, "reject": Mean(f"{WORK}.refused.share")}, uses_controls=True)


def _impatient(name: str, text: str) -> Trial:
    patience = exponential(number(r"TTL exp mean # s", text))
    scenario = _open(name, text, exponential(1.0), 1.0, **{"start-within": patience})
    figures: dict[str, Estimate] = {
        **LATENCIES,
        "expired": Mean(f"{WORK}.expired.share"),
        "queue_mean": Mean("backlog.mean"),
        "p_wait": Mean(f"{WORK}.wait.share"),
    }
    return Trial(scenario, figures, uses_controls=True)


def _lognormal(name: str, text: str) -> Trial:
    law = {"lognormal": {"mean": f"{number(r'mean #', text, 1.0)!r} s", "scv": number(r"SCV #", text)}}
    return Trial(_open(name, text, law, number(r"mean #", text, 1.0)), LATENCIES, uses_controls=True)


def _constant(name: str, text: str) -> Trial:
    mean_s = number(r"D=#", text)
    return Trial(_open(name, text, f"{mean_s!r} s", mean_s), LATENCIES, uses_controls=True)


def _hyperexponential(name: str, text: str) -> Trial:
    law = {"hyperexponential": {"mean": "1.0 s", "scv": number(r"SCV #", text)}}
    return Trial(_open(name, text, law, 1.0), LATENCIES, uses_controls=True)


def _priorities(name: str, text: str) -> Trial:
    found = re.search(rf"lam=\({_NUMBER}(?:, *{_NUMBER})+\)", text)
    if found is None:
        raise NotExpressedError(f"no rates like `lam=(1,3)` in `{text}`")
    rates = [float(one) for one in re.findall(_NUMBER, found[0])]
    levels = [f"level-{level}" for level in range(1, len(rates) + 1)]
    agents = slots_of(text)
    relaxation_s = _relaxation_s(sum(rates) / agents["count"], 1 / agents["count"])
    scenario = scenario_of(
        name,
        agents=agents,
        work=None,
        run_s=max(JOBS / sum(rates), 25 * relaxation_s),
        settle_s=10 + 8 * relaxation_s,
    )
    scenario["work"] = {
        level: {"group": GROUP, "arrivals": arrivals(rate), "duration": exponential(1.0), "level": place}
        for place, (level, rate) in enumerate(zip(levels, rates, strict=True), 1)
    }
    figures: dict[str, Estimate] = {
        f"wait_mean_by_priority[{place}]": Mean(f"{level}.wait.mean") for place, level in enumerate(levels)
    }
    return Trial(scenario, figures, uses_controls=True)


def _batches(name: str, text: str) -> Trial:
    size, rate, agents = int(number(r"batches of #", text)), number(r"at #/s", text), slots_of(text)
    servers = agents["count"] * agents["slots"]
    relaxation_s = _relaxation_s(rate * size / servers, size / servers / 2)
    work = {"arrivals": {"batch": {"rate": f"{rate!r}/s", "size": size}}, "duration": exponential(1.0)}
    run_s = max(JOBS / (rate * size), 15 * relaxation_s)
    scenario = scenario_of(name, agents=agents, work=work, run_s=run_s, settle_s=10 + 8 * relaxation_s)
    return Trial(scenario, LATENCIES, uses_controls=True)


def _bursty(name: str, text: str) -> Trial:
    rates = [number(r"rates # and", text), number(r"rates [\d.]+ and #", text)]
    dwell = [number(r"dwell # s", text), number(r"dwell [\d.]+ s and # s", text)]
    arriving = {"bursty": {"rates": [f"{rate!r}/s" for rate in rates], "dwell": [f"{one!r} s" for one in dwell]}}
    work = {"arrivals": arriving, "duration": exponential(1.0)}
    scenario = scenario_of(name, agents=slots_of(text), work=work, run_s=240 * sum(dwell), settle_s=20 * sum(dwell))
    return Trial(scenario, {**LATENCIES, "rate_mean": Mean(f"{WORK}.rate")}, uses_controls=True, at_most=2_000)


def _closed(name: str, text: str) -> Trial:
    think = exponential(number(r"think # s", text))
    work = {"arrivals": {"closed": {"clients": int(number(r"# clients", text)), "think": think}}}
    scenario = scenario_of(
        name, agents=slots_of(text), work={**work, "duration": exponential(1.0)}, run_s=5_000, settle_s=200
    )
    return Trial(scenario, LATENCIES, uses_controls=True)


def _fast_and_slow(name: str, text: str) -> Trial:
    rate, fast, slow = number(r"lam=#", text), number(r"rates # and", text), number(r"rates [\d.]+ and #", text)
    agents = [{"count": 1, "slots": 1, "speed": speed, "rank": rank} for rank, speed in enumerate((fast, slow))]
    relaxation_s = _relaxation_s(rate / (fast + slow), 1 / (fast + slow))
    work = {"arrivals": arrivals(rate), "duration": exponential(1.0)}
    scenario = scenario_of(
        name,
        agents={},
        work=work,
        run_s=max(JOBS / rate, 25 * relaxation_s),
        settle_s=8 * relaxation_s,
        group={"agents": agents, "spread": "spill"},
    )
    figures: dict[str, Estimate] = {
        **LATENCIES,
        "util_fast": Mean(f"{GROUP}.1.utilisation"),
        "util_slow": Mean(f"{GROUP}.2.utilisation"),
    }
    return Trial(scenario, figures, uses_controls=True)


def _private(policy: str) -> Callable[[str, str], Trial]:
    """Jobs are pushed at once to the queue of one agent, chosen by `policy`."""

    def trial(name: str, text: str) -> Trial:
        agents, load = int(number(r"N=#", text, 1_000)), number(r"load #", text)
        choices = int(number(r"d=#", text, 2))
        chosen = f"power-of-{choices}" if policy == "power-of-d" else policy
        if policy == "power-of-d" and choices == 1:
            chosen = "random"
        # A queue of one's own forgets as slowly as M/M/1 does; where the shorter of a few is chosen it forgets soon.
        settle_s = 6 / (1 - load) if chosen.startswith("power") else 5 * _relaxation_s(load, 1.0)
        longest_s = {"power-of-d": 60.0, "random": settle_s}.get(policy, 3 * settle_s)
        run_s = max(JOBS / (agents * load), longest_s)
        pool = {"count": agents, "slots": 1, "prefetch": WINDOW}
        work = {"arrivals": arrivals(agents * load), "duration": exponential(1.0)}
        scenario = scenario_of(name, agents=pool, work=work, run_s=run_s, settle_s=settle_s, group={"policy": chosen})
        return Trial(scenario, LATENCIES, uses_controls=True, at_least=6 if agents >= 100 else 10)

    return trial


def _diurnal(name: str, text: str) -> Trial:
    period_s = 3600 * number(r"# h period", text)
    mean_s = number(r"exp # s", text)
    swing = number(r"\+-#%", text) / 100
    shape = {
        "mean": f"{number('#/s', text)!r}/s",
        "swing": swing,
        "period": f"{period_s!r} s",
        "peak-at": f"{period_s / 4!r} s",
    }
    agents = {"count": 100, "slots": int(number(r"# slots", text)) // 100}
    work = {"arrivals": {"diurnal": shape}, "duration": exponential(mean_s)}
    # A ninth of the period to settle, so that the points of the timeline fall evenly into the window.
    scenario = scenario_of(name, agents=agents, work=work, run_s=period_s, settle_s=period_s / 9)
    figures: dict[str, Estimate] = {
        "busy_mean": Mean("day.mean"),
        "busy_peak": Mean("day.peak"),
        "lag_s": Mean("day.lag"),
    }
    return Trial(scenario, figures, uses_controls=True, at_least=6)


def _even(policy: str) -> Callable[[str, str], Trial]:
    """So many jobs, one after the other, at idle agents: who got how many."""

    def trial(name: str, text: str) -> Trial:
        jobs, agents = int(number(r"# jobs", text)), int(number(r"over # ", text))
        # One job at a time. To be even in turn, agents are idle: each job is done in a millisecond. By chance it does
        # not matter how many an agent has, so that none is ever done, which is less to simulate.
        is_idle = policy == "round-robin"
        work = {"arrivals": {"even": "1.0/s"}, "duration": "1 ms" if is_idle else "1 d"}
        scenario = scenario_of(
            name,
            agents={"count": agents, "slots": 1 if is_idle else jobs},
            work=work,
            run_s=jobs + 0.5,
            finish_s=1.0,
            group={"policy": policy},
        )
        figures: dict[str, Estimate] = {
            "sd": RootMeanSquare(f"{GROUP}.evenness.sd"),
            "max_minus_min": Mean(f"{GROUP}.evenness.spread"),
        }
        return Trial(scenario, figures, uses_controls=policy == "random", at_most=4_000, at_first=10)

    return trial


KINDS: Final[tuple[tuple[str, Callable[[str, str], Trial]], ...]] = (
    (r"bounded queue", _bounded),
    (r"Erlang A|deadline while queued", _impatient),
    (r"lognormal", _lognormal),
    (r"constant service|M/D/", _constant),
    (r"hyperexponential", _hyperexponential),
    (r"priorities, non-preemptive", _priorities),
    (r"batch arrivals", _batches),
    (r"MMPP", _bursty),
    (r"diurnal", _diurnal),
    (r"closed clients", _closed),
    (r"fastest-first", _fast_and_slow),
    (r"round robin push", _private("round-robin")),
    (r"random push", _private("random")),
    (r"join shortest queue", _private("least-loaded")),
    (r"power of", _private("power-of-d")),
    (r"evenness, random", _even("random")),
    (r"evenness, round robin", _even("round-robin")),
    (r"M/M/", _central),
)
"""Names of cases, and what makes their trial; the first that is found counts."""
