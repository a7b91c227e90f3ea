"""What is gone is gone at once: the dispatcher leaves nothing that only a collector finds, so the broker does without.

A full collection with a million waiting jobs would stand still for about a second: `broker.garbage` leaves it to idle
moments.
"""

from __future__ import annotations

import gc
from random import Random

from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.watcher import Script
from tests.broker.dispatch.bench import GroupBench
from tests.broker.dispatch.driver import GROUP

JOBS = 60


def test_finished_jobs_leave_nothing_to_the_garbage_collector() -> None:
    group = GroupBench()
    group.agents("a", "b", slots=3)
    ours = Dispatcher(GROUP, group.policy, 1, Random(1))
    script = _course(group)
    gc.collect()
    gc.disable()
    try:
        for now_us, event in script:
            if event is None:
                ours.take_effects()
            else:
                ours.step(now_us, event)
        assert not ours.ledger.jobs
        assert gc.collect() == 0
    finally:
        gc.enable()


def _course(group: GroupBench) -> Script:
    """Jobs that succeed, fail, are cancelled, lost and found; all of them are final at the end."""
    for number in range(JOBS):
        name = f"j{number}"
        group.submit(name, fairness=f"f{number % 7}", total_timeout_s=500, failures_max=2)
        if group.states[name] != "assigned":
            continue
        group.start(name)
        if number % 5 == 1:
            group.fail(name)
        elif number % 5 == 2:
            group.cancel(name).stopped(name)
        elif number % 5 == 3:
            group.lose(group.holder(name)).connect("a", new=True).connect("b", new=True)
        else:
            group.finish(name)
    group.advance(600)
    assert not group.dispatcher.ledger.jobs
    return list(group.watcher.script)
