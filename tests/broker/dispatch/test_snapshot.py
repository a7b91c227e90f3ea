"""A restored dispatcher is the one that was captured: it knows the same and orders the same from then on."""

from __future__ import annotations

import json
from random import Random

import pytest

from broker.dispatch import snapshot
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.invariants import check
from broker.dispatch.ledger import Ledger
from broker.dispatch.messages import AttemptProgressed
from broker.dispatch.model import DispatchPolicy, GroupNo, Placing
from broker.dispatch.snapshot import Snapshot, capture, restore
from broker.dispatch.watcher import Script, replay
from tests.broker.dispatch.bench import GroupBench
from tests.broker.dispatch.course import day


def kept(dispatcher: Dispatcher) -> Snapshot:
    """Captured, written down and read again."""
    taken = capture(dispatcher)
    return Snapshot(taken.group, taken.epoch, json.loads(json.dumps(taken.nodes)))


def again(dispatcher: Dispatcher) -> Dispatcher:
    random = Random()
    assert isinstance(dispatcher.ledger.random, Random)
    random.setstate(dispatcher.ledger.random.getstate())
    return restore(kept(dispatcher), random)


def takes(script: Script) -> list[int]:
    """After which lines of a script a snapshot may be taken."""
    return [index + 1 for index, (_, event) in enumerate(script) if event is None]


@pytest.mark.parametrize("placing", Placing)
def test_restored_dispatcher_gives_the_same_effects_when_it_goes_on_from_anywhere(placing: Placing) -> None:
    group = day(7, placing)
    script = group.watcher.script
    cuts = takes(script)
    for cut in cuts[:: len(cuts) // 10]:
        first = group.fresh()
        replay(first, script[:cut])
        second = again(first)
        assert replay(second, script[cut:]) == replay(first, script[cut:])


@pytest.mark.parametrize("placing", Placing)
def test_restored_dispatcher_goes_on_as_operators_had_configured_it(placing: Placing) -> None:
    group = GroupBench().agents("a", "b", "c", slots=20, labels=["zone=eu"]).label("a", labels=["zone=us"])
    group.submit(*(f"j{number}" for number in range(9)))
    group.configure(placing=placing, placing_choices=2).submit(*(f"k{number}" for number in range(9)))
    other = again(group.dispatcher)
    names = [f"l{number}" for number in range(9)]
    events = [group.submission(name, labels=("zone=us",) if name == "l4" else ()) for name in names]
    for dispatcher in (group.dispatcher, other):
        for event in events:
            dispatcher.step(group.now_us, event)
    ours, theirs = group.dispatcher.take_effects(), other.take_effects()
    assert len(ours.sends) == len(names)
    assert (ours.sends, ours.notices) == (theirs.sends, theirs.notices)
    assert check(other) == []


def test_restored_dispatcher_knows_the_same_and_is_sound() -> None:
    group = day(7)
    other = again(group.dispatcher)
    assert capture(other).nodes == capture(group.dispatcher).nodes
    assert other.durable_view() == group.dispatcher.durable_view()
    assert other.next_deadline_us() == group.dispatcher.next_deadline_us()
    assert check(other) == []
    assert other.ledger.placement.agents is other.ledger.agents


def test_long_queue_is_captured_without_recursion() -> None:
    group = GroupBench().agents("a")
    group.submit_together(*(f"j{number}" for number in range(3_000)))
    other = again(group.dispatcher)
    assert [job.key for job in other.ledger.jobs.values()] == [job.key for job in group.dispatcher.ledger.jobs.values()]
    assert check(other) == []


def test_checkpoint_is_not_kept_but_whose_it_is(group: GroupBench) -> None:
    group.agents("a").submit("j1").start("j1")
    job, agent = group.job("j1"), group.agent("a")
    group.dispatcher.step(group.now_us, AttemptProgressed(agent.no, agent.session, job.key, 1, b"secret"))
    group.dispatcher.take_effects()
    group.dispatcher.ledger.checkpoints[job.key] = b"secret"
    taken = kept(group.dispatcher)
    assert b"secret".hex() not in json.dumps(taken.nodes)
    assert restore(taken, Random()).ledger.checkpoints == {job.key: snapshot.PRESENT}
    group.dispatcher.ledger.checkpoints.clear()


def test_capture_refuses_a_dispatcher_whose_effects_are_not_taken() -> None:
    group = GroupBench().agents("a")
    group.dispatcher.ledger.notice_agent(group.agent("a"), "why")
    with pytest.raises(AssertionError, match="between two batches"):
        capture(group.dispatcher)


@pytest.mark.parametrize(
    "nodes",
    [
        [["Ledger", 1]],
        [["Job"]],
        [["Ledger"], ["os.system"]],
        [["Ledger", *[["o", 9]] * len(snapshot.slots_of(Ledger))]],
        [["Ledger", *[["x", 9]] * len(snapshot.slots_of(Ledger))]],
    ],
)
def test_restore_refuses_what_is_no_snapshot(nodes: list[snapshot.Node]) -> None:
    with pytest.raises(ValueError, match="not a snapshot"):
        restore(Snapshot(GroupNo(1), 1, nodes), Random())


def test_snapshot_of_a_new_dispatcher_has_its_policy() -> None:
    policy = DispatchPolicy(placing=Placing.POWER_OF_D, placing_choices=3)
    other = again(Dispatcher(GroupNo(4), policy, 9, Random(1)))
    assert (other.ledger.policy, other.ledger.group, other.epoch) == (policy, 4, 9)
