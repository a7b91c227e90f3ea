"""What a journal tells is played again: as it was, and as it would have been with other agents."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.messages import (
    AgentAdded,
    AgentConnected,
    AgentLeaving,
    AgentLeft,
    AgentsHeard,
    AssignJob,
    AttemptFinished,
    AttemptId,
    AttemptStarted,
    CancelRequested,
    DrainRequested,
    JobSubmitted,
    LabelsSet,
    RankSet,
    ResumeRequested,
    SessionClosed,
)
from broker.dispatch.model import (
    AgentNo,
    DispatchPolicy,
    DrainEnd,
    GroupNo,
    JobKey,
    JobState,
    OperationPolicy,
    OutcomeStatus,
    Placing,
    SessionId,
    Spread,
)
from simulator.chronicle import Chronicle
from simulator.counterfactual import Change, CounterfactualError, Sides, _Past, sides_of
from simulator.replay import replay
from tests.broker.observe.test_recording import ONE, Turns

RUN_S = 2.0
"""How long every job runs."""


class Day(Turns):
    """A broker's day with a journal: jobs come every second, agents with one slot run each for two."""

    def connect(self, number: int, incarnation: bytes = b"first") -> None:
        agent = AgentNo(number)
        self._there[agent] = SessionId(100 + number)
        if incarnation == b"first":
            self.turn((ONE, AgentAdded(self.ticket(), agent, f"agent-{number}")))
        self._obey(self.turn((ONE, self._hello(agent, self._there[agent], incarnation, 1))))

    def reconnect(self, number: int, connect_seq: int = 2) -> None:
        """The process opens a stream beside the one that it has; the broker ends that which is older."""
        agent, session = AgentNo(number), SessionId(100 * connect_seq + 100 + number)
        batch = self.turn((ONE, self._hello(agent, session, b"first", connect_seq)))
        ended = next(send.session for send in batch.sends() if hasattr(send, "text") or hasattr(send, "reason"))
        if ended != session:
            self._there[agent] = session
        self._obey(batch)
        self._obey(self.turn((ONE, SessionClosed(agent, ended))))

    def _hello(self, agent: AgentNo, session: SessionId, incarnation: bytes, connect_seq: int) -> AgentConnected:
        held = tuple(attempt for attempt, (_, holder) in self._running.items() if holder == agent)
        can = frozenset({"work"})
        return AgentConnected(agent, session, incarnation, connect_seq, 1, 1, 1, can, frozenset(), held)

    def __init__(self, folder: Path, spread: Spread = Spread.BALANCED) -> None:
        super().__init__(folder)
        self._spread = spread
        self._running: dict[AttemptId, tuple[float, AgentNo]] = {}
        self._s = 0.0
        self._there: dict[AgentNo, SessionId] = {}
        self.keys: list[JobKey] = []
        self.hopeless: set[JobKey] = set()
        self.add(ONE)

    def add(self, group: GroupNo, placing: Placing = Placing.LEAST_LOADED) -> None:
        policy = DispatchPolicy(placing=placing, spread=self._spread)
        made = self.dispatchers[group] = Dispatcher(group, policy, 1, Random(group))
        self.batcher.add(group, made)
        self.recording.added(made)

    def _obey(self, batch: Any) -> None:
        for send in batch.sends():
            if isinstance(send, AssignJob):
                agent = next(agent for agent, session in self._there.items() if session == send.session)
                attempt = AttemptId(send.job_key, send.attempt)
                self._running[attempt] = (self._s + RUN_S, agent)
                self._obey(self.turn((ONE, AttemptStarted(agent, send.session, *attempt))))

    def submit(self, fairness: str = "") -> None:
        ticket = self.ticket()
        name = ticket.to_bytes(16, "big")
        batch = self.turn((ONE, JobSubmitted(ticket, name, "work", OperationPolicy(no=1), name, fairness=fairness)))
        self.keys += [reply.job_key for reply in batch.effects[ONE].replies if hasattr(reply, "job_key")]
        self._obey(batch)

    def second(self) -> None:
        """A second passes; what has run for long enough ends."""
        self.wait(1.0)
        self._s += 1.0
        heard = tuple((agent, session, self._now_us) for agent, session in sorted(self._there.items()))
        self._obey(self.turn((ONE, AgentsHeard(heard))))
        for attempt, (ends_s, agent) in list(self._running.items()):
            if ends_s <= self._s:
                del self._running[attempt]
                status = OutcomeStatus.FAILED if attempt.job_key in self.hopeless else OutcomeStatus.SUCCEEDED
                done = AttemptFinished(agent, self._there[agent], *attempt, status, retryable=False)
                self._obey(self.turn((ONE, done)))

    def lose(self, number: Any) -> None:
        agent = AgentNo(number)
        session = self._there.pop(agent)
        self._running = {key: one for key, one in self._running.items() if one[1] != agent}
        self._obey(self.turn((ONE, SessionClosed(agent, session))))

    def operate(self, act: Any) -> None:
        """An operator asks for it, and everybody does what follows."""
        self._obey(self.turn((ONE, act)))

    def idle(self, seconds: int) -> None:
        for _ in range(seconds):
            self.second()

    def chronicle(self) -> Chronicle:
        self.recording.stop()
        heard = Chronicle()
        assert replay(self.folder, heard).differing == 0
        return heard


