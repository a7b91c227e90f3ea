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
