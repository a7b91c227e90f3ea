"""The other driver of the dispatcher: SimPy is the clock, `broker.dispatch` and `agent_stub.session` are under load.

`simulate` plays one replication of a scenario. The same scenario, seed and replication give the same run, bit by bit,
in any process: random numbers come from named streams (`simulator.streams`), and nothing depends on hashes.
"""

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

from broker.dispatch.model import GroupNo
from simulator.agents import DirectAgent, SessionAgent, SimAgent, Site
from simulator.autoscaler import Autoscaler
from simulator.clock import Clock
from simulator.driver import Driver
from simulator.faults import Faults
from simulator.fleet import Fleet
from simulator.incidents import BrokerCrash, Scripted, StoreOutage, label_of
from simulator.laws import Law
from simulator.network import Network
from simulator.recorder import Recorder, Run
from simulator.scenario import Fidelity, Pool, Scenario, places_of
from simulator.streams import SECOND_US, Stream, Streams
from simulator.summary import Plan, summarize
from simulator.windows import WINDOWS, course_of
from simulator.workload import SimJob, Workload, arrivals_us

TICKS: Final = 240
"""Points of the timeline."""
FINISH_STEP_US: Final = 1 * SECOND_US
PHASES_MAX: Final = 64
YOUNG_OBJECTS: Final = 50_000
"""Allocations between two looks at the youngest objects: more than a batch of the modelled broker holds."""
NEVER_COLLECTED: Final = 1 << 30
NO_CHANGES: Final[Mapping[str, object]] = MappingProxyType({})


def simulate(scenario: Scenario, *, seed: int, replication: int = 0, changes: Mapping[str, object] = NO_CHANGES) -> Run:
    """Play one replication. `changes` are other values under `key.path` names. Raises ChangeError, SelfTestError."""
    return World(scenario.changed(changes), seed, replication).run()