@pytest.fixture
def day(tmp_path: Path) -> Day:
    """Forty jobs, one a second, for one agent that needs two seconds for each."""
    made = Day(tmp_path)
    made.connect(1)
    for _ in range(40):
        made.submit()
        made.second()
    made.idle(60)
    return made


def figure(sides: Sides, name: str) -> tuple[float, float, float]:
    return sides.figures[f"work.{name}"]


def test_journal_tells_how_long_jobs_ran_and_waited(day: Day) -> None:
    jobs = day.chronicle().jobs

    assert {round(job.ran_us / 1e6, 2) for job in jobs} == {RUN_S}
    waits_s = [job.course.attempts[0].assigned_s - job.course.due_s for job in jobs]
    assert waits_s[0] == 0
    assert waits_s[-1] == pytest.approx(39, abs=2)


def test_simulation_of_the_same_day_has_the_figures_that_were(day: Day) -> None:
    sides = sides_of(day.chronicle(), ["slots=1"])

    was, simulated, would = figure(sides, "latency.mean")
    assert simulated == pytest.approx(was, rel=0.05)
    assert would == simulated
    assert figure(sides, "succeeded") == (40, 40, 40)


@pytest.mark.parametrize("change", ["agents=+1", "agents=2", "slots=2", "1.agents=+1"])
def test_nobody_would_have_waited_with_twice_the_slots(day: Day, change: str) -> None:
    sides = sides_of(day.chronicle(), [change])

    was, _, would = figure(sides, "wait.mean")
    assert was > 10
    assert would < 1.5
    assert figure(sides, "latency.p50")[2] == pytest.approx(RUN_S, rel=0.5)


def test_jobs_would_have_waited_longer_with_an_agent_less(tmp_path: Path) -> None:
    day = Day(tmp_path)
    day.connect(1)
    day.connect(2)
    for _ in range(20):
        day.submit()
        day.second()
    day.idle(30)

    was, _, would = figure(sides_of(day.chronicle(), ["agents=-1"]), "wait.mean")
    assert was < 1.5
    assert would > 5


def test_agent_that_was_gone_is_gone_in_the_simulation_too(tmp_path: Path) -> None:
    day = Day(tmp_path)
    day.connect(1)
    for _ in range(5):
        day.submit()
        day.idle(2)
    day.lose(1)
    for _ in range(10):
        day.submit()
        day.idle(2)
    day.connect(1, b"second")
    day.idle(60)

    was, simulated, would = figure(sides_of(day.chronicle(), ["agents=+1"]), "latency.p99")
    assert simulated == pytest.approx(was, rel=0.15)
    assert was > 20
    assert would < 5


@pytest.mark.parametrize("connect_seq", [2, 1], ids=["superseded", "refused"])
def test_agent_stays_when_another_stream_of_its_process_ends(tmp_path: Path, connect_seq: int) -> None:
    day = Day(tmp_path)
    day.connect(1)
    for second in range(20):
        if second == 10:
            day.reconnect(1, connect_seq)
        day.submit()
        day.second()
    day.idle(30)

    was, simulated, _ = figure(sides_of(day.chronicle(), ["slots=1"]), "succeeded")
    assert was == simulated == 20


def test_jobs_that_failed_for_good_fail_again_after_one_attempt(tmp_path: Path) -> None:
    day = Day(tmp_path)
    day.connect(1)
    for number in range(20):
        day.submit()
        if number % 4 == 0:
            day.hopeless.add(day.keys[-1])
        day.second()
    day.idle(30)

    chronicle = day.chronicle()
    sides = sides_of(chronicle, ["agents=+1"])
    assert sum(job.course.state == JobState.FAILED for job in chronicle.jobs) == 5
    assert figure(sides, "failed") == (5, 5, 5)
    assert figure(sides, "succeeded") == (15, 15, 15)
    assert figure(sides, "wait.mean")[1] == pytest.approx(figure(sides, "wait.mean")[0], rel=0.1)


def test_agent_of_a_later_rank_idles_in_the_simulation_too(tmp_path: Path) -> None:
    day = Day(tmp_path, Spread.ORDERED)
    day.connect(1)
    day.connect(2)
    day.turn((ONE, RankSet(day.ticket(), AgentNo(2), 1)))
    for _ in range(20):
        day.submit()
        day.second()
    day.idle(40)

    was, simulated, _ = figure(sides_of(day.chronicle(), ["slots=1"]), "wait.mean")
    assert was > 5
    assert simulated == pytest.approx(was, rel=0.1)


