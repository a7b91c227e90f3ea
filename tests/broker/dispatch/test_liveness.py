"""Sessions of agents: rows 4, 6 to 10, 15, 16 and 19 of attempts, rows c to i of sessions."""

from __future__ import annotations

import pytest

from broker.dispatch.messages import AgentLeft, AgentsHeard, TimerFired
from broker.dispatch.model import SECOND_US, Link, Phase
from tests.broker.dispatch import words
from tests.broker.dispatch.bench import GroupBench

pytestmark = pytest.mark.req("R03")


@pytest.fixture
def running(group: GroupBench) -> GroupBench:
    """j1 runs on a; b has room."""
    return group.agents("a", "b").submit("j1").start("j1")


@pytest.fixture
def exclusive(group: GroupBench) -> GroupBench:
    """j1, exclusive, runs on a; b has room."""
    return group.agents("a", "b").submit("j1", exclusive=True).start("j1")


# --- row 4 ----------------------------------------------------------------------------------------------------------


def test_agent_is_deaf_when_it_does_not_accept_in_time_though_it_is_heard(group: GroupBench) -> None:
    group.agents("a", slots=2).submit("j1").advance(5).submit("j2").advance(30)
    assert group.agent("a").is_deaf
    assert group.queued == ["j1", "j2"]


@pytest.mark.parametrize("report", ["accept", "start", "reject", "finish"])
def test_deaf_agent_gets_work_again_when_it_reports(group: GroupBench, report: str) -> None:
    group.agents("a", slots=2).submit("j1").advance(5)
    getattr(group, report)("j1#1", agent="a")
    assert not group.agent("a").is_deaf


def test_accept_timeout_counts_from_each_assign(group: GroupBench) -> None:
    group.agents("a", slots=2).submit("j1").advance(2).submit("j2").advance(3)
    assert group.phases == {"j1": "adoptable", "j2": "sent"}
    assert group.advance(2).phases == {"j1": "adoptable", "j2": "adoptable"}


LARGE = 1 << 20
"""16 s on the slowest way that counts as one."""


def test_agent_may_take_longer_to_accept_what_has_a_large_payload(group: GroupBench) -> None:
    group.agents("a").submit("j1", payload_bytes=LARGE).advance(20.9)
    assert group.phases == {"j1": "sent"}
    assert group.advance(0.2).phases == {"j1": "adoptable"}
    assert group.agent("a").is_deaf


def test_acceptance_is_waited_for_from_when_what_is_before_it_on_the_wire_was_taken(group: GroupBench) -> None:
    group.agents("a", slots=3).submit("j1", "j2", payload_bytes=LARGE).submit("j3")
    group.advance(20).accept("j1").advance(20).accept("j2")
    assert group.phases["j3"] == "sent"
    group.advance(20).advance(2)
    assert group.phases == {"j1": "accepted", "j2": "accepted", "j3": "adoptable"}


def test_acceptance_out_of_turn_gives_what_was_passed_over_no_more_time(group: GroupBench) -> None:
    group.agents("a", slots=3).submit("j1", "j2", "j3")
    group.advance(3).accept("j2").advance(2.1)
    assert group.phases == {"j1": "adoptable", "j2": "accepted", "j3": "adoptable"}


def test_large_payload_that_is_cancelled_may_still_be_on_the_wire_before_the_next_one(group: GroupBench) -> None:
    group.agents("a", slots=2).submit("j1", payload_bytes=LARGE).submit("j2").cancel("j1")
    assert group.advance(20.9).phases["j2"] == "sent"
    assert group.advance(0.2).phases["j2"] == "adoptable"


# --- row 6 and the take-away time -----------------------------------------------------------------------------------


def test_attempt_is_away_when_the_session_ends_and_its_slot_stays_taken(running: GroupBench) -> None:
    running.close("a")
    assert running.phases == {"j1": "away"}
    assert running.states == {"j1": "running"}
    assert running.agent("a").held == 1


def test_repeatable_attempt_is_taken_away_at_the_reconnect_grace(running: GroupBench) -> None:
    running.close("a").advance(1.9)
    assert running.phases == {"j1": "away"}
    assert running.advance(0.1).assigned == {"b": ["j1"]}


