"""Submissions, placing, cancels and time: what the dispatcher itself decides."""

from __future__ import annotations

from typing import Any

import pytest

from broker.dispatch import reasons
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.messages import JobAccepted, RequestRefused, TimerFired, Transition
from broker.dispatch.model import SECOND_US, Agent, AgentNo, DispatchPolicy, GroupNo, group_of
from tests.broker.dispatch.bench import GroupBench
from tests.broker.dispatch.driver import START_US


class NoRandomness:
    def random(self) -> float:
        raise AssertionError("nothing here needs jitter")


# --- submissions ----------------------------------------------------------------------------------------------------


def test_job_is_written_before_its_reply_with_all_that_it_asks_for(group: GroupBench) -> None:
    group.submit(
        "j1",
        labels=("zone=eu",),
        level=2,
        fairness="ann",
        limit_key="crm",
        run_timeout_s=5,
        total_timeout_s=60,
        body=b"{}",
    )
    row = group.row("j1")
    assert group.last.writes.inserts == [row]
    assert (row.state, row.level, row.fairness, row.limit_key) == ("queued", 2, "ann", "crm")
    assert (row.run_timeout_us, row.total_by_us) == (5 * SECOND_US, START_US + 60 * SECOND_US)
    assert group.last.writes.payloads == {row.job_key: b"{}"}
    assert [one.labels for one in group.last.writes.label_sets] == [("zone=eu",)]
    assert [one.no for one in group.last.writes.policies] == [row.policy_no]


def test_job_key_names_the_group_and_grows_with_each_acceptance(group: GroupBench) -> None:
    group.submit("j1", "j2")
    keys = [group.row(name).job_key for name in ("j1", "j2")]
    assert keys[1] == keys[0] + 1
    assert group_of(keys[0]) == 7


def test_label_set_and_policy_are_written_once_when_many_jobs_share_them(group: GroupBench) -> None:
    group.submit("j1", labels=("zone=eu",)).submit("j2", labels=("zone=eu",))
    assert not group.last.writes.label_sets
    assert not group.last.writes.policies


def test_submission_gets_the_same_job_when_it_comes_twice_in_one_batch(group: GroupBench) -> None:
    first, again = group.submission("j1"), group.submission("j1")
    group.batch(first, again)
    assert [type(reply) for reply in group.last.replies] == [JobAccepted, JobAccepted]
    assert [reply.job_key for reply in group.last.replies if isinstance(reply, JobAccepted)] == [7 << 40 | 1] * 2
    assert len(group.last.writes.inserts) == 1


def test_submission_gets_the_same_job_when_its_key_comes_twice_in_one_batch(group: GroupBench) -> None:
    group.batch(group.submission("j1", idempotency_key="k"), group.submission("j2", idempotency_key="k"))
    assert group.replies == ["accepted", "accepted again as 7696581394433"]
    assert [(row.key, row.expires_us) for row in group.last.writes.keys] == [("k", START_US + 7 * 86_400 * SECOND_US)]


def test_submission_is_refused_when_its_key_was_used_for_other_content(group: GroupBench) -> None:
    group.submit("j1", idempotency_key="k").submit("j2", idempotency_key="k", content="other")
    (reply,) = group.last.replies
    assert isinstance(reply, RequestRefused)
    assert (reply.reason, reply.job_key) == (reasons.KEY_REUSED, group.row("j1").job_key)
    assert not group.last.writes


@pytest.mark.parametrize(
    ("bound", "fields", "reason"),
    [
        ({"queue_jobs_max": 1}, {}, reasons.QUEUE_FULL),
        ({"queue_bytes_max": 10}, {"payload_bytes": 5}, reasons.QUEUE_BYTES_FULL),
        ({"label_sets_max": 1}, {"labels": ("zone=eu",)}, reasons.LABEL_SETS_FULL),
        ({"lanes_max": 1}, {"fairness": "bob"}, reasons.LANES_FULL),
    ],
)
def test_submission_is_refused_when_a_bound_is_reached(
    bound: dict[str, Any], fields: dict[str, object], reason: str
) -> None:
    group = GroupBench(**bound).submit("j1", payload_bytes=6).submit("j2", **fields)
    assert group.replies == [f"refused {reason}"]
    assert not group.last.writes
    assert group.states == {"j1": "queued"}
    group.check_run()


def test_submission_is_accepted_again_when_a_finished_job_made_room() -> None:
    group = GroupBench(queue_jobs_max=1).agents("a").submit("j1").finish("j1").submit("j2")
    assert group.assigned == {"a": ["j2"]}
    group.check_run()


