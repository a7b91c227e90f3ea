"""A run that does not add up is not reported."""

import pytest

from broker.dispatch.model import JobKey
from simulator.recorder import SelfTestError
from simulator.world import World
from tests.simulator.worlds import scenario


def world() -> World:
    one = World(scenario(fidelity="exact", run="20 s"), seed=1, replication=0)
    one.run()
    return one


def test_run_that_adds_up_has_lost_nothing() -> None:
    assert world().recorder.check({}) == 0


def test_jobs_that_vanish_from_the_dispatcher_are_counted_as_lost() -> None:
    one = world()
    recorder, job = one.recorder, one.loads[0].draw(one.clock.now_us)
    recorder.arrived(job)
    recorder.accepted(job, JobKey(1))
    assert recorder.check({}) == 1
    assert recorder.check({JobKey(1): job}) == 0


def test_job_that_is_counted_twice_is_found() -> None:
    recorder = world().recorder
    recorder.finished += 1
    with pytest.raises(SelfTestError, match="accepted"):
        recorder.check({})


def test_time_that_is_counted_twice_is_found() -> None:
    recorder = world().recorder
    recorder.sojourns_us += 1
    with pytest.raises(SelfTestError, match="Little"):
        recorder.check({})


def test_endings_are_counted_at_once_as_they_are_when_folded() -> None:
    work = {"failure": 0.2, "attempts": 2, "start-within": {"constant": "300 ms"}}
    one = World(scenario(fidelity="exact", agents={"count": 1, "slots": 7}, work=work), 1, 0)
    one.run()
    seen = one.recorder.work[1]
    seen.fold()
    for state in ("succeeded", "failed", "dead"):  # those that did not start in time have failed
        assert seen.ended(state) == sum(phase.get(state, 0) for phase in seen.counts) > 0
    assert seen.ended("cancelled") == 0


def test_agent_that_is_lost_once_more_while_the_broker_misses_it_is_lost_since_the_first_time() -> None:
    hang = {"at": "6 s", "hang": "erp/2", "for": "14 s"}
    cut = {"at": "12 s", "partition": "zone-b", "for": "3 s", "way": "to-broker"}
    seen = World(scenario(fidelity="wire", settle="2 s", run="30 s", faults=[hang, cut]), 5, 0).run()

    assert seen.figures["failover.detect.count"] > 0
    assert seen.samples["failover.decide"].least > 0
