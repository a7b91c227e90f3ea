"""Faults and fleet sizes: cases `F` and `S` of the truth table as scenarios. See `simulator.queue_trials`."""

import re
from collections.abc import Callable, Sequence
from typing import Final

from simulator.queue_trials import JOBS, number, slots_of
from simulator.trial import (
    GROUP,
    WORK,
    Estimate,
    ExplainedDeviation,
    InverseMean,
    Mean,
    NotExpressedError,
    Sizing,
    Tree,
    Trial,
    arrivals,
    exponential,
    scenario_of,
)

NETWORK: Final[Tree] = {"same-zone": "0.0 s", "other-zone": "0.0 s"}


def _crash(mttf_s: float, mttr_s: float, **rest: object) -> Tree:
    return {"random": "crash", "mttf": f"{mttf_s!r} s", "mttr": f"{mttr_s!r} s", **rest}


def _crashing(name: str, text: str) -> Trial:
    rate, slots = number(r"lam=#", text), slots_of(text)
    crash = _crash(number(r"MTTF # s", text), number(r"MTTR # s", text))
    work: Tree = {"arrivals": arrivals(rate), "duration": exponential(1.0), "crashes": 1_000, "bounces": 1_000}
    work["redraw"] = True  # the chain of the truth is memoryless: what begins again takes another time
    scenario = scenario_of(name, agents=slots, work=work, run_s=5_000, settle_s=500, faults=[crash])
    figures: dict[str, Estimate] = {
        "sojourn_mean": Mean(f"{WORK}.latency.mean"),
        "wait_mean": Mean(f"{WORK}.latency.mean", shift=-1.0),
        "agents_up_mean": Mean(f"{GROUP}.up.mean"),
    }
    return Trial(scenario, figures, uses_controls=True, at_most=2_000)


def _available(name: str, text: str) -> Trial:
    need, count = int(number(r"#-of-", text)), int(number(r"-of-#", text))
    # In units of the table, hours or seconds: nothing else in these scenarios has a time.
    mttf_s, mttr_s = number(r"MTTF #", text), number(r"MTTR #", text)
    crew = {"crews": 1} if "one repair crew" in text else {}
    scenario = scenario_of(
        name,
        agents={"count": count, "slots": 1},
        work=None,
        run_s=2_000 * mttf_s,
        settle_s=5 * mttf_s,
        group={"need": need},
        faults=[_crash(mttf_s, mttr_s, **crew)],
    )
    figures: dict[str, Estimate] = {
        "availability": Mean(f"{GROUP}.availability"),
        "mean_up": InverseMean(f"{GROUP}.availability.up"),
        "mean_down": Mean(f"{GROUP}.availability.down"),
    }
    return Trial(scenario, figures, at_least=20, at_most=4_000)


def _restarting(name: str, text: str) -> Trial:
    """One client, one agent: the next job comes when the one before is done, and waits for nobody else."""
    duration_s, mttf_s, back_s = number(r"S=# s", text), number(r"MTTF # s", text), number(r"back after # s", text)
    crash = _crash(mttf_s, back_s) | {"mttr": {"constant": f"{back_s!r} s"}}
    work = {
        "arrivals": {"closed": {"clients": 1, "think": {"constant": "1 ms"}}},
        "duration": f"{duration_s!r} s",
        "crashes": 1_000,
        "bounces": 1_000,
    }
    run_s = 2_000 * (duration_s + mttf_s)
    scenario = scenario_of(name, agents={"count": 1, "slots": 1}, work=work, run_s=run_s, faults=[crash])
    figures: dict[str, Estimate] = {
        "completion_mean_s": Mean(f"{WORK}.latency.mean"),
        "attempts_mean": Mean(f"{WORK}.attempts.mean"),
        "p_more_than_3_attempts": Mean(f"{WORK}.attempts.over3"),
    }
    return Trial(scenario, figures, uses_controls=True)


def _outage(name: str, text: str) -> Trial:
    rate, outage_s, capacity = number(r"lam=#", text), number(r"outage # s", text), number(r"capacity #", text)
    agents = int(capacity)
    work = {"arrivals": arrivals(rate), "duration": exponential(1.0), "crashes": 1_000, "bounces": 1_000}
    fault = {"at": "60.0 s", "crash": GROUP, "for": f"{outage_s!r} s"}
    run_s = 60 + outage_s + 1.1 * rate * outage_s / (capacity - rate)
    scenario = scenario_of(name, agents={"count": agents, "slots": 1}, work=work, run_s=run_s, faults=[fault])
    figures: dict[str, Estimate] = {
        "peak_backlog_mean": Mean("backlog.peak"),
        "drain_mean_s": Mean("backlog.drain"),
        "drain_sd_s": ExplainedDeviation("backlog.drain"),
    }
    return Trial(scenario, figures, uses_controls=True, at_least=6)