def test_attempt_that_was_never_accepted_is_taken_away_at_once(group: GroupBench) -> None:
    group.agents("a", "b").submit("j1").close("a")
    assert group.assigned == {"b": ["j1"]}
    assert (group.job("j1").bounces, group.job("j1").crashes) == (1, 0)


def test_exclusive_attempt_is_taken_away_a_lease_after_the_agent_was_heard(exclusive: GroupBench) -> None:
    exclusive.advance(3).mute("a").advance(4).close("a").advance(5.9)
    assert exclusive.phases == {"j1": "away"}
    assert exclusive.advance(0.1).assigned == {"b": ["j1"]}


def test_exclusive_attempt_is_not_taken_away_before_a_repeatable_one_would_be(exclusive: GroupBench) -> None:
    exclusive.mute("a").advance(9).close("a").advance(1.9)
    assert exclusive.phases == {"j1": "away"}
    assert exclusive.advance(0.1).assigned == {"b": ["j1"]}


def test_exclusive_attempt_that_was_never_accepted_waits_for_the_lease_too(group: GroupBench) -> None:
    group.agents("a", "b").submit("j1", exclusive=True).close("a").advance(9.9)
    assert group.phases == {"j1": "away"}


def test_taken_away_attempts_are_worked_in_slices() -> None:
    group = GroupBench(expiries_step_max=3).agents("a", slots=8)
    names = [f"j{number}" for number in range(8)]
    group.submit(*names).start(*names).close("a")
    group.now_us += 2 * SECOND_US
    group.batch()
    assert list(group.phases.values()).count(Phase.ADOPTABLE) == 2, "the agent itself was the first of three"
    assert group.advance(0).queued == names
    group.check_run()


# --- rows 7, 8 and 9 ------------------------------------------------------------------------------------------------


def test_agent_that_is_back_in_time_goes_on(running: GroupBench) -> None:
    running.close("a").advance(1).connect("a", held=["j1"]).advance(10)
    assert running.states == {"j1": "running"}
    assert running.placements == ["j1#1 a"]


def test_agent_that_is_back_late_goes_on_when_nobody_else_has_the_job(group: GroupBench) -> None:
    group.agents("a").submit("j1").start("j1").lose("a").advance(100).connect("a", held=["j1"])
    assert group.states == {"j1": "running"}
    assert group.sends == ["a: welcome keep"]


def test_agent_that_is_back_late_is_stopped_when_another_has_the_job(running: GroupBench) -> None:
    running.lose("a").connect("a", held=["j1#1"])
    assert running.sends == ["a: welcome stop"]
    assert running.assigned == {"b": ["j1"]}


def test_verdicts_stand_in_the_order_of_what_is_held(group: GroupBench) -> None:
    group.agents("a", slots=3).submit("j1", "j2", "j3").start("j1", "j2", "j3").finish("j2").close("a")
    group.connect("a", held=["j3", "j2", "j1"])
    assert group.sends == ["a: welcome keep stop keep"]


def test_attempt_is_stopped_when_its_total_time_went_by_while_it_was_away(group: GroupBench) -> None:
    group.agents("a").submit("j1", exclusive=True, total_timeout_s=5).start("j1").close("a").advance(6)
    group.connect("a", held=["j1"])
    assert group.sends == ["a: cancel j1#1, total_timeout, grace 10 s", "a: welcome keep"]
    assert group.stopped("j1").row("j1").code == "deadline_exceeded"


def test_exclusive_attempt_is_stopped_again_when_its_agent_comes_back_with_it(exclusive: GroupBench) -> None:
    exclusive.cancel("j1").close("a").connect("a", held=["j1"])
    assert exclusive.phases == {"j1": "stopping"}
    assert exclusive.stopped("j1").states == {"j1": "cancelled"}


@pytest.mark.parametrize(("was_accepted", "bounces"), [(True, 1), (False, 0)])
def test_attempt_that_the_same_process_lost_goes_back(group: GroupBench, was_accepted: bool, bounces: int) -> None:
    group.agents("a", "b").submit("j1", exclusive=True)
    if was_accepted:
        group.accept("j1")
    group.close("a").connect("a")
    assert (group.job("j1").bounces, group.assigned) == (bounces, {"b": ["j1"]})


