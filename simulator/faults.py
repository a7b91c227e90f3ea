"""What goes wrong, carried out: each incident of the scenario is a SimPy process on its own random stream."""

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Final

import simpy

from broker.dispatch.messages import DrainCancelled, DrainRequested, ResumeRequested
from broker.dispatch.model import Admin, DrainEnd
from simulator import incidents
from simulator.agents import SimAgent, Site
from simulator.fleet import Fleet
from simulator.incidents import Incident, Scripted
from simulator.scenario import Scenario, agents_named
from simulator.streams import SECOND_US, Stream
from simulator.workload import SimJob, Workload

ACTOR: Final = "scenario"
ASK_AGAIN_S: Final = 1.0
POISON_NUMBERS: Final = 1 << 40
"""Poison jobs are numbered from here: they take nothing from the work that they are mixed with."""

Course = Generator[simpy.Event, Any, None]


def _us(seconds: float) -> int:
    return round(seconds * SECOND_US)


class Faults:
    """The faults of one run. `begin` arms all of them."""

    def __init__(self, site: Site, scenario: Scenario, fleets: Sequence[Fleet], loads: Sequence[Workload]) -> None:
        self._site = site
        self._scenario = scenario
        self._fleets = {fleet.name: fleet for fleet in fleets}
        self._loads = {load.name: load for load in loads}
        self._courses: dict[type, Callable[[Any, int], Course]] = {
            incidents.Crash: self._crash,
            incidents.ZoneDown: self._zone_down,
            incidents.Hang: self._hang,
            incidents.Drain: self._drain,
            incidents.RollingUpgrade: self._rolling_upgrade,
            incidents.Partition: self._partition,
            incidents.BrokerCrash: self._broker_crash,
            incidents.StoreStall: self._store_stall,
            incidents.StoreOutage: self._store_outage,
            incidents.ClockJump: self._clock_jump,
            incidents.ReconnectHerd: self._reconnect_herd,
            incidents.CertificateWave: self._certificate_wave,
            incidents.Poison: self._poison,
            incidents.Slow: self._slow,
            incidents.Delay: self._delay,
            incidents.Loss: self._loss,
            incidents.HeartbeatLoss: self._heartbeat_loss,
        }

    def begin(self) -> None:
        """Arm all faults."""
        for number, incident in enumerate(self._scenario.faults, 1):
            if isinstance(incident, incidents.Random):
                self._begin_random(incident, number)
            else:
                self._site.clock.actors.process(self._scripted(incident, number))

    def _scripted(self, incident: Incident, number: int) -> Course:
        assert isinstance(incident, Scripted)
        yield self._pause(incident.at)
        yield from self._courses[type(incident)](incident, number)

    def _pause(self, seconds: float) -> simpy.Event:
        return self._site.clock.actors.timeout(_us(seconds))

    def _agents(self, words: Iterable[str]) -> list[SimAgent]:
        named = {place: None for word in words for place in agents_named(self._scenario, word)}
        return [self._fleets[group].agents[number - 1] for group, number in named]

    # --- agents -----------------------------------------------------------------------------------------------------

    def _crash(self, incident: incidents.Crash, _: int) -> Course:
        yield from self._outage(self._agents(incident.crash), incident.for_, silent=incident.silent)

    def _zone_down(self, incident: incidents.ZoneDown, _: int) -> Course:
        yield from self._outage(self._agents([incident.zone_down]), incident.for_, silent=True)

    def _outage(self, agents: list[SimAgent], lasts_s: float, *, silent: bool) -> Course:
        for agent in agents:
            agent.crash(silent=silent)
        yield self._pause(lasts_s)
        for agent in agents:
            agent.repair()

    def _hang(self, incident: incidents.Hang, _: int) -> Course:
        agents = self._agents(incident.hang)
        for agent in agents:
            agent.get_stuck() if incident.beats else agent.freeze()
        yield self._pause(incident.for_)
        for agent in agents:
            agent.get_loose() if incident.beats else agent.thaw()

    def _slow(self, incident: incidents.Slow, _: int) -> Course:
        agents = self._agents(incident.slow)
        for agent in agents:
            agent.slow *= incident.factor
        yield self._pause(incident.for_)
        for agent in agents:
            agent.slow /= incident.factor

    def _drain(self, incident: incidents.Drain, _: int) -> Course:
        agents = self._agents(incident.drain)
        for agent in agents:
            self._ask_drain(agent, incident)
        yield self._pause(incident.for_)
        while True:
            for agent in agents:
                self._end_drain(agent, incident)
            if self._site.driver.is_up:
                return
            yield self._pause(ASK_AGAIN_S)  # a broker that is away hears nobody: the operator asks again

    def _ask_drain(self, agent: SimAgent, incident: incidents.Drain) -> None:
        deadline_us = _us(incident.deadline)
        self._site.driver.ask(
            agent.fleet.no,
            lambda ticket: DrainRequested(ticket, agent.no, incident.ends, incident.then, deadline_us, ACTOR),
        )

    def _end_drain(self, agent: SimAgent, incident: incidents.Drain) -> None:
        driver = self._site.driver
        known = driver.dispatcher(agent.fleet.no).ledger.agents[agent.no]
        if known.admin is Admin.DRAINING:
            driver.ask(agent.fleet.no, lambda ticket: DrainCancelled(ticket, agent.no, ACTOR))
        elif known.admin is Admin.PAUSED:
            driver.ask(agent.fleet.no, lambda ticket: ResumeRequested(ticket, agent.no, ACTOR))
        if incident.ends is DrainEnd.STOP:
            agent.bring_back()

    def _rolling_upgrade(self, incident: incidents.RollingUpgrade, _: int) -> Course:
        clock = self._site.clock
        agents = [agent for agent in self._fleets[incident.rolling_upgrade].agents if agent.is_on]
        for first in range(0, len(agents), incident.batch):
            batch = [agent for agent in agents[first : first + incident.batch] if agent.is_on]
            began_us = clock.now_us
            yield clock.actors.all_of([self._left(agent) for agent in batch])
            yield clock.actors.timeout(max(0, began_us + _us(incident.each) - clock.now_us))
            for agent in batch:
                agent.bring_back()

    def _left(self, agent: SimAgent) -> simpy.Event:
        """An event for the time when the agent, told to leave, has left."""
        left = self._site.clock.actors.event()

        def succeed() -> None:
            left.succeed()

        agent.when_left = succeed
        agent.leave()
        return left

    # --- network and broker -----------------------------------------------------------------------------------------

    def _partition(self, incident: incidents.Partition, _: int) -> Course:
        agents = self._agents(incident.partition)
        lines = [agent.line for agent in agents]
        for agent in agents:
            self._site.recorder.agent_lost(agent)
        for line in lines:
            self._site.network.cut(line, **incident.directions)
        yield self._pause(incident.for_)
        for line in lines:
            self._site.network.heal(line, **incident.directions)
        for agent in agents:
            if agent.is_on and not agent.is_frozen:
                self._site.recorder.agent_found(agent)

    def _delay(self, incident: incidents.Delay, _: int) -> Course:
        lines = [agent.line for agent in self._agents(incident.delay)]
        up_us, down_us = (_us(incident.by) * is_late for is_late in incident.directions.values())
        for line in lines:
            line.extra_up_us += up_us
            line.extra_down_us += down_us
        yield self._pause(incident.for_)
        for line in lines:
            line.extra_up_us -= up_us
            line.extra_down_us -= down_us

    def _loss(self, incident: incidents.Loss, _: int) -> Course:
        lines = [agent.line for agent in self._agents(incident.loss)]
        for line in lines:
            line.lose(incident.share, **incident.directions)
        yield self._pause(incident.for_)
        for line in lines:
            line.keep(incident.share, **incident.directions)

    def _heartbeat_loss(self, incident: incidents.HeartbeatLoss, _: int) -> Course:
        agents = [agent for fleet in self._fleets.values() for agent in fleet.agents]
        for agent in agents:
            agent.loss = incident.heartbeat_loss
        if incident.for_:
            yield self._pause(incident.for_)
            for agent in agents:
                agent.loss = 0.0

    def _broker_crash(self, incident: incidents.BrokerCrash, _: int) -> Course:
        self._site.driver.crash()
        yield self._pause(incident.for_)
        yield from self._recover()

    def _recover(self) -> Course:
        driver, clock = self._site.driver, self._site.clock
        yield clock.actors.timeout(driver.behind_us)  # it does not start before its clock has caught up
        if not driver.is_up:
            self._site.recorder.herd_us = clock.now_us
            driver.recover()

    def _clock_jump(self, incident: incidents.ClockJump, _: int) -> Course:
        self._site.driver.wall_us += _us(incident.by) * (1 if incident.clock_jump == "ahead" else -1)
        yield self._pause(0)

    def _store_outage(self, incident: incidents.StoreOutage, _: int) -> Course:
        driver, clock = self._site.driver, self._site.clock
        over_us = clock.now_us + _us(incident.for_)
        failed = clock.actors.event()
        driver.store.fail(over_us, failed.succeed)
        yield failed | clock.actors.timeout(_us(incident.for_))
        if not failed.triggered:
            return  # nobody has tried to commit anything
        driver.crash()
        yield clock.actors.timeout(over_us - clock.now_us)
        yield from self._recover()

    def _store_stall(self, incident: incidents.StoreStall, _: int) -> Course:
        self._site.driver.store.stall(self._site.clock.now_us + _us(incident.for_))
        yield self._pause(incident.for_)

    def _reconnect_herd(self, incident: incidents.ReconnectHerd, _: int) -> Course:
        driver, until_us = self._site.driver, self._site.clock.now_us + _us(incident.for_)
        driver.refuses_until_us = max(driver.refuses_until_us, until_us)
        self._site.recorder.herd_us = until_us
        driver.close_all(self._agents(incident.reconnect_herd))
        yield self._pause(incident.for_)

    def _certificate_wave(self, incident: incidents.CertificateWave, number: int) -> Course:
        clock, luck = self._site.clock, self._site.streams.uniform(Stream.FAULTS, number)
        agents = self._agents(incident.certificate_wave)
        at_s = sorted((next(luck) * incident.for_, index) for index in range(len(agents)))
        began_us = clock.now_us
        for seconds, index in at_s:
            yield clock.actors.timeout(max(0, began_us + _us(seconds) - clock.now_us))
            self._site.driver.close_all([agents[index]])

    def _poison(self, incident: incidents.Poison, number: int) -> Course:
        load, clock = self._loads[incident.poison], self._site.clock
        durations = self._site.streams.times_us(load.work.duration, Stream.FAULTS, number)
        gaps = self._site.streams.generator(Stream.FAULTS, number << 16)
        until_us = clock.now_us + _us(incident.for_) if incident.for_ else _us(self._scenario.end_s)
        submitted = 0
        while True:
            if incident.rate is not None:
                yield clock.actors.timeout(_us(float(gaps.standard_exponential()) / incident.rate))
                if clock.now_us >= until_us:
                    return
            job = SimJob(load, POISON_NUMBERS + (number << 30) + submitted, clock.now_us, max(1, next(durations)))
            job.poison_us = max(1, _us(incident.repair))
            submitted += 1
            self._site.driver.submit(job)
            if incident.rate is None:
                return

    # --- by chance --------------------------------------------------------------------------------------------------

    def _begin_random(self, incident: incidents.Random, number: int) -> None:
        clock = self._site.clock
        crews = simpy.Resource(clock.actors, incident.crews) if incident.crews else None
        for index, members in enumerate(self._units(incident)):
            clock.actors.process(self._by_chance(incident, members, crews, number << 24 | index))

    def _units(self, incident: incidents.Random) -> list[list[SimAgent]]:
        """What fails as one: an agent, or a zone."""
        if incident.random != "zone-down":
            return [[agent] for agent in self._agents(incident.agents)]
        zones = self._scenario.zones if "all" in incident.agents else list(incident.agents)
        return [self._agents([zone]) for zone in zones]

    def _by_chance(
        self, incident: incidents.Random, agents: list[SimAgent], crews: simpy.Resource | None, entity: int
    ) -> Course:
        streams, clock = self._site.streams, self._site.clock
        works = streams.times_us(incident.mttf, Stream.FAULTS, entity << 1)
        repairs = streams.times_us(incident.mttr, Stream.FAULTS, entity << 1 | 1)
        while True:
            yield clock.actors.timeout(next(works))
            for agent in agents:
                _break(agent, incident)
            if crews is None:
                yield clock.actors.timeout(next(repairs))
            else:
                with crews.request() as turn:
                    yield turn
                    yield clock.actors.timeout(next(repairs))
            for agent in agents:
                _mend(agent, incident)


def _break(agent: SimAgent, incident: incidents.Random) -> None:
    if incident.random != "hang":
        agent.crash(silent=incident.silent or incident.random == "zone-down")
    elif incident.beats:
        agent.get_stuck()
    else:
        agent.freeze()


def _mend(agent: SimAgent, incident: incidents.Random) -> None:
    if incident.random != "hang":
        agent.repair()
    elif incident.beats:
        agent.get_loose()
    else:
        agent.thaw()