def _detection(name: str, text: str) -> Trial:
    beat_s, timeout_s = number(r"beat every # s", text), number(r"timeout # s", text)
    # Up for a few beats, any share of one with the same chance, so that the time since the last one is even; back long
    # after the timeout: an agent that is back earlier is found out by its return.
    lasts = {"least": f"{4 * beat_s!r} s", "most": f"{9 * beat_s!r} s"}
    crash = {
        "random": "crash",
        "mttf": {"uniform": lasts},
        "mttr": {"constant": f"{2 * timeout_s!r} s"},
        "silent": True,
    }
    work = {
        "arrivals": {"closed": {"clients": 60, "think": {"constant": "1 s"}}},
        "duration": f"{20 * timeout_s!r} s",
        "crashes": 1_000,
        "bounces": 1_000,
    }
    scenario = scenario_of(
        name,
        agents={"count": 40, "slots": 1},
        work=work,
        run_s=60 * timeout_s,
        finish_s=1.0,
        faults=[crash],
        broker=_liveness(beat_s, timeout_s),
        network=NETWORK,
    )
    figures: dict[str, Estimate] = {
        "mean_s": Mean("failover.decide.mean"),
        "p95_s": Mean("failover.decide.p95"),
        "max_s": Mean("failover.decide.max"),
    }
    return Trial(scenario, figures)


def _zones(name: str, text: str) -> Sequence[Trial]:
    """Once with the zones' own faults, once without. Availabilities as they are, repairs a hundred times as fast."""
    found = re.search(r"(\d+) x (\d+) agents, need (\d+)", text)
    if found is None:
        raise NotExpressedError(f"no zones like `3 x 4 agents, need 8` in `{text}`")
    zones, each, need = (int(one) for one in found.groups())
    up, whole = number(r"A=#/", text), number(r"A=[\d.]+/#", text)
    zone = number(r"zone A=#", text)
    places = [f"zone-{letter}" for letter in "abcdefghijkl"[:zones]]
    agent_fault = _crash(up, whole - up)
    zone_fault = {
        "random": "zone-down",
        "agents": places,
        "mttf": f"{(whole - up) * zone / (1 - zone)!r} s",
        "mttr": f"{whole - up!r} s",
    }

    def trial(figure: str, faults: list[Tree]) -> Trial:
        agents = {"count": zones * each, "slots": 1, "spread": places}
        scenario = scenario_of(
            name, agents=agents, work=None, run_s=500 * whole, settle_s=5 * whole, group={"need": need}, faults=faults
        )
        return Trial(scenario, {figure: Mean(f"{GROUP}.availability")}, uses_controls=True, at_most=10_000)

    return trial("availability", [agent_fault, zone_fault]), trial("without_zone_faults", [agent_fault])


def _upgrade(name: str, text: str) -> Trial:
    count, slots = int(number(r"# agents x", text)), int(number(r"agents x # slots", text))
    batch, each_s = int(number(r"# at a time", text)), number(r"# s each", text)
    rate, mean_s = number(r"lam=#", text), number(r"# s jobs", text)
    duration_s = count / batch * each_s
    spare = count * slots / mean_s - rate
    growth = rate - (count - batch) * slots / mean_s
    run_s = 60 + duration_s + 1.5 * max(0.0, growth) * duration_s / spare
    scenario = scenario_of(
        name,
        agents={"count": count, "slots": slots},
        work={"arrivals": arrivals(rate), "duration": exponential(mean_s)},
        run_s=run_s,
        group={"need": count},
        faults=[{"at": "60.0 s", "rolling-upgrade": GROUP, "batch": batch, "each": f"{each_s!r} s"}],
    )
    figures: dict[str, Estimate] = {
        # All agents are needed, so the group counts as available exactly when nobody is being upgraded.
        "duration_s": Mean(f"{GROUP}.availability", shift=-1.0, factor=-run_s),
        "backlog_end": Mean("backlog.peak"),
        "drain_s": Mean("backlog.drain"),
    }
    return Trial(scenario, figures, uses_controls=True, at_least=6, at_most=1_000)