def test_outcome_and_running_in_one_hello_are_both_worked_before_anything_is_missed(group: GroupBench) -> None:
    group.agents("a", slots=3).submit("j1", "j2", "j3").start("j1", "j2", "j3")
    group.close("a").connect("a", held=["j2"], outcomes=["j1=succeeded"])
    assert group.states == {"j1": "succeeded", "j2": "running", "j3": "assigned"}
    assert group.job("j3").attempt == 2


def test_new_process_gives_the_repeatable_jobs_of_the_old_back_at_once(running: GroupBench) -> None:
    running.close("a").connect("a", new=True)
    assert (running.job("j1").crashes, running.assigned) == (1, {"b": ["j1"]})


@pytest.mark.parametrize(("silent_s", "crashes", "bounces"), [(0, 0, 1), (6, 1, 0)])
def test_new_process_takes_over_and_counts_no_crash_unless_the_old_was_silent(
    running: GroupBench, silent_s: int, crashes: int, bounces: int
) -> None:
    running.mute("a").advance(silent_s).connect("a", new=True)
    job = running.job("j1")
    assert (job.crashes, job.bounces, running.assigned) == (crashes, bounces, {"b": ["j1"]})


def test_exclusive_work_of_a_process_that_was_taken_over_counts_no_crash_at_its_fence(exclusive: GroupBench) -> None:
    exclusive.connect("a", new=True).advance(10)
    assert (exclusive.job("j1").crashes, exclusive.job("j1").bounces) == (0, 1)


def test_exclusive_work_that_was_taken_over_counts_no_crash_when_the_newer_process_ends_too(
    exclusive: GroupBench,
) -> None:
    exclusive.connect("a", new=True).advance(1).close("a").advance(10)
    assert (exclusive.job("j1").crashes, exclusive.job("j1").bounces) == (0, 1)


def test_process_that_was_let_in_again_may_come_back_on_a_new_stream(running: GroupBench) -> None:
    running.connect("a", new=True).connect("a", old=True)
    assert "a: reject QUARANTINED" in running.sends
    running.close("a").connect("a", old=True).connect("a")
    assert running.sends[-1].startswith("a: welcome") or "a: welcome" in running.sends[-3:]


def test_process_that_took_over_and_dies_is_a_crash(running: GroupBench) -> None:
    running.connect("a", new=True).submit("j2").start("j2").close("a").connect("a", new=True)
    assert running.job("j2").crashes == 1


def test_new_process_cannot_speak_for_the_exclusive_jobs_of_the_old(exclusive: GroupBench) -> None:
    exclusive.connect("a", new=True)
    assert exclusive.phases == {"j1": "away"}
    exclusive.advance(9.9)
    assert exclusive.phases == {"j1": "away"}
    assert exclusive.advance(0.1).assigned == {"b": ["j1"]}


def test_new_process_may_take_work_beside_what_the_old_still_holds(group: GroupBench) -> None:
    group.agents("a", slots=2).submit("j1", exclusive=True).start("j1").connect("a", new=True).submit("j2")
    assert group.assigned == {"a": ["j1", "j2"]}


# --- rows 15 and 16 -------------------------------------------------------------------------------------------------


def test_stop_that_nobody_confirms_is_given_up_and_noticed(running: GroupBench) -> None:
    running.cancel("j1").advance(14.9)
    assert running.phases == {"j1": "stopping"}
    running.advance(0.1)
    assert running.states == {"j1": "cancelled"}
    assert running.detached == {"a": ["j1#1"]}
    assert [row.ending for row in running.stored.attempts] == ["stop_unconfirmed"]
    assert [notice.why for notice in running.last.notices if hasattr(notice, "why")] == ["stuck"]


def test_exclusive_job_is_held_when_its_stop_is_not_confirmed_and_it_would_go_back(group: GroupBench) -> None:
    group.agents("a", "b").submit("j1", exclusive=True).advance(5 + 15)
    assert group.states == {"j1": "held"}
    assert group.assigned == {}