@pytest.mark.parametrize("is_before", [False, True], ids=["within", "before"])
def test_agent_that_an_operator_paused_is_paused_again(tmp_path: Path, *, is_before: bool) -> None:
    day = Day(tmp_path)
    day.connect(1)
    day.connect(2)
    day.turn((ONE, DrainRequested(day.ticket(), AgentNo(2), DrainEnd.PAUSE)))
    if is_before:
        day.recording.stop()
        for path in day.folder.iterdir():
            path.unlink()
        day.begin_anew()
    day.idle(5)
    for _ in range(20):
        day.submit()
        day.second()
    day.operate(ResumeRequested(day.ticket(), AgentNo(2)))
    day.idle(40)

    sides = sides_of(day.chronicle(), ["agents=1"])
    was, simulated, would = figure(sides, "wait.mean")
    assert was > 3
    assert simulated == pytest.approx(was, rel=0.1)
    assert would > 1.2 * simulated  # nobody is there to be resumed
    assert sides.notes == []


def test_agent_that_left_in_good_order_loses_nothing_in_the_simulation_either(tmp_path: Path) -> None:
    day = Day(tmp_path)
    day.connect(1)
    day.connect(2)
    day.idle(5)
    day.submit()
    day.submit()
    day.second()
    day.turn((ONE, AgentLeaving(AgentNo(2), SessionId(102))))
    for _ in range(10):
        day.submit()
        day.second()
    day.turn((ONE, AgentLeft(AgentNo(2), SessionId(102))))
    day.lose(2)
    day.idle(30)

    heard = day.chronicle()
    (process,) = heard.agents[ONE, AgentNo(2)].processes
    assert process.is_orderly
    assert process.leaving_us < process.to_us
    was, simulated, would = figure(sides_of(heard, ["agents=+1"]), "wait.mean")
    assert simulated == pytest.approx(was, rel=0.15)
    assert would < was / 2
    assert {len(course.attempts) for course in _Past(heard).play([])} == {1}


def test_jobs_have_their_fairness_keys_again(tmp_path: Path) -> None:
    day = Day(tmp_path)
    day.connect(1)
    for _ in range(10):
        day.submit("much")
    day.submit("little")
    day.idle(40)

    heard = day.chronicle()
    played = _Past(heard).play([])
    for courses in ([job.course for job in heard.jobs], played):
        waits_s = [course.attempts[0].assigned_s - course.due_s for course in courses]
        assert waits_s[-1] < 5  # of eleven, it came last
        assert max(waits_s) > 15


def test_acts_that_are_not_played_are_said(tmp_path: Path) -> None:
    day = Day(tmp_path)
    day.connect(1)
    day.submit()
    day.turn((ONE, LabelsSet(day.ticket(), AgentNo(1), ("site=north",))))
    day.idle(5)

    assert sides_of(day.chronicle(), ["slots=1"]).notes == ["LabelsSet came 1 times and is not played"]


def test_job_that_somebody_cancelled_is_cancelled_again(tmp_path: Path) -> None:
    day = Day(tmp_path)
    day.connect(1)
    for _ in range(6):
        day.submit()
    day.turn((ONE, CancelRequested(day.ticket(), day.keys[-1])))
    day.idle(30)

    sides = sides_of(day.chronicle(), ["slots=1"])
    assert figure(sides, "jobs") == (6, 6, 6)
    assert figure(sides, "succeeded") == (5, 5, 5)
    assert "1 jobs did not run to their end" in sides.notes[0]


def test_jobs_that_lived_before_the_journal_begins_come_at_its_beginning(day: Day) -> None:
    for _ in range(5):
        day.submit()
    day.recording.stop()
    for path in day.folder.iterdir():
        path.unlink()
    day.begin_anew()
    day.idle(30)

    chronicle = day.chronicle()
    sides = sides_of(chronicle, ["agents=+4"])
    assert chronicle.carried == 5
    assert figure(sides, "jobs") == (5, 5, 5)
    assert figure(sides, "latency.mean")[2] < figure(sides, "latency.mean")[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("agents", "is not a change such as"),
        ("agent=+2", "did you mean `agents`"),
        ("agents=many", "a number is wanted"),
        ("agents=-1", "at least one must stay"),
        ("7.agents=+1", "no jobs of a group 7"),
        ("policy=best", "policy"),
        ("slots=0", "slots"),
    ],
)
def test_change_that_makes_no_sense_is_refused_in_words(day: Day, change: str, words: str) -> None:
    with pytest.raises(CounterfactualError, match=words):
        sides_of(day.chronicle(), [change])


def test_journal_without_jobs_is_refused_in_words(tmp_path: Path) -> None:
    day = Day(tmp_path)
    day.connect(1)

    with pytest.raises(CounterfactualError, match="has no jobs"):
        sides_of(day.chronicle(), ["agents=+1"])


def test_change_is_relative_only_with_a_sign() -> None:
    assert [Change.of(f"agents={text}").applied(6) for text in ("+2", "-1", "4")] == [8, 5, 4]
