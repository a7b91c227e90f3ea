"""Outcomes, verdicts and progress across streams."""

from __future__ import annotations

from agent_stub.session import (
    OutcomeStatus,
    Progress,
)
from tests.agent_stub.sessions import Bench, S

# Rules 5, 6, 8: outcomes are kept, Hello is a snapshot ---------------------------------------------------------------


def test_outcome_is_held_until_it_is_acknowledged(live: Bench) -> None:
    live.assign((1, 1))
    live.finish((1, 1))
    live.frames()
    assert live.session.held == 1
    live.ack((1, 1))
    assert live.session.held == 0


def test_acknowledgement_of_a_running_attempt_changes_nothing(live: Bench) -> None:
    live.assign((1, 1))
    live.ack((1, 1), (9, 9))
    assert live.session.held == 1


def test_hello_lists_what_runs_and_carries_what_is_unacknowledged(live: Bench) -> None:
    live.assign((1, 1), (2, 1), (3, 1))
    live.finish((2, 1))
    live.frames()
    live.session.disconnected(live.now)
    live.finish((3, 1), OutcomeStatus.FAILED, code="x")
    hello = live.hello()
    assert hello.held == [(1, 1)]
    assert [one.job_key for one in hello.outcomes] == [2, 3]


def test_outcome_survives_any_number_of_streams(live: Bench) -> None:
    live.assign((1, 1))
    live.finish((1, 1))
    for _ in range(3):
        live.session.disconnected(live.now)
        assert [one.job_key for one in live.connect().outcomes] == [1]
        assert live.outcomes() == {}, "Hello has said it"
    live.ack((1, 1))
    live.session.disconnected(live.now)
    assert live.hello().outcomes == []


def test_outcomes_that_do_not_fit_into_hello_are_listed_and_follow_after_welcome() -> None:
    bench = Bench(slots=4, hello_bytes_max=2_500)
    bench.connect()
    bench.assign((1, 1), (2, 1), (3, 1))
    bench.session.disconnected(bench.now)
    for job in (1, 2, 3):
        bench.finish((job, 1), content=bytes(1_000))
    hello = bench.connect()
    assert [one.job_key for one in hello.outcomes] == [1, 2]
    assert hello.held == hello.finished == [(3, 1)]
    assert bench.outcomes() == {(3, 1): OutcomeStatus.SUCCEEDED}


def test_hello_announces_what_the_broker_should_wait_for_and_nothing_else() -> None:
    bench = Bench(slots=4, hello_bytes_max=0)
    bench.connect()
    bench.assign((1, 1), (2, 1), (3, 1), (4, 1))
    bench.session.disconnected(bench.now)
    bench.finish((1, 1))
    bench.finish((2, 1), OutcomeStatus.FAILED)
    bench.finish((3, 1), OutcomeStatus.CANCELLED)
    hello = bench.hello()
    assert hello.held == [(1, 1), (2, 1), (3, 1), (4, 1)]
    assert hello.finished == [(1, 1), (2, 1)]


def test_outcome_of_a_run_that_ends_between_hello_and_welcome_follows_after_welcome(live: Bench) -> None:
    live.assign((1, 1))
    live.session.disconnected(live.now)
    hello = live.hello()
    live.finish((1, 1))
    assert live.frames() == []
    live.welcome(hello)
    assert live.outcomes() == {(1, 1): OutcomeStatus.SUCCEEDED}


def test_waiting_attempts_are_listed_too_and_start_after_the_stream_is_back() -> None:
    bench = Bench(slots=1, prefetch=1)
    bench.connect()
    bench.assign((1, 1), (2, 1))
    bench.session.disconnected(bench.now)
    assert bench.connect().held == [(1, 1), (2, 1)]
    bench.finish((1, 1))
    frame = bench.frame()
    assert frame.started == [(2, 1)]
    assert [one.job_key for one in frame.outcomes] == [1]


def test_run_that_starts_while_offline_goes_on_when_kept() -> None:
    bench = Bench(slots=1, prefetch=1)
    bench.connect()
    bench.assign((1, 1), (2, 1))
    bench.session.disconnected(bench.now)
    bench.finish((1, 1))
    assert bench.started() == [(1, 1), (2, 1)]
    hello = bench.connect()
    assert (hello.held, [one.job_key for one in hello.outcomes]) == ([(2, 1)], [1])


# Verdicts ------------------------------------------------------------------------------------------------------------


def test_verdict_stop_ends_the_run_and_forgets_it(live: Bench) -> None:
    live.assign((1, 1), (2, 1))
    live.session.disconnected(live.now)
    live.connect((1, 1))
    assert live.stopped() == [((1, 1), "verdict")]
    assert live.session.held == 1
    live.session.disconnected(live.now)
    assert live.hello().held == [(2, 1)]


def test_verdict_stop_keeps_the_slot_until_the_run_has_ended() -> None:
    bench = Bench(slots=1)
    bench.connect()
    bench.assign((1, 1))
    bench.session.disconnected(bench.now)
    bench.connect((1, 1))
    bench.assign((2, 1))
    assert bench.started() == [(1, 1)]
    bench.finish((1, 1), OutcomeStatus.CANCELLED)
    assert bench.started() == [(2, 1)]


