"""A dispatcher from what is stored: equal in the durable projection, all that is soft begins anew."""

from __future__ import annotations

from broker.dispatch.invariants import check
from broker.dispatch.model import Admin, Link
from broker.dispatch.rows import JobRow
from tests.broker.dispatch.bench import GroupBench


def hard(row: JobRow) -> JobRow:
    """The row without what is soft: whether its attempt was accepted or has started."""
    return row._replace(phase="", state="", started_us=0)


def test_recovered_dispatcher_has_the_same_jobs(group: GroupBench) -> None:
    group.agents("a", slots=2).submit("j1", "j2", "j3", "j4", payload_bytes=5).submit("j5", delay_s=60)
    group.start("j1").fail("j2").advance(2)
    before = dict(group.stored.jobs)
    group.restart()
    after = group.dispatcher.durable_view()
    assert {key: hard(row) for key, row in after.items()} == {key: hard(row) for key, row in before.items()}
    assert group.dispatcher.ledger.queued_bytes == 20


def test_live_attempts_are_away_until_the_recovery_grace(group: GroupBench) -> None:
    group.agents("a", slots=2).submit("j1").submit("j2", exclusive=True).start("j1", "j2").restart()
    assert set(group.phases.values()) == {"away"}
    group.advance(29.9)
    assert set(group.phases.values()) == {"away"}
    group.advance(0.1)
    assert group.queued == ["j1", "j2"]


def test_agent_that_is_back_goes_on_with_its_work(group: GroupBench) -> None:
    group.agents("a").submit("j1").start("j1").restart().connect("a", held=["j1"])
    assert group.sends == ["a: welcome keep"]
    assert group.finish("j1").states == {"j1": "succeeded"}


def test_agent_that_never_got_its_assign_gets_the_job_again(group: GroupBench) -> None:
    group.agents("a").submit("j1").restart().connect("a")
    assert group.placements == ["j1#1 a", "j1#2 a"]


def test_new_work_is_placed_at_once_on_agents_that_are_back(group: GroupBench) -> None:
    group.agents("a", "b").submit("j1", "j2").start("j1", "j2").restart()
    group.connect("b", held=["j2"], slots=2).submit("j3")
    assert group.assigned == {"a": ["j1"], "b": ["j2", "j3"]}


def test_attempt_numbers_go_on_and_keys_are_never_used_again(group: GroupBench) -> None:
    group.agents("a").submit("j1").reject("j1").restart().connect("a").submit("j2")
    assert group.job("j1").attempt == 2
    assert group.row("j2").job_key == group.row("j1").job_key + 1


def test_key_of_a_finished_job_is_not_used_again(group: GroupBench) -> None:
    group.agents("a").submit("j1").finish("j1").restart().submit("j2")
    assert group.row("j2").job_key == group.row("j1").job_key + 1


def test_waiting_jobs_stand_in_the_same_order_with_those_that_returned(group: GroupBench) -> None:
    group.agents("a").submit("j1", "j2", "j3").fail("j1").advance(1).restart().connect("a", slots=4, held=["j2"])
    assert group.placements[-2:] == ["j1#2 a", "j3#1 a"]


def test_cancel_that_was_asked_for_is_remembered(group: GroupBench) -> None:
    group.agents("a").submit("j1").start("j1").cancel("j1").restart().connect("a", held=["j1"])
    assert group.sends == ["a: cancel j1#1, requested, grace 10 s", "a: welcome keep"]


def test_run_that_was_to_stop_at_its_deadline_is_stopped_again(group: GroupBench) -> None:
    group.agents("a").submit("j1", run_timeout_s=10).start("j1").advance(11).restart().connect("a", held=["j1"])
    assert group.sends == ["a: cancel j1#1, run_timeout, grace 10 s", "a: welcome keep"]


def test_drain_that_waited_only_for_a_slot_is_complete_after_a_restart(group: GroupBench) -> None:
    """The slot was that of an attempt which went to another agent: with the streams nobody knows of it any more."""
    group.agents("a", "b").submit("j1").advance(5).drain("a")
    assert (group.agent("a").admin, group.detached) == (Admin.DRAINING, {"a": ["j1#1"]})
    group.restart()
    assert not check(group.dispatcher)
    group.advance(0)
    assert (group.agent("a").admin, group.agent("a").link) == (Admin.ENABLED, Link.STOPPED)
    assert group.stored.agents[group.agent("a").no].admin == Admin.ENABLED


def test_attempt_that_was_taken_away_is_adoptable_still(group: GroupBench) -> None:
    group.agents("a").submit("j1").start("j1").lose("a").restart().connect("a", outcomes=["j1=succeeded"])
    assert group.states == {"j1": "succeeded"}


def test_deadlines_of_waiting_jobs_are_armed_again(group: GroupBench) -> None:
    group.submit("j1", total_timeout_s=10).submit("j2", schedule_to_start_s=20).submit("j3", delay_s=30)
    group.restart().advance(30)
    assert group.states == {"j1": "failed", "j2": "failed", "j3": "queued"}


def test_agents_are_known_and_gone_until_they_come(group: GroupBench) -> None:
    group.agents("a").add("b").restart()
    assert (group.agent("a").link, group.agent("b").link) == (Link.GONE, Link.NEVER)
    assert group.agent("a").incarnation == b"a-1"


def test_label_sets_and_policies_are_not_written_again(group: GroupBench) -> None:
    group.submit("j1", labels=("zone=eu",)).restart().submit("j2", labels=("zone=eu",))
    assert not group.last.writes.label_sets
    assert not group.last.writes.policies