def _false_drop(name: str, text: str) -> Trial:
    loss, beat_s = number(r"#% iid loss", text) / 100, number(r"# s beat", text)
    misses = int(number(r"after # misses", text))
    # Between the last beat that may be missed and the first that would be one too many.
    timeout_s = (misses + 0.5) * beat_s
    scenario = scenario_of(
        name,
        agents={"count": 1, "slots": 1},
        work=None,
        run_s=20 * beat_s / loss**misses,
        faults=[{"heartbeat-loss": loss}],
        broker=_liveness(beat_s, timeout_s),
        network=NETWORK,
    )
    figures: dict[str, Estimate] = {"mean_s_to_false_drop": InverseMean(f"{GROUP}.availability.up")}
    return Trial(scenario, figures, uses_controls=True, at_most=4_000)


def _liveness(beat_s: float, timeout_s: float) -> Tree:
    return {
        "fidelity": "network",
        "heartbeat": f"{beat_s!r} s",
        "idle-heartbeat": f"{beat_s!r} s",
        "suspect": f"{timeout_s!r} s",
        "lease": f"{timeout_s!r} s",
    }


def _herd(name: str, text: str) -> Trial:
    refuses_s = number(r"refuses for # s", text)
    scenario = scenario_of(
        name,
        agents={"count": 500, "slots": 1, "backoff": "grpc" if "gRPC" in text else "mesh"},
        work=None,
        run_s=2 * refuses_s + 60,
        finish_s=1.0,
        faults=[{"at": "30.0 s", "reconnect-herd": "all", "for": f"{refuses_s!r} s"}],
        broker=_liveness(refuses_s, 4 * refuses_s),
        network=NETWORK,
    )
    figures: dict[str, Estimate] = {
        f"reconnect_{figure}_s": Mean(f"reconnect.{figure}") for figure in ("mean", "p50", "p95")
    }
    return Trial(scenario, figures)


def _poisoned(name: str, text: str) -> Trial:
    agents, down_s = int(number(r"# agents", text)), number(r"agent for # s", text)
    rate, tries = number(r"#/h", text), int(number(r"max # attempts", text))
    # A crash counts as such when the start was heard of, else as a bounce: `max attempts` bounds both.
    work = {"arrivals": {"even": "0.01/s"}, "duration": "1 ms", "crashes": tries, "bounces": tries}
    poison = {"at": 0, "poison": WORK, "rate": f"{rate!r}/h", "repair": f"{down_s!r} s"}
    scenario = scenario_of(name, agents={"count": agents, "slots": 1}, work=work, run_s=180_000, faults=[poison])
    lost = Mean(f"{GROUP}.up.mean", shift=-float(agents), factor=-1.0 / agents)
    return Trial(scenario, {"capacity_lost": lost})


def _sized(name: str, text: str) -> Sizing:
    rate, mean_s, slots = number(r"(?:^|[ ;])#/s", text), number(r"exp # s", text), int(number(r"# slots", text))
    limit_s = number(r"p99 *< *# s", text)
    zones = int(number(r"of # equal zones|# zones", text.replace("one of ", "of "), 3))
    places = [f"zone-{letter}" for letter in "abcdefghijkl"[:zones]]
    scenario = scenario_of(
        name,
        agents={"count": zones, "slots": slots, "spread": places},
        work={"arrivals": arrivals(rate), "duration": exponential(mean_s)},
        run_s=JOBS / 2 / rate,
        settle_s=20,
        faults=[{"at": 0, "zone-down": places[0], "for": "1 h"}],
        objectives=[f"{WORK}.latency.p99 < {limit_s!r} s"],
    )
    figures = {
        f"{spread}.{what}": (spread == "equal_zones", what)
        for spread in ("equal_zones", "any_spread")
        for what in ("agents", "agents_left")
    }
    return Sizing(scenario, zones, figures)


KINDS: Final[tuple[tuple[str, Callable[[str, str], Trial | Sizing | Sequence[Trial]]], ...]] = (
    (r"agents crash and return", _crashing),
    (r"availability \d+-of-\d+", _available),
    (r"restarts from zero", _restarting),
    (r"total outage", _outage),
    (r"crash detection", _detection),
    (r"zones: \d+ x \d+ agents", _zones),
    (r"rolling upgrade", _upgrade),
    (r"heartbeat loss", _false_drop),
    (r"reconnect herd", _herd),
    (r"poison job", _poisoned),
    (r"sizing", _sized),
)
"""Names of cases, and what makes their trial."""