# --- placing --------------------------------------------------------------------------------------------------------


def test_jobs_of_different_label_sets_are_placed_in_the_order_of_acceptance(group: GroupBench) -> None:
    group.submit("j1", operation="fetch").advance(1).submit("j2", operation="store").advance(1)
    group.submit("j3", operation="fetch")
    group.agents("a", slots=3, operations=("fetch", "store"))
    assert group.placements == ["j1#1 a", "j2#1 a", "j3#1 a"]


def test_levels_are_strict_between_label_sets_too_when_ageing_is_off() -> None:
    group = GroupBench(ageing_us=0).submit("old", operation="fetch", level=2).advance(1_000)
    group.submit("young", operation="store", level=1).agents("a", slots=2, operations=("fetch", "store"))
    assert group.placements == ["young#1 a", "old#1 a"]


def test_jobs_that_nobody_serves_do_not_hold_up_others(group: GroupBench) -> None:
    group.submit("j1", labels=("zone=mars",)).submit("j2").agents("a")
    assert group.assigned == {"a": ["j2"]}
    assert group.queued == ["j1"]


def test_placing_goes_on_in_the_next_step_when_a_step_has_placed_all_it_may() -> None:
    group = GroupBench(placements_step_max=2).submit("j1", "j2", "j3", "j4", "j5").agents("a", slots=5)
    assert group.dispatcher.next_deadline_us() == group.now_us, "it asks to be woken now"
    group.advance(0)
    assert group.placements == [f"j{number}#1 a" for number in range(1, 6)]
    group.check_run()


def test_lost_agent_gives_its_jobs_back_in_their_old_order(group: GroupBench) -> None:
    group.agents("a", "b").submit("j1", "j2", "j3").lose("a")
    assert group.assigned == {"b": ["j2"]}
    assert group.queued == ["j1", "j3"]


def test_operation_that_nobody_offers_fails_and_says_what_is_offered(group: GroupBench) -> None:
    group.agents("a", operations=("fetch", "store")).submit("j1", operation="fetsch").advance(5)
    assert group.row("j1").code == reasons.OPERATION_UNKNOWN
    assert group.row("j1").message == "no agent of the group offers `fetsch`; offered: fetch, store"


def test_operation_that_nobody_offers_waits_when_no_agent_is_there(group: GroupBench) -> None:
    group.add("a").submit("j1", operation="fetsch").advance(60)
    assert group.states == {"j1": "queued"}


def test_operation_that_nobody_offers_waits_when_an_agent_comes_that_does(group: GroupBench) -> None:
    group.agents("a", operations=("store",)).submit("j1", operation="fetch").advance(4)
    group.agents("b", operations=("fetch",)).advance(3)
    assert group.placements == ["j1#1 b"]


# --- cancels --------------------------------------------------------------------------------------------------------


def test_cancel_is_refused_when_the_job_is_finished(group: GroupBench) -> None:
    group.agents("a").submit("j1").finish("j1").cancel("j1")
    assert group.replies == ["refused JOB_FINAL"]
    assert group.states == {"j1": "succeeded"}


def test_cancel_of_a_waiting_job_gives_its_place_to_the_next(group: GroupBench) -> None:
    group.submit("j1", "j2").cancel("j1", actor="ann").agents("a")
    assert group.states["j1"] == "cancelled"
    assert [(row.reason, row.actor) for row in group.stored.transitions] == [("cancelled", "ann")]
    assert group.assigned == {"a": ["j2"]}


def test_cancel_of_a_held_job_is_final(group: GroupBench) -> None:
    group.agents("a").submit("j1", on_loss="hold").start("j1").lose("a").cancel("j1")
    assert group.states == {"j1": "cancelled"}


def test_cancel_twice_sends_one_stop(group: GroupBench) -> None:
    group.agents("a").submit("j1").start("j1").cancel("j1").cancel("j1")
    assert group.replies == ["done running"]
    assert group.sends == []


# --- time -----------------------------------------------------------------------------------------------------------


def test_dispatcher_wants_no_wake_up_when_nothing_is_armed() -> None:
    dispatcher = Dispatcher(GroupNo(1), DispatchPolicy(), 1, NoRandomness())
    dispatcher.step(1, TimerFired())
    assert dispatcher.next_deadline_us() is None
    assert not dispatcher.take_effects()


def test_dispatcher_refuses_time_that_goes_back(group: GroupBench) -> None:
    group.add("a")
    with pytest.raises(AssertionError, match="time never goes back"):
        group.dispatcher.step(START_US - 1, TimerFired())


