"""From what was recorded to the figures of a run, under the names that objectives use."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import TypeVar

import numpy as np

from simulator.histogram import Histogram
from simulator.levels import Level, Span
from simulator.marks import Mark
from simulator.recorder import QUANTILES, FleetLog, Phase, Recorder, Run, WorkLog
from simulator.scenario import Scenario
from simulator.streams import SECOND_US
from simulator.windows import Shares, evenness_of, jain
from simulator.workload import Workload

T = TypeVar("T")

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


@dataclass(slots=True, frozen=True)
class Cut:
    """A stretch of the window: phase `number` of it, counted from 0, or (None) all of it."""

    before: Mark
    after: Mark
    number: int | None = None

    @property
    def us(self) -> int:
        """How long it is."""
        return max(1, self.after.at_us - self.before.at_us)

    def span(self, level: Level) -> Span:
        """What a level was in it."""
        return level.window() if self.number is None else level.phase(self.number)

    def parts(self, by_phase: Sequence[T]) -> Sequence[T]:
        """The parts of what is kept by phase of arrival, settling first."""
        return by_phase[1:] if self.number is None else by_phase[self.number + 1 : self.number + 2]


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
        recorder.work[load.number].fold()
    recorder.count_begun()
    whole = Cut(recorder.marks[0], recorder.marks[-1])
    shares = {log.fleet.name: log.shares.shares(plan.begin_us) for log in recorder.fleets.values()}
    _add_cut(figures, samples, scenario, recorder, loads, whole)
    for log in recorder.fleets.values():
        _add_whole_fleet(figures, log, recorder, plan, shares[log.fleet.name])
    _add_reconnects(figures, samples, recorder)
    if scenario.cost is not None:
        figures["cost.total"] = figures["cost.per-hour"] * plan.window_s / 3_600
    return Run(
        digest=recorder.digest(),
        figures=figures,
        samples=samples,
        phases=_phases(scenario, plan, recorder, loads),
        jobs=recorder.arrivals,
        simulated_s=plan.end_us / SECOND_US,
        growth_per_s=_growth(timeline, plan),
        timeline=timeline | dict(_returns(recorder, timeline["t"])),
        tallies=dict(_tallies(recorder)),
        windows={
            f"{load.name}.latency.{label}": recorder.work[load.number].windows.quantile(QUANTILES[label])
            for load in loads
            for label in ("p50", "p99")
        },
        shares={name: seen for name, seen in shares.items() if seen is not None},
    )


def _tallies(recorder: Recorder) -> Iterator[tuple[str, list[list[float]]]]:
    """The histograms of each group: a row for each window, the sum last."""
    for log in recorder.fleets.values():
        for kind, tally in (("wait", log.waits), ("run", log.runs), ("latency", log.latencies)):
            rows = zip(tally.counts, tally.sums_s, strict=True)
            yield f"{log.fleet.name}.{kind}", [[*counts, total] for counts, total in rows]


def _returns(recorder: Recorder, at_s: Sequence[float]) -> Iterator[tuple[str, list[float]]]:
    """How many jobs of each group had gone back to wait by the points of the timeline, for each reason."""
    for log in recorder.fleets.values():
        for reason in sorted({reason for _, reason in log.returns}):
            when = np.asarray([at_us for at_us, why in log.returns if why == reason]) / SECOND_US
            counts = np.searchsorted(when, np.asarray(at_s), "right")
            yield f"{log.fleet.name}.returned.{reason}", counts.astype(np.float64).tolist()


def latency_figures(name: str, seen: Histogram, never: int = 0) -> dict[str, float]:
    """Mean, quantiles and greatest of a distribution, with `never` values beside it that are infinite."""
    quantiles = {f"{name}.{label}": seen.quantile(share, never) for label, share in QUANTILES.items()}
    return {f"{name}.mean": inf if never else seen.mean, **quantiles, f"{name}.max": inf if never else seen.most}


def _add_cut(
    figures: dict[str, float],
    samples: dict[str, Histogram],
    scenario: Scenario,
    recorder: Recorder,
    loads: Sequence[Workload],
    cut: Cut,
) -> None:
    """All figures that the whole and each phase have."""
    for load in loads:
        _add_work(figures, samples, load, recorder.work[load.number], cut)
    for log in recorder.fleets.values():
        _add_fleet(figures, log, cut)
    figures |= _backlog("backlog", cut.span(recorder.waiting))
    figures["system.mean"] = cut.span(recorder.system).mean
    _add_failover(figures, samples, recorder, cut)
    _add_mesh(figures, scenario, recorder, cut)


def _add_work(figures: dict[str, float], samples: dict[str, Histogram], load: Workload, log: WorkLog, cut: Cut) -> None:
    name = load.name
    counts: dict[str, int] = {}
    for part in cut.parts(log.counts):
        for what, count in part.items():
            counts[what] = counts.get(what, 0) + count
    arrived = counts.get("arrived", 0)
    ended = sum(counts.get(state, 0) for state in ("succeeded", "failed", "cancelled", "dead"))
    # What was not over when nobody looked any more took longer than all that was: left out, it would look fast.
    unfinished = arrived - counts.get("refused", 0) - ended
    unstarted = unfinished - counts.get("begun", 0)
    for kind, parts, never in (
        ("latency", cut.parts(log.latency), unfinished),
        ("wait", cut.parts(log.wait), unstarted),
    ):
        whole = samples[f"{name}.{kind}"] = parts[0].merge(parts[1:])
        figures[f"{name}.{kind}.count"] = whole.count + never
        figures |= latency_figures(f"{name}.{kind}", whole, never)
    for what in ("arrived", "refused", "succeeded", "failed", "cancelled", "dead", "expired", "retried"):
        figures[f"{name}.{what}"] = counts.get(what, 0)
    figures[f"{name}.refused.share"] = counts.get("refused", 0) / max(1, arrived)
    figures[f"{name}.expired.share"] = counts.get("expired", 0) / max(1, arrived)
    figures[f"{name}.wait.share"] = counts.get("delayed", 0) / max(1, ended)
    figures[f"{name}.attempts.mean"] = counts.get("attempts", 0) / max(1, ended)
    figures[f"{name}.attempts.over3"] = counts.get("over3", 0) / max(1, ended)
    figures[f"{name}.rate"] = arrived / (cut.us / SECOND_US)
    done = cut.after.done[load.number] - cut.before.done[load.number]
    figures[f"{name}.throughput"] = done / (cut.us / SECOND_US)


def _add_fleet(figures: dict[str, float], log: FleetLog, cut: Cut) -> None:
    fleet, name = log.fleet, log.fleet.name
    before, after = cut.before.fleets[fleet.no], cut.after.fleets[fleet.no]
    running, slots_us = cut.span(log.running), after.slots_us - before.slots_us
    figures[f"{name}.utilisation"] = running.mean * cut.us / max(1, slots_us)
    figures[f"{name}.running.mean"] = running.mean
    figures[f"{name}.running.peak"] = running.peak
    figures[f"{name}.slots.mean"] = slots_us / cut.us
    figures[f"{name}.agents.mean"] = (after.agents_us - before.agents_us) / cut.us
    figures[f"{name}.up.mean"] = cut.span(log.up).mean
    figures |= _backlog(f"{name}.backlog", cut.span(log.waiting))
    figures[f"{name}.availability"] = (after.up_us - before.up_us) / cut.us
    counts = np.asarray(
        [after.assigned.get(one.no, 0) - before.assigned.get(one.no, 0) for one in fleet.agents], np.float64
    )
    per_slot = counts / np.asarray([agent.pool.slots for agent in fleet.agents], np.float64)
    some = bool(counts.any())
    figures[f"{name}.evenness.count"] = float(counts.sum())
    figures[f"{name}.evenness.jain"] = jain(per_slot) if some else 1.0
    figures[f"{name}.evenness.peak"] = float(per_slot.max() / per_slot.mean()) if some else 1.0
    figures[f"{name}.evenness.spread"] = float(counts.max() - counts.min()) if some else 0.0
    figures[f"{name}.evenness.sd"] = float(counts.std()) if some else 0.0


def _add_whole_fleet(
    figures: dict[str, float], log: FleetLog, recorder: Recorder, plan: Plan, shares: Shares | None
) -> None:
    """What a group has only as a whole."""
    fleet, name = log.fleet, log.fleet.name
    slots_us = [recorder.slot_us.get((fleet.no, agent.no), 0) for agent in fleet.agents]
    busy_us = [agent.busy_us for agent in fleet.agents]
    log.spells.end(max(plan.end_us, plan.begin_us))
    figures[f"{name}.utilisation"] = sum(busy_us) / max(1, sum(slots_us))
    figures[f"{name}.availability.up"] = log.spells.up_us / max(1, log.spells.ups) / SECOND_US
    figures[f"{name}.availability.down"] = log.spells.down_us / max(1, log.spells.downs) / SECOND_US
    for kind, index in evenness_of(shares, [agent.pool.slots for agent in fleet.agents]).items():
        figures[f"{name}.evenness.window.{kind}"] = index
    if len(fleet.agents) <= AGENT_FIGURES_MAX:
        for agent, busy, slots in zip(fleet.agents, busy_us, slots_us, strict=True):
            figures[f"{name}.{agent.no}.utilisation"] = busy / max(1, slots)


def _backlog(name: str, seen: Span) -> dict[str, float]:
    return {f"{name}.mean": seen.mean, f"{name}.peak": seen.peak, f"{name}.drain": seen.drain_us / SECOND_US}


def _growth(timeline: Mapping[str, Sequence[float]], plan: Plan) -> float:
    """How fast the number of jobs in the system grows over the window.

    A fault late in the window leaves a hump that rises on the whole; what falls in the last third does not grow.
    """
    whole = _slope(timeline, plan.begin_us / SECOND_US)
    has_faults = len(plan.edges_us) > 2
    lately = _slope(timeline, (plan.end_us - (plan.end_us - plan.begin_us) / 3) / SECOND_US) if has_faults else whole
    return whole if lately > 0 else min(whole, lately)


def _slope(timeline: Mapping[str, Sequence[float]], from_s: float) -> float:
    """By least squares."""
    at_s = np.asarray(timeline["t"])
    inside = at_s >= from_s
    if inside.sum() < 2:
        return 0.0
    return float(np.polyfit(at_s[inside], np.asarray(timeline["system"])[inside], 1)[0])


def _phases(scenario: Scenario, plan: Plan, recorder: Recorder, loads: Sequence[Workload]) -> tuple[Phase, ...]:
    phases = []
    for number, (before, after) in enumerate(itertools.pairwise(recorder.marks)):
        figures: dict[str, float] = {}
        _add_cut(figures, {}, scenario, recorder, loads, Cut(before, after, number))
        from_s, to_s = before.at_us / SECOND_US, after.at_us / SECOND_US
        phases.append(Phase(plan.names[number + 1], from_s, to_s, figures))
    return tuple(phases)


def _add_failover(figures: dict[str, float], samples: dict[str, Histogram], recorder: Recorder, cut: Cut) -> None:
    """From an agent's loss until: the broker notices, its jobs wait again, are assigned again, run again."""
    before, after = cut.before, cut.after
    steps = (
        ("detect", recorder.detect_s, before.losses, after.losses),
        ("decide", recorder.decide_s, before.losses, after.losses),
        ("reassign", recorder.reassign_s, before.reassigned, after.reassigned),
        ("restart", recorder.restart_s, before.restarted, after.restarted),
    )
    for step, seconds, first, last in steps:
        inside = seconds[first:] if cut.number is None else seconds[first:last]
        _add_times(figures, samples, f"failover.{step}", inside)


