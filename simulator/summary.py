"""From what was recorded to the figures of a run, under the names that objectives use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simulator.histogram import Histogram
from simulator.levels import Level
from simulator.recorder import QUANTILES, FleetLog, Phase, Recorder, Run, WorkLog
from simulator.scenario import Scenario
from simulator.streams import SECOND_US
from simulator.workload import Workload

AGENT_FIGURES_MAX = 16
"""Groups of more agents have no figures for each of them."""


@dataclass(slots=True, frozen=True)
class Plan:
    """Beginnings and names of the phases, the settling time first; when arrivals end."""

    edges_us: list[int]
    names: list[str]
    end_us: int

    @property
    def begin_us(self) -> int:
        """Where the window begins."""
        return self.edges_us[1]

    @property
    def window_s(self) -> float:
        """How long the window is."""
        return (self.end_us - self.begin_us) / SECOND_US


def summarize(
    scenario: Scenario,
    plan: Plan,
    recorder: Recorder,
    loads: Sequence[Workload],
    timeline: dict[str, list[float]],
    lost: int,
) -> Run:
    """The whole run."""
    figures: dict[str, float] = {"lost": lost, "unfinished": len(recorder.jobs)}
    samples: dict[str, Histogram] = {}
    for load in loads:
        _add_work(figures, samples, load.name, recorder.work[load.number], plan)
    for log in recorder.fleets.values():
        _add_fleet(figures, log, recorder, plan)
    _add_mesh(figures, samples, scenario, plan, recorder)
    return Run(
        digest=recorder.digest(),
        figures=figures,
        samples=samples,
        phases=_phases(plan, recorder, loads),
        jobs=recorder.arrivals,
        simulated_s=plan.end_us / SECOND_US,
        growth_per_s=_slope(timeline, plan.begin_us / SECOND_US),
        timeline=timeline,
    )


def latency_figures(name: str, seen: Histogram) -> dict[str, float]:
    """Mean, quantiles and greatest of a distribution."""
    quantiles = {f"{name}.{label}": seen.quantile(share) for label, share in QUANTILES.items()}
    return {f"{name}.mean": seen.mean, **quantiles, f"{name}.max": seen.most}


def _add_work(figures: dict[str, float], samples: dict[str, Histogram], name: str, log: WorkLog, plan: Plan) -> None:
    log.fold()
    for kind, parts in (("latency", log.latency[1:]), ("wait", log.wait[1:])):
        whole = samples[f"{name}.{kind}"] = parts[0].merge(parts[1:])
        figures |= latency_figures(f"{name}.{kind}", whole)
    counts: dict[str, int] = {}
    for part in log.counts[1:]:
        for what, count in part.items():
            counts[what] = counts.get(what, 0) + count
    arrived = counts.get("arrived", 0)
    ended = sum(counts.get(state, 0) for state in ("succeeded", "failed", "cancelled", "dead"))
    for what in ("arrived", "refused", "succeeded", "failed", "cancelled", "dead", "expired", "retried"):
        figures[f"{name}.{what}"] = counts.get(what, 0)
    figures[f"{name}.refused.share"] = counts.get("refused", 0) / max(1, arrived)
    figures[f"{name}.expired.share"] = counts.get("expired", 0) / max(1, arrived)
    figures[f"{name}.wait.share"] = counts.get("delayed", 0) / max(1, ended)
    figures[f"{name}.attempts.mean"] = counts.get("attempts", 0) / max(1, ended)
    figures[f"{name}.attempts.over3"] = counts.get("over3", 0) / max(1, ended)
    figures[f"{name}.rate"] = arrived / plan.window_s
    figures[f"{name}.throughput"] = log.done / plan.window_s


def _add_fleet(figures: dict[str, float], log: FleetLog, recorder: Recorder, plan: Plan) -> None:
    fleet, name = log.fleet, log.fleet.name
    keys = [(fleet.no, agent.no) for agent in fleet.agents]
    slots_us = [recorder.slot_us.get(key, 0) for key in keys]
    busy_us = [agent.busy_us for agent in fleet.agents]
    log.spells.end(max(plan.end_us, plan.begin_us))
    figures[f"{name}.utilisation"] = sum(busy_us) / max(1, sum(slots_us))
    figures[f"{name}.running.mean"] = log.running.mean
    figures[f"{name}.running.peak"] = log.running.peak
    figures[f"{name}.up.mean"] = log.up.mean
    figures[f"{name}.agents.mean"] = sum(
        spent / agent.pool.slots for spent, agent in zip(slots_us, fleet.agents, strict=True)
    ) / (plan.end_us - plan.begin_us)
    figures |= _backlog(f"{name}.backlog", log.waiting)
    figures[f"{name}.availability"] = log.spells.share
    figures[f"{name}.availability.up"] = log.spells.up_us / max(1, log.spells.ups) / SECOND_US
    figures[f"{name}.availability.down"] = log.spells.down_us / max(1, log.spells.downs) / SECOND_US
    counts = np.asarray([log.assigned.get(agent.no, 0) for agent in fleet.agents], np.float64)
    per_slot = counts / np.asarray([agent.pool.slots for agent in fleet.agents], np.float64)
    squares = float((per_slot**2).sum())
    figures[f"{name}.evenness.jain"] = float(per_slot.sum()) ** 2 / (len(per_slot) * squares) if squares else 1.0
    figures[f"{name}.evenness.peak"] = float(per_slot.max() / per_slot.mean()) if squares else 1.0
    figures[f"{name}.evenness.spread"] = float(counts.max() - counts.min()) if squares else 0.0
    figures[f"{name}.evenness.sd"] = float(counts.std()) if squares else 0.0
    if len(keys) <= AGENT_FIGURES_MAX:
        for agent, busy, slots in zip(fleet.agents, busy_us, slots_us, strict=True):
            figures[f"{name}.{agent.no}.utilisation"] = busy / max(1, slots)


def _backlog(name: str, level: Level) -> dict[str, float]:
    return {
        f"{name}.mean": level.mean,
        f"{name}.peak": level.peak,
        f"{name}.drain": level.drain_us / SECOND_US,
    }


def _slope(timeline: Mapping[str, Sequence[float]], from_s: float) -> float:
    """How fast the number of jobs in the system grows, by least squares over the window."""
    at_s = np.asarray(timeline["t"])
    inside = at_s >= from_s
    if inside.sum() < 2:
        return 0.0
    return float(np.polyfit(at_s[inside], np.asarray(timeline["system"])[inside], 1)[0])


def _phases(plan: Plan, recorder: Recorder, loads: Sequence[Workload]) -> tuple[Phase, ...]:
    ends_us = [*plan.edges_us[2:], plan.end_us]
    phases = []
    for number, (from_us, to_us) in enumerate(zip(plan.edges_us[1:], ends_us, strict=True), 1):
        figures: dict[str, float] = {}
        for load in loads:
            log = recorder.work[load.number]
            figures |= latency_figures(f"{load.name}.latency", log.latency[number])
            figures |= latency_figures(f"{load.name}.wait", log.wait[number])
            for what in ("arrived", "succeeded", "dead", "retried"):
                figures[f"{load.name}.{what}"] = log.counts[number].get(what, 0)
        phases.append(Phase(plan.names[number], from_us / SECOND_US, to_us / SECOND_US, figures))
    return tuple(phases)


def _add_mesh(
    figures: dict[str, float],
    samples: dict[str, Histogram],
    scenario: Scenario,
    plan: Plan,
    recorder: Recorder,
) -> None:
    """What is of no group alone."""
    figures |= _backlog("backlog", recorder.waiting)
    figures["system.mean"] = recorder.system.mean
    for name, seconds in (
        ("failover.detect", recorder.detect_s),
        ("failover.reassign", recorder.reassign_s),
        ("failover.restart", recorder.restart_s),
        ("reconnect", recorder.reconnects_s()),
    ):
        seen = samples[name] = Histogram()
        seen.add(np.asarray(seconds, np.float64))
        figures[f"{name}.count"] = seen.count
        figures |= latency_figures(name, seen)
    figures["reconnect.peak"] = recorder.reconnect_peak()
    figures["overlapped"] = recorder.overlapped
    figures["wasted.seconds"] = recorder.wasted_us / SECOND_US
    figures["wasted.share"] = recorder.wasted_us / max(1, recorder.ran_us)
    loop_us, commits = recorder.loop_in_window
    figures["broker.utilisation"] = loop_us / (plan.end_us - plan.begin_us)
    figures["broker.commits"] = commits
    if scenario.cost is not None:
        agents = sum(figures[f"{name}.agents.mean"] for name in scenario.groups)
        figures["cost.per-hour"] = agents * scenario.cost.agent_hour[0]
        figures["cost.total"] = figures["cost.per-hour"] * plan.window_s / 3_600