class World:
    """One replication."""

    def __init__(self, scenario: Scenario, seed: int, replication: int) -> None:
        self.scenario = scenario
        self.clock = Clock()
        self.streams = Streams(seed, replication)
        self.plan = plan_of(scenario)
        self.fleets = [Fleet.of(GroupNo(no), name, scenario) for no, name in enumerate(scenario.groups, 1)]
        number_of = {fleet.name: fleet.no for fleet in self.fleets}
        self.loads = [
            Workload.of(number, name, work, number_of[work.group], self.streams)
            for number, (name, work) in enumerate(scenario.work.items(), 1)
        ]
        self.recorder = Recorder(self.clock, self.fleets, self.loads, self.plan.edges_us, self.plan.end_us)
        network = Network(self.clock, scenario, self.streams)
        self.driver = Driver(
            self.clock,
            scenario,
            self.streams,
            network,
            self.recorder,
            self.fleets,
            keeps_rows=any(isinstance(fault, BrokerCrash | StoreOutage) for fault in scenario.faults),
        )
        self._is_direct = scenario.broker.fidelity is Fidelity.EXACT
        overhead = Law(constant=0.0) if self._is_direct else scenario.agent.overhead
        self.site = Site(self.clock, self.driver, network, self.recorder, self.streams, overhead)
        self.timeline: dict[str, list[float]] = {}

    def run(self) -> Run:
        """Play it: agents, then work and faults, until arrivals end and what is under way has ended."""
        with _collecting_seldom():
            return self._play()

    def _play(self) -> Run:
        for fleet in self.fleets:
            for pool, zone in places_of(fleet.group):
                self._hire(fleet, pool, zone).start()
            if fleet.group.autoscale is not None:
                Autoscaler(self.site, fleet, fleet.group.autoscale, self._hire_more)
        self.recorder.when_final = self._on_final
        for load in self.loads:
            self._begin_work(load)
        Faults(self.site, self.scenario, self.fleets, self.loads).begin()
        self._watch()
        self.clock.advance(self.plan.end_us)
        self._mark()
        self._finish()
        return self._seen()

    def _hire(self, fleet: Fleet, pool: Pool, zone: str) -> SimAgent:
        kind = DirectAgent if self._is_direct else SessionAgent
        agent = kind(self.site, fleet, len(fleet.agents) + 1, pool, zone)
        fleet.agents.append(agent)
        self.driver.add_agent(fleet.no, agent.no, agent.name, pool.rank)
        return agent

    def _hire_more(self, fleet: Fleet) -> SimAgent:
        pool = fleet.group.agents[0]
        return self._hire(fleet, pool, pool.spread[len(fleet.agents) % len(pool.spread)])

    # --- work -------------------------------------------------------------------------------------------------------

    def _begin_work(self, load: Workload) -> None:
        closed = load.work.arrivals.closed
        if closed is not None:
            load.thinking = self.streams.times_us(closed.think, Stream.THINKING, load.number)
            for _ in range(closed.clients):
                self.clock.after(next(load.thinking), self._on_client, load)
            return
        times = arrivals_us(load.work.arrivals, self.streams, load.number, self.plan.end_us)
        self._await_next(load, times)

    def _await_next(self, load: Workload, times: Iterator[int]) -> None:
        at_us = next(times, None)
        if at_us is not None:
            self.clock.at(at_us, self._on_arrival, (load, times))

    def _on_arrival(self, arriving: tuple[Workload, Iterator[int]]) -> None:
        load, times = arriving
        clock = self.clock
        self.driver.submit(load.draw(clock.now_us))
        at_us = next(times, None)
        if at_us is not None:
            clock.at(at_us, self._on_arrival, arriving)

    def _on_client(self, load: Workload) -> None:
        if self.clock.now_us < self.plan.end_us:
            job = load.draw(self.clock.now_us)
            job.is_client = True
            self.driver.submit(job)

    def _on_final(self, job: SimJob) -> None:
        self.clock.after(next(job.work.thinking), self._on_client, job.work)

    # --- time -------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        for edge_us in self.plan.edges_us[1:]:
            self.clock.after(edge_us, lambda _: self._mark())
        for tick in range(TICKS):
            self.clock.after(self.plan.end_us * (tick + 1) // TICKS - 1, self._on_tick)

    def _mark(self) -> None:
        self.recorder.mark(self.driver.store.commits)

    def _on_tick(self, _: object) -> None:
        recorder, logs = self.recorder, self.recorder.fleets.values()
        for name, value in (
            ("t", self.clock.now_us / SECOND_US),
            ("backlog", recorder.waiting.value),
            ("system", recorder.system.value),
            ("running", sum(log.running.value for log in logs)),
            ("up", sum(log.up.value for log in logs)),
            ("arrived", recorder.arrivals),
            ("finished", recorder.finished),
            ("commits", self.driver.store.commits),
            *course_of(recorder, self.driver),
        ):
            self.timeline.setdefault(name, []).append(float(value))
        if len(self.timeline["t"]) % (TICKS // WINDOWS) == 0:
            recorder.look()

    def _finish(self) -> None:
        """Let what is under way end; agents beat for ever, so the clock never runs dry."""
        limit_us = self.plan.end_us + round(self.scenario.horizon.finish * SECOND_US)
        while self.recorder.system.value > 0 and self.clock.now_us < limit_us:
            self.clock.advance(min(limit_us, self.clock.now_us + FINISH_STEP_US))

    def _seen(self) -> Run:
        live = {key: job for fleet in self.fleets for key, job in self.driver.dispatcher(fleet.no).ledger.jobs.items()}
        lost = self.recorder.check(live)
        for fleet in self.fleets:
            for agent in fleet.agents:
                agent.switch_off()
        return summarize(self.scenario, self.plan, self.recorder, self.loads, self.timeline, lost)


@contextmanager
def _collecting_seldom() -> Iterator[None]:
    """What a run makes is gone at once: the collector looks at what is young, and never through all that waits."""
    before = gc.get_threshold()
    gc.set_threshold(YOUNG_OBJECTS, NEVER_COLLECTED, NEVER_COLLECTED)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def plan_of(scenario: Scenario) -> Plan:
    """The phases of a run: the settling time, then the window cut where scripted faults begin and end."""
    begin_us, end_us = round(scenario.horizon.settle * SECOND_US), round(scenario.end_s * SECOND_US)
    spans = [
        (round(fault.at * SECOND_US), round((fault.at + fault.lasts_s) * SECOND_US), label_of(fault))
        for fault in scenario.faults
        if isinstance(fault, Scripted)
    ]
    cuts = sorted({at_us for span in spans for at_us in span[:2] if begin_us < at_us < end_us})[:PHASES_MAX]
    edges = [0, begin_us, *cuts]
    names = ["settle"]
    for from_us in edges[1:]:
        active = [label for since_us, until_us, label in spans if since_us <= from_us < until_us]
        over = [label for since_us, until_us, label in spans if until_us <= from_us]
        names.append(" + ".join(active) or (f"after {over[-1]}" if over else "before" if cuts else "all"))
    return Plan(edges, names, end_us)
