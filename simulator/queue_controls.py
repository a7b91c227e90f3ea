"""Controls of queues, failures, days and lost heartbeats: the same chance met by a neighbour of the case.

See `simulator.controls` for what controls are for, and `simulator.neighbours` for the neighbours and their answers.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, chain, cycle, takewhile
from typing import Final

import numpy as np
import numpy.typing as npt

from simulator import neighbours
from simulator.agents import ENTITY
from simulator.drawn import Control, Drawn, Floats, Moments, moments_of, rate_of, servers_of
from simulator.incidents import HeartbeatLoss, Random
from simulator.laws import Batch, Diurnal
from simulator.scenario import Group, Scenario, Work
from simulator.streams import SECOND_US, Stream, two_kinds

FASTER: Final = 1.01
"""How much faster the servers of a neighbour are. The nearer, the more chance it shares; 1 would be the case itself."""
LIKELIER: Final = 1.01
"""How much more often a heartbeat is lost in the neighbour."""
FEWER: Final = 0.99
"""What share of the jobs the neighbour has that is given to agents at random."""
SLOWER: Final = 1.01
"""How much longer the jobs of the neighbour are that begin again with each failure."""
LONGER: Final = 1.001
"""How much longer jobs take in the neighbour of servers without end. Its phase is wanted to a thousandth of a turn."""


def queues(scenario: Scenario) -> Iterator[Control]:
    """Those of the only group, by what its work and its faults are."""
    if len(scenario.groups) != 1 or not scenario.work:
        return
    crashes = [fault for fault in scenario.faults if isinstance(fault, Random)]
    if any(work.arrivals.bursty is not None for work in scenario.work.values()):
        yield from _bursts(scenario)
    elif crashes:
        yield from _failures(scenario, crashes)
    else:
        moments = [one for work in scenario.work.values() if (one := moments_of(work)) is not None]
        if len(moments) == len(scenario.work) and sum(one.rate * one.first for one in moments) < servers_of(scenario):
            if not _is_sampled(next(iter(scenario.groups.values()))):
                yield _one_server(scenario, moments)
            yield from _exponential_queue(scenario)
            yield from _mixed_queue(scenario)


def _is_sampled(group: Group) -> bool:
    """Whether each job goes to the queue of an agent that is drawn: one queue for all says nothing about those."""
    return any(pool.prefetch for pool in group.agents) and (
        group.policy == "random" or group.policy.startswith("power")
    )


def chances(scenario: Scenario) -> Iterator[Control]:
    """How uneven it would be to give nearly as many jobs, with the same luck, to any of the agents."""
    if len(scenario.work) != 1 or len(scenario.groups) != 1 or scenario.faults or scenario.horizon.settle:
        return
    (work,), (group,) = scenario.work.values(), scenario.groups.values()
    agents, jobs = sum(pool.count for pool in group.agents), int(FEWER * (work.arrivals.even or 0.0) * scenario.end_s)
    if group.policy != "random" or not jobs:
        return

    def measure(drawn: Drawn) -> dict[str, float]:
        return {"neighbour.variance": float(np.bincount(_places(drawn, jobs, agents), minlength=agents).var())}

    yield Control({"neighbour.variance": jobs * (agents - 1) / agents**2}, measure)


def _places(drawn: Drawn, jobs: int, agents: int) -> npt.NDArray[np.int64]:
    """Which agent would get each job, were it for the luck of the dispatcher alone."""
    chance = drawn.streams.chance(1, epoch=1)
    return np.fromiter((chance.random() * agents for _ in range(jobs)), np.float64, jobs).astype(np.int64)


def _one_server(scenario: Scenario, moments: Sequence[Moments]) -> Control:
    """One server as fast as all together: it has the same long queues. Where there is one, a faster one."""
    servers = float(servers_of(scenario))
    speed = servers if servers > 1 else FASTER
    rate = sum(one.rate for one in moments)
    load = sum(one.rate * one.first for one in moments) / speed
    # Batches of one size: who comes first in a batch waits for the queue, the others for their own batch as well.
    queue = sum(one.rate * (one.second + (one.batch - 1) * one.first**2) / speed**2 for one in moments)
    own = sum(one.rate * (one.batch - 1) * one.first / 2 / speed for one in moments)

    def measure(drawn: Drawn) -> dict[str, float]:
        at_s, work_s = drawn.all
        waits = neighbours.waits_of(at_s, work_s / speed)
        return {"one-server": float(drawn.kept(waits, at_s).mean())}

    return Control({"one-server": queue / (2 * (1 - load)) + own / rate}, measure)


def _exponential_queue(scenario: Scenario) -> Iterator[Control]:
    """Where all durations are exponential with one mean: the same servers, a little faster."""
    works = list(scenario.work.values())
    means = {work.duration.exponential for work in works}
    mean = means.pop()
    if mean is None or means:
        return
    mean /= FASTER
    if len(works) == 1 and works[0].arrivals.batch is not None:
        yield _batches(works[0].arrivals.batch, servers_of(scenario), mean)
    if any(work.arrivals.poisson is None for work in works):
        return
    rates, servers = [work.arrivals.poisson or 0.0 for work in works], servers_of(scenario)
    group = next(iter(scenario.groups.values()))
    if any(pool.speed != 1 for pool in group.agents):
        return
    if not any(pool.prefetch for pool in group.agents):
        limits = neighbours.tail_limits_s(servers, sum(rates), mean)
        should = neighbours.many_servers(servers, sum(rates), mean)
        yield _neighbour(should, limits, lambda at, work, _: neighbours.waits_at(at, work, servers))
        if len({work.level for work in works}) == len(works) > 1:
            yield _levels(scenario, servers, mean)
    elif group.policy == "round-robin":
        limits = neighbours.in_turn_limits_s(servers, sum(rates), mean)
        should = neighbours.in_turn(servers, sum(rates), mean)
        yield _neighbour(should, limits, lambda at, work, _: neighbours.waits_in_turn(at, work, servers))
    elif group.policy == "random":
        limits = neighbours.tail_limits_s(1, sum(rates) / servers, mean)
        should = neighbours.many_servers(1, sum(rates) / servers, mean)
        yield _neighbour(
            should,
            limits,
            lambda at, work, drawn: neighbours.waits_apart(at, work, _places(drawn, len(at), servers), servers),
        )


def _mixed_queue(scenario: Scenario) -> Iterator[Control]:
    """Where durations are hyperexponential: the same servers, a little faster."""
    (work, *others), (group,) = scenario.work.values(), scenario.groups.values()
    law, rate, servers = work.duration.hyperexponential, work.arrivals.poisson, servers_of(scenario)
    if others or law is None or rate is None or any(pool.prefetch or pool.speed != 1 for pool in group.agents):
        return
    share, means = two_kinds(law)
    should = neighbours.mixed_wait_s(servers, rate, share, means[0] / FASTER, means[1] / FASTER)

    def measure(drawn: Drawn) -> dict[str, float]:
        at_s, work_s = drawn.all
        waits = neighbours.waits_at(at_s, work_s / FASTER, servers)
        return {"neighbour.wait": float(drawn.kept(waits, at_s).mean())}

    yield Control({"neighbour.wait": should}, measure)


def _batches(batch: Batch, servers: int, mean: float) -> Control:
    def measure(drawn: Drawn) -> dict[str, float]:
        at_s, work_s = drawn.all
        sojourns = neighbours.waits_at(at_s, work_s / FASTER, servers) + work_s / FASTER
        return {"neighbour.sojourn": float(drawn.kept(sojourns, at_s).mean())}

    return Control({"neighbour.sojourn": neighbours.batch_sojourn_s(servers, batch.rate, batch.size, mean)}, measure)


def _neighbour(
    should: neighbours.Seen, limits_s: Sequence[float], waits: Callable[[Floats, Floats, Drawn], Floats]
) -> Control:
    def measure(drawn: Drawn) -> dict[str, float]:
        at_s, work_s = drawn.all
        work_s = work_s / FASTER
        found = neighbours.seen_of(drawn.kept(waits(at_s, work_s, drawn), at_s), drawn.kept(work_s, at_s), limits_s)
        return _named_parts(found)

    return Control(_named_parts(should), measure, limits_s=limits_s)


def _named_parts(queue: neighbours.Seen) -> dict[str, float]:
    often, seldom = queue.tails
    return {
        "neighbour.waits": queue.waits,
        "neighbour.tail.p99": seldom,
        "neighbour.wait": queue.wait,
        "neighbour.tail.p95": often,
        "neighbour.sojourn": queue.sojourn,
    }


def _levels(scenario: Scenario, servers: int, mean: float) -> Control:
    """The wait of each level of work, where every class has one of its own."""
    names = sorted(scenario.work, key=lambda name: scenario.work[name].level)
    rates = [scenario.work[name].arrivals.poisson or 0.0 for name in names]
    should = neighbours.waits_by_level(servers, rates, mean)

    def measure(drawn: Drawn) -> dict[str, float]:
        parts = [drawn.work(name) for name in names]
        at_s, work_s = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
        levels = np.repeat(np.arange(len(names)), [len(part[0]) for part in parts])
        order = np.argsort(at_s, kind="stable")
        at_s, levels = at_s[order], levels[order]
        waits = neighbours.waits_in_order(at_s, work_s[order] / FASTER, levels, servers)
        return {
            f"{name}.neighbour.wait": float(drawn.kept(waits[levels == level], at_s[levels == level]).mean())
            for level, name in enumerate(names)
        }

    return Control({f"{name}.neighbour.wait": wait for name, wait in zip(names, should, strict=True)}, measure)


def _bursts(scenario: Scenario) -> Iterator[Control]:
    """One server as fast as all together, with the same bursts."""
    (work, *others), servers = scenario.work.values(), servers_of(scenario)
    bursty, mean, rate = work.arrivals.bursty, work.duration.exponential, rate_of(work.arrivals)
    if others or bursty is None or mean is None or rate is None or rate * mean >= servers:
        return
    serve = np.full(len(bursty.rates), servers / mean)
    turn = neighbours.in_rotation(bursty.dwell)

    def measure(drawn: Drawn) -> dict[str, float]:
        at_s, work_s = drawn.all
        sojourns = neighbours.waits_of(at_s, work_s / servers) + work_s / servers
        return {"one-server": float(drawn.kept(sojourns, at_s).mean())}

    yield Control({"one-server": neighbours.modulated_sojourn_s(turn, np.asarray(bursty.rates), serve)}, measure)


def _failures(scenario: Scenario, crashes: Sequence[Random]) -> Iterator[Control]:
    """One server as fast as all agents that are up, which fail and come back as they do."""
    (work, *others), (crash, *more) = scenario.work.values(), crashes
    (pool, *pools) = next(iter(scenario.groups.values())).agents
    mttf, mttr, mean = crash.mttf.exponential, crash.mttr.exponential, work.duration.exponential
    is_plain = not (others or more or pools) and crash.crews is None and crash.random == "crash"
    rate = work.arrivals.poisson
    if not is_plain or mttf is None or mttr is None or mean is None or rate is None:
        return
    up_mean = pool.count * mttf / (mttf + mttr)
    if crash.agents != ("all",) or rate * mean >= pool.slots * up_mean:
        return
    turn, up = neighbours.failing(pool.count, mttf, mttr)
    number = scenario.faults.index(crash) + 1
    should = neighbours.modulated_sojourn_s(turn, np.full(len(up), rate), up * pool.slots / mean)

    def measure(drawn: Drawn) -> dict[str, float]:
        at_s, work_s = drawn.all
        times_s, agents_up = _up_path(drawn, crash, number, pool.count)
        capacity = np.concatenate(([0.0], np.cumsum(np.diff(times_s) * agents_up[:-1]))) * pool.slots
        came = np.interp(at_s, times_s, capacity)
        left_s = np.interp(came + neighbours.waits_of(came, work_s) + work_s, capacity, times_s)
        inside = np.clip(times_s, drawn.settle_s, drawn.end_s)
        mean_up = float((np.diff(inside) * agents_up[:-1]).sum()) / (drawn.end_s - drawn.settle_s)
        return {"one-server": float(drawn.kept(left_s - at_s, at_s).mean()), "up": mean_up}

    yield Control({"one-server": should, "up": up_mean}, measure)


def restarts(scenario: Scenario, work: Work) -> Iterator[Control]:
    """One client whose jobs, a little longer, would begin again whenever the only agent fails."""
    crashes = [fault for fault in scenario.faults if isinstance(fault, Random)]
    clients, length = work.arrivals.closed.clients if work.arrivals.closed else 0, work.duration.constant
    if len(crashes) != len(scenario.faults) or len(crashes) != 1 or clients != 1 or servers_of(scenario) != 1:
        return
    mttf, mttr = crashes[0].mttf.exponential, crashes[0].mttr.constant
    if mttf is None or mttr is None or not length:
        return

    def measure(drawn: Drawn) -> dict[str, float]:
        up_us = drawn.streams.times_us(crashes[0].mttf, Stream.FAULTS, 1 << 25)
        count = int(0.9 * drawn.end_s / (mttf + mttr))
        up_s = np.fromiter((next(up_us) for _ in range(count)), np.int64, count) / SECOND_US
        done, tried = neighbours.restarts_in(up_s, length * SLOWER)
        return {"restarts.done": done, "restarts.tried": tried}

    done, tried = neighbours.restarts_expected(length * SLOWER / mttf)
    yield Control({"restarts.done": done, "restarts.tried": tried}, measure)


def _up_path(drawn: Drawn, crash: Random, number: int, agents: int) -> tuple[Floats, Floats]:
    """(times, agents up from then on), from 0 to well after the end, as `simulator.faults` draws them."""
    until_us = round(2 * drawn.end_s * SECOND_US)
    times: list[int] = []
    steps: list[int] = []
    for index in range(agents):
        entity = number << 24 | index
        works = drawn.streams.times_us(crash.mttf, Stream.FAULTS, entity << 1)
        repairs = drawn.streams.times_us(crash.mttr, Stream.FAULTS, entity << 1 | 1)
        turns = chain.from_iterable(zip(works, repairs, strict=False))
        changes = list(takewhile(lambda at_us: at_us < until_us, accumulate(turns)))
        times += changes
        steps += [step for step, _ in zip(cycle((-1, 1)), changes, strict=False)]
    order = np.argsort(np.asarray(times), kind="stable")
    at_s = np.concatenate(([0.0], np.asarray(times)[order] / SECOND_US, [until_us / SECOND_US]))
    up = agents + np.concatenate(([0], np.cumsum(np.asarray(steps)[order])))
    return at_s, np.append(up, up[-1]).astype(np.float64)


# --- days and losses ------------------------------------------------------------------------------------------------


def day(shape: Diurnal, work: Work) -> Iterator[Control]:
    """What would be busy of servers without end if every job took a little longer."""
    mean = work.duration.exponential
    if mean is None:
        return

    def measure(drawn: Drawn) -> dict[str, float]:
        at_s, work_s = drawn.all
        ticks_s = ticks_of(drawn.scenario)
        busy = neighbours.busy_at(ticks_s, at_s, work_s * LONGER)
        return _parts_of_day(neighbours.swing_of(ticks_s, busy, shape.period, shape.peak_at))

    should = neighbours.endless(shape.mean, shape.swing, shape.period, mean * LONGER)
    yield Control(_parts_of_day(should), measure)


def ticks_of(scenario: Scenario) -> Floats:
    """The points of the timeline inside the window, in seconds."""
    from simulator.world import TICKS

    ticks_s = (round(scenario.end_s * SECOND_US) * np.arange(1, TICKS + 1) // TICKS - 1) / SECOND_US
    return np.asarray(ticks_s[ticks_s >= scenario.horizon.settle])


def _parts_of_day(day: neighbours.Swing) -> dict[str, float]:
    return {"day.mean": day.mean, "day.peak": day.peak, "day.lag": day.lag_s}


def losses(scenario: Scenario, fault: HeartbeatLoss) -> Control:
    """How often a few beats in a row would have been lost, had the line been a little worse: of the first agent."""
    broker, chance = scenario.broker, min(1.0, fault.heartbeat_loss * LIKELIER)
    length, beats = int(broker.suspect / broker.idle_heartbeat), int(scenario.end_s / broker.idle_heartbeat)

    def measure(drawn: Drawn) -> dict[str, float]:
        drawn_beats = drawn.streams.uniform(Stream.BEATS, ENTITY + 1)
        luck = np.fromiter((next(drawn_beats) for _ in range(beats)), np.float64, beats)
        return {"losses": neighbours.runs_in(luck < chance, length) / beats}

    return Control({"losses": neighbours.runs_expected(chance, length, beats) / beats}, measure)