def test_exclusive_job_is_cancelled_when_that_was_asked_for_and_not_confirmed(
    exclusive: GroupBench,
) -> None:
    exclusive.cancel("j1").advance(15)
    assert exclusive.states == {"j1": "cancelled"}


def test_exclusive_job_that_was_held_goes_on_when_its_agent_comes_back_with_it(group: GroupBench) -> None:
    group.agents("a").submit("j1", exclusive=True, run_timeout_s=10).start("j1").advance(26).connect("a", held=["j1"])
    assert group.states == {"j1": "running"}
    assert group.phases == {"j1": "stopping"}, "its time is still over"


def test_stopping_job_is_settled_at_once_when_the_session_ends(running: GroupBench) -> None:
    running.cancel("j1").close("a")
    assert running.states == {"j1": "cancelled"}


def test_stopping_exclusive_job_is_settled_when_the_lease_is_over(exclusive: GroupBench) -> None:
    exclusive.cancel("j1").close("a").advance(9.9)
    assert exclusive.states == {"j1": "running"}
    assert exclusive.advance(0.1).states == {"j1": "cancelled"}


def test_exclusive_work_of_a_process_that_was_heard_after_its_end_waits_for_that_lease(exclusive: GroupBench) -> None:
    """Its heartbeat was acknowledged before anybody had told its stream that another process has taken over."""
    old = exclusive.agent("a").session
    exclusive.advance(1.1).mute("a").advance(3).connect("a", new=True)
    heard_us = exclusive.now_us
    exclusive.batch(AgentsHeard(((exclusive.agent("a").no, old, heard_us),))).advance(9.9)
    assert exclusive.phases == {"j1": "away"}
    exclusive.advance(0.2)
    assert exclusive.phases != {"j1": "away"}


def test_detached_attempts_give_their_slots_back_when_the_session_ends(group: GroupBench) -> None:
    group.agents("a", "b").submit("j1").advance(5).close("a").connect("a").submit("j2")
    assert group.assigned == {"b": ["j1"], "a": ["j2"]}


# --- row 19 ---------------------------------------------------------------------------------------------------------


def test_goodbye_gives_everything_back_uncounted(running: GroupBench) -> None:
    running.leave("a")
    job = running.job("j1")
    assert (job.crashes, job.bounces, job.failures, job.attempt) == (0, 0, 0, 2)
    assert running.agent("a").link is Link.LEFT


def test_goodbye_of_an_old_session_changes_nothing(running: GroupBench) -> None:
    old = running.agent("a").session
    running.connect("a", held=["j1"]).batch(AgentLeft(running.agent("a").no, old))
    assert running.phases == {"j1": "accepted"}
    assert running.agent("a").link is Link.LIVE


# --- sessions -------------------------------------------------------------------------------------------------------


def test_newest_stream_wins_and_the_old_one_is_told(running: GroupBench) -> None:
    running.connect("a", held=["j1"])
    assert running.sends == ["a: end session, superseded", "a: welcome keep"]


def test_stream_that_comes_late_is_rejected(running: GroupBench) -> None:
    running.connect("a", stale=True)
    assert running.sends == ["a: reject SUPERSEDED"]
    assert running.phases == {"j1": "accepted"}


def test_new_process_wins_whatever_its_sequence_number_is(running: GroupBench) -> None:
    running.connect("a", held=["j1"]).connect("a", new=True)
    assert running.agent("a").connect_seq == 1
    assert "a: end session, taken_over" in running.sends


def test_hello_on_the_same_stream_cuts_nothing(running: GroupBench) -> None:
    running.connect("a", held=["j1"], resync=True)
    assert running.sends == ["a: welcome keep"]
    assert running.phases == {"j1": "accepted"}


def test_hello_brings_new_operations_and_capacity(group: GroupBench) -> None:
    group.agents("a", operations=("store",)).submit("j1", operation="fetch", limit_key="x").advance(1)
    group.connect("a", operations=("fetch",), slots=3)
    assert group.assigned == {"a": ["j1"]}
    assert group.agent("a").capacity == 3