def _add_reconnects(figures: dict[str, float], samples: dict[str, Histogram], recorder: Recorder) -> None:
    _add_times(figures, samples, "reconnect", recorder.reconnects_s())


def _add_times(figures: dict[str, float], samples: dict[str, Histogram], name: str, seconds: Sequence[float]) -> None:
    seen = samples[name] = Histogram()
    seen.add(np.asarray(seconds, np.float64))
    figures[f"{name}.count"] = seen.count
    figures |= latency_figures(name, seen)


def _add_mesh(figures: dict[str, float], scenario: Scenario, recorder: Recorder, cut: Cut) -> None:
    """What is of no group alone. What goes on after the window counts for the whole, what was before it does not."""
    before, after, is_whole = cut.before, cut.after, cut.number is None
    until = recorder if is_whole else after
    wasted_us, ran_us = until.wasted_us - before.wasted_us, until.ran_us - before.ran_us
    figures["reconnect.peak"] = recorder.reconnect_peak(before.at_us, None if is_whole else after.at_us)
    figures["overlapped"] = until.overlapped - before.overlapped
    figures["wasted.seconds"] = wasted_us / SECOND_US
    figures["wasted.share"] = wasted_us / max(1, ran_us)
    figures["broker.utilisation"] = (after.loop_busy_us - before.loop_busy_us) / cut.us
    figures["broker.commits"] = after.commits - before.commits
    if scenario.cost is not None:
        agents = sum(figures[f"{name}.agents.mean"] for name in scenario.groups)
        figures["cost.per-hour"] = agents * scenario.cost.agent_hour[0]