def test_lazy_writes_wait_for_a_commit_at_most_a_second(group: GroupBench) -> None:
    group.agents("a").submit("j1").start("j1")
    assert not group.last.writes
    assert group.row("j1").state == "assigned"
    group.advance(1)
    assert group.row("j1").state == "running"


def test_lazy_writes_ride_with_the_next_commit(group: GroupBench) -> None:
    group.agents("a").submit("j1").start("j1").submit("j2")
    assert [(update.state, update.phase) for update in group.last.writes.updates] == [("running", "accepted")]


def test_waiting_job_fails_when_it_was_not_started_in_time(group: GroupBench) -> None:
    group.agents("a").submit("j0").start("j0")
    group.submit("j1", schedule_to_start_s=10).advance(9.9)
    assert group.states["j1"] == "queued"
    group.advance(0.1)
    assert (group.row("j1").state, group.row("j1").code) == ("failed", reasons.NOT_STARTED_IN_TIME)


def test_mistyped_operations_of_the_past_close_no_group() -> None:
    group = GroupBench(label_sets_max=2).agents("a")
    for number in range(5):
        group.submit(f"j{number}", operation=f"wrok{number}").advance(5)
        assert group.states[f"j{number}"] == "failed"
    group.submit("last")
    assert group.assigned == {"a": ["last"]}
    group.check_run()


def test_schedule_to_start_counts_for_the_first_start_only(group: GroupBench) -> None:
    group.agents("a").submit("j1", schedule_to_start_s=10).start("j1").lose("a").advance(30)
    assert group.states == {"j1": "queued"}


def test_expiries_go_on_in_the_next_step_when_a_step_has_worked_all_it_may() -> None:
    group = GroupBench(expiries_step_max=3)
    names = [f"j{number}" for number in range(8)]
    group.submit(*names, total_timeout_s=10)
    group.now_us += 10 * SECOND_US
    group.batch()
    assert list(group.states.values()).count("failed") == 3
    assert group.dispatcher.next_deadline_us() == group.now_us
    group.advance(0)
    assert set(group.states.values()) == {"failed"}
    group.check_run()


def test_stall_moves_accept_timeouts_and_take_away_times_by_its_length(group: GroupBench) -> None:
    group.agents("a", "b").submit("j1", "j2").start("j2").advance(1).close("b").stall(60)
    assert group.phases == {"j1": "sent", "j2": "away"}
    group.advance(2)
    assert group.phases == {"j1": "sent", "j2": "adoptable"}
    group.advance(2)
    assert group.phases["j1"] == "adoptable", "the accept timeout has come, the stall aside"


def test_agent_that_is_added_twice_is_answered_and_written_once(group: GroupBench) -> None:
    group.add("a").add("a")
    assert group.replies == ["done"]
    assert not group.last.writes


def test_expiries_of_a_step_are_bounded_when_an_agent_falls_silent_in_it() -> None:
    group = GroupBench(expiries_step_max=3).agents("a", slots=10).agents("b")
    held = [f"w{number}" for number in range(9)]
    group.submit(*held).start(*held).mute("a").advance(5)
    group.submit_together(*(f"u{number}" for number in range(60)), operation="other")
    seen = len(group.history)
    group.advance(6)
    ended = [
        sum(notice.reason == "operation_unknown" for notice in effects.notices if isinstance(notice, Transition))
        for _, effects in group.history[seen:]
    ]
    assert sum(ended) == 60
    assert max(ended) <= 3


def test_agent_of_many_attempts_is_removed_in_slices() -> None:
    group = GroupBench(expiries_step_max=8).agents("a", slots=60)
    names = [f"j{number}" for number in range(50)]
    group.submit(*names).start(*names).close("a").remove("a")
    assert list(group.states.values()).count("queued") == 8 + 7  # the step of the request, and that of the timer
    group.advance(1)
    assert set(group.states.values()) == {"queued"}
    assert not group.dispatcher.ledger.agents


def test_group_asks_for_an_active_agent_once_for_many_submissions() -> None:
    group = GroupBench()
    for number in range(40):
        group.add(f"a{number}")
    group.configure(refuses_inactive=True)
    asked = 0
    agents = group.dispatcher.ledger.agents

    class Counted(dict[AgentNo, Agent]):
        def values(self) -> Any:
            nonlocal asked
            asked += 1
            return super().values()

    group.dispatcher.ledger.agents = Counted(agents)
    for number in range(100):
        group.dispatcher.step(group.now_us, group.submission(f"j{number}"))
    assert asked == 1
    assert {reply.reason for reply in group.dispatcher.take_effects().replies if isinstance(reply, RequestRefused)} == {
        "GROUP_INACTIVE"
    }