def test_silent_agent_is_suspect_then_gone(running: GroupBench) -> None:
    running.mute("a").advance(5.9)
    assert running.agent("a").link is Link.LIVE
    running.advance(0.1)
    assert running.agent("a").link is Link.SUSPECT
    running.advance(3.9)
    assert running.phases == {"j1": "accepted"}
    running.advance(0.1)
    assert running.agent("a").link is Link.GONE
    assert running.assigned == {"b": ["j1"]}
    assert running.sends[0] == "a: end session, silent"


def test_suspect_agent_gets_nothing_until_it_is_heard(group: GroupBench) -> None:
    group.agents("a").mute("a").advance(6).submit("j1")
    assert group.queued == ["j1"]
    assert group.unmute("a").assigned == {"a": ["j1"]}


def test_silence_takes_exclusive_attempts_away_without_further_grace(exclusive: GroupBench) -> None:
    exclusive.mute("a").advance(10)
    assert exclusive.assigned == {"b": ["j1"]}


def test_frames_of_an_ended_session_are_no_contact(running: GroupBench) -> None:
    old = running.agent("a").session
    running.connect("a", held=["j1"]).mute("a").advance(6)
    running.batch(AgentsHeard(((running.agent("a").no, old, running.now_us),)))
    assert running.agent("a").link is Link.SUSPECT


def test_end_of_an_old_session_changes_nothing(running: GroupBench) -> None:
    old = running.agent("a").session
    running.connect("a", held=["j1"]).close("a", session=old)
    assert running.phases == {"j1": "accepted"}
    assert running.agent("a").is_present


def test_attempt_sent_in_the_turn_after_a_stall_counts_from_that_turn(group: GroupBench) -> None:
    group.agents("a", slots=2)
    group.now_us += 4 * SECOND_US
    group.batch(group.submission("j1"), TimerFired(4 * SECOND_US))
    assert list(group.agent("a").sent.values()) == [group.now_us]


def test_stream_that_ends_right_after_a_long_stall_of_ours_waits_for_its_agent_as_after_a_start(
    group: GroupBench,
) -> None:
    group.agents("a", "b").submit("j1", "j2").start("j1")
    group.stall(12).close("a").close("b").advance(25)
    assert group.phases == {"j1": "away", "j2": "away"}, "the acceptance of j2 may have gone with the stream"
    group.connect("a", held=["j1"]).connect("b", held=["j2"])
    assert group.phases == {"j1": "accepted", "j2": "accepted"}
    assert [(job.attempt, job.crashes, job.bounces) for job in (group.job("j1"), group.job("j2"))] == [(1, 0, 0)] * 2


def test_work_of_an_agent_that_stays_away_after_a_long_stall_of_ours_goes_on_in_the_end(group: GroupBench) -> None:
    group.agents("a").submit("j1").stall(12).close("a").advance(31)
    assert group.phases == {"j1": "adoptable"}


@pytest.mark.parametrize(("stall_s", "later_s"), [(4, 0), (12, 3)])
def test_stream_that_ends_after_a_short_stall_or_later_gives_its_work_back_as_ever(
    group: GroupBench, stall_s: float, later_s: float
) -> None:
    group.agents("a", slots=2).submit("j1", "j2").start("j1").stall(stall_s).advance(later_s).close("a")
    assert group.phases == {"j1": "away", "j2": "adoptable"}
    assert group.advance(2.1).phases == {"j1": "adoptable", "j2": "adoptable"}


def test_silence_of_many_agents_is_worked_in_slices() -> None:
    group = GroupBench(expiries_step_max=4)
    names = [f"a{number}" for number in range(6)]
    group.agents(*names, slots=3)
    group.submit(*(f"j{number}" for number in range(18))).start(*(f"j{number}" for number in range(18)))
    for name in names:
        group.mute(name)
    group.advance(group.policy.lease_us / SECOND_US)
    assert group.assigned == {}
    ended = [sum("silent" in line for line in words.sends(group, effects)) for _, effects in group.history]
    assert sum(ended) == len(names)
    assert max(ended) <= 2, "an agent with three attempts takes a step nearly alone"