def test_end_of_a_run_stopped_by_verdict_is_said_once_and_not_kept(live: Bench) -> None:
    live.assign((1, 1))
    live.session.disconnected(live.now)
    live.connect((1, 1))
    live.finish((1, 1), OutcomeStatus.CANCELLED)
    assert live.outcomes() == {(1, 1): OutcomeStatus.CANCELLED}
    live.session.disconnected(live.now)
    assert live.hello().outcomes == []


def test_verdict_stop_of_an_attempt_that_waits_takes_it_off_the_line() -> None:
    bench = Bench(slots=1, prefetch=2)
    bench.connect()
    bench.assign((1, 1), (2, 1), (3, 1))
    bench.session.disconnected(bench.now)
    bench.connect((2, 1))
    bench.finish((1, 1))
    assert bench.started() == [(1, 1), (3, 1)]


def test_new_attempt_of_a_job_stopped_by_verdict_waits_for_the_old_run(live: Bench) -> None:
    live.assign((1, 1))
    live.session.disconnected(live.now)
    live.connect((1, 1))
    live.session.take_orders()
    live.assign((1, 2))
    assert live.started() == []
    live.finish((1, 1), OutcomeStatus.CANCELLED)
    assert live.started() == [(1, 2)]


# Progress ------------------------------------------------------------------------------------------------------------


def test_progress_is_sent_at_most_once_a_second_and_only_the_latest(live: Bench) -> None:
    live.assign((1, 1))
    live.session.progressed(Progress(1, 1, 0.1, "a", b"c1"))
    assert [one.fraction for one in live.frame().progress] == [0.1]
    live.session.progressed(Progress(1, 1, 0.2, "b", b"c2"))
    live.session.progressed(Progress(1, 1, 0.3, "c"))
    assert live.frames() == []
    assert live.session.next_deadline_us() == live.now + 1 * S
    live.now += 1 * S
    progress = live.frame().progress
    assert [(one.fraction, one.text, one.checkpoint) for one in progress] == [(0.3, "c", b"c2")]


def test_checkpoint_that_waits_goes_with_the_outcome(live: Bench) -> None:
    live.assign((1, 1))
    live.session.progressed(Progress(1, 1, 0.1))
    live.frames()
    live.session.progressed(Progress(1, 1, 0.9, checkpoint=b"half"))
    live.finish((1, 1), OutcomeStatus.FAILED, code="x")
    frame = live.frame()
    assert [one.checkpoint for one in frame.progress] == [b"half"]
    assert len(frame.outcomes) == 1


def test_accept_and_start_stay_in_front_of_progress_that_goes_with_the_outcome(live: Bench) -> None:
    live.assign((1, 1))
    live.session.progressed(Progress(1, 1, 0.9, checkpoint=b"half"))
    live.finish((1, 1), OutcomeStatus.FAILED, code="x")
    frame = live.frame()
    assert (frame.accepted, frame.started, len(frame.progress)) == ([(1, 1)], [(1, 1)], 1)


def test_progress_of_an_outcome_that_hello_carries_is_not_worth_sending(live: Bench) -> None:
    live.assign((1, 1))
    live.session.progressed(Progress(1, 1, 0.9))
    live.finish((1, 1))
    live.session.disconnected(live.now)
    live.connect()
    assert live.frames() == []


def test_progress_of_a_run_is_kept_for_the_next_stream(live: Bench) -> None:
    live.assign((1, 1))
    live.session.disconnected(live.now)
    live.session.progressed(Progress(1, 1, 0.5, checkpoint=b"half"))
    live.connect()
    assert [one.checkpoint for one in live.frame().progress] == [b"half"]


def test_progress_that_does_not_fit_follows_a_second_later() -> None:
    bench = Bench(frame_bytes_max=1_000)
    bench.connect()
    bench.assign((1, 1), (2, 1))
    bench.session.progressed(Progress(1, 1, 0.5, checkpoint=bytes(900)))
    bench.session.progressed(Progress(2, 1, 0.5, checkpoint=bytes(900)))
    assert [one.job_key for one in bench.frame().progress] == [1]
    bench.now += 1 * S
    assert [one.job_key for one in bench.frame().progress] == [2]


def test_progress_of_an_attempt_that_is_not_running_is_dropped(live: Bench) -> None:
    live.session.progressed(Progress(1, 1, 0.5))
    assert live.frames() == []


# Slow ways -----------------------------------------------------------------------------------------------------------


def test_outcome_that_is_large_is_not_in_hello_because_that_must_arrive_soon(live: Bench) -> None:
    live.assign((1, 1), (2, 1))
    live.session.disconnected(live.now)
    live.finish((1, 1), content=bytes(1 << 17))
    live.finish((2, 1))
    hello = live.connect()
    assert ([one.job_key for one in hello.outcomes], hello.held) == ([2], [(1, 1)])
    assert live.outcomes() == {(1, 1): OutcomeStatus.SUCCEEDED}


def test_heartbeat_goes_ahead_of_an_outcome_that_keeps_the_way_busy(live: Bench) -> None:
    live.assign((1, 1), (2, 1))
    live.frames()
    live.now += 1 * S
    live.finish((1, 1), content=bytes(1 << 19))
    live.finish((2, 1))
    first, *others = live.frames()
    assert (first.heartbeat is not None, first.outcomes) == (True, [])
    assert [(one.heartbeat, [done.job_key for done in one.outcomes]) for one in others] == [(None, [1, 2])]
