"""What an engine did is written so that it can be done again, and the engine never waits for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from structlog.testing import capture_logs

from broker.dispatch.batch import Batch, Batcher
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.messages import AgentAdded, AgentConnected, AssignJob, AttemptFinished, Event, JobSubmitted
from broker.dispatch.model import (
    AgentNo,
    DispatchPolicy,
    GroupNo,
    OperationPolicy,
    OutcomeStatus,
    Placing,
    SessionId,
)
from broker.journal.segment import SegmentReader, segments_of
from broker.observe.recording import Recording
from broker.settings import JournalSettings
from broker.store.base import Body
from simulator.replay import Report, replay

SECRET = b"secret payload"
ONE, TWO = GroupNo(1), GroupNo(2)


class Turns:
    """The turns of an engine with a journal, without its store and its loop."""

    def __init__(self, folder: Path, **settings: int) -> None:
        self.folder = folder
        self._settings = JournalSettings(enabled=True, **settings)
        self.recording = self._begin()
        self.batcher = Batcher(0)
        self.dispatchers: dict[GroupNo, Dispatcher] = {}
        self._now_us = 1_000_000
        self._ticket = 0

    def _begin(self) -> Recording:
        recording = Recording(self._settings, self.folder, seed=1, program="test")
        recording.start()
        return recording

    def begin_anew(self) -> None:
        """The next turn begins a segment, whatever the groups are doing."""
        self.recording.stop()
        self.recording = self._begin()

    def add(self, group: GroupNo, placing: Placing = Placing.LEAST_LOADED) -> None:
        policy = DispatchPolicy(placing=placing)
        made = self.dispatchers[group] = Dispatcher(group, policy, 1, Random(group))
        self.batcher.add(group, made)
        self.recording.added(made)

    def lose(self, group: GroupNo) -> None:
        self.batcher.drop(group)
        del self.dispatchers[group]
        self.recording.lost([group])

    def turn(self, *events: tuple[GroupNo, Event]) -> Batch:
        self._now_us += 10  # no agent is silent for long, however many turns there are
        self.recording.before(self._now_us, self.dispatchers.values)
        batch = self.batcher.run(self._now_us, events)
        self.recording.turn(self._now_us, 0, events, batch.effects)
        if batch.seq:
            self.batcher.committed()
        return batch

    def wait(self, seconds: float) -> None:
        self._now_us += round(seconds * 1_000_000)

    def agents(self, group: GroupNo, *numbers: int) -> None:
        for number in numbers:
            agent, session = AgentNo(number), SessionId(group * 100 + number)
            operations = frozenset({"work"})
            hello = AgentConnected(agent, session, b"i", 1, 2, 2, 1, operations, frozenset())
            self.turn((group, AgentAdded(self.ticket(), agent, f"agent-{number}")), (group, hello))

    def work(self, group: GroupNo, jobs: int) -> None:
        """Submit these jobs and finish what is assigned."""
        for _ in range(jobs):
            batch = self.turn((group, self.submission()))
            for order in [send for send in batch.sends() if isinstance(send, AssignJob)]:
                self.turn((group, self.outcome(order)))

    def submission(self) -> JobSubmitted:
        ticket = self.ticket()
        name = ticket.to_bytes(16, "big")
        body = Body(SECRET, "text/plain", (("key", "secret"),))
        return JobSubmitted(ticket, name, "work", OperationPolicy(no=1), name, body=body, payload_bytes=len(SECRET))

    @staticmethod
    def outcome(order: AssignJob) -> AttemptFinished:
        agent, status = AgentNo(order.session % 100), OutcomeStatus.SUCCEEDED
        return AttemptFinished(agent, order.session, order.job_key, order.attempt, status, body=Body(SECRET))

    def ticket(self) -> int:
        self._ticket += 1
        return self._ticket

    def replayed(self) -> Report:
        self.recording.stop()
        return replay(self.folder)


@pytest.fixture
def turns(tmp_path: Path) -> Iterator[Turns]:
    made = Turns(tmp_path)
    made.add(ONE)
    yield made
    made.recording.stop()


def test_journal_of_two_groups_is_replayed_without_a_difference(turns: Turns) -> None:
    turns.agents(ONE, 1, 2)
    turns.add(TWO)  # while a segment is open
    turns.agents(TWO, 1, 2, 3)
    turns.work(ONE, 20)
    turns.work(TWO, 20)
    turns.lose(ONE)
    turns.work(TWO, 5)
    report = turns.replayed()
    assert (report.segments, report.differing, report.skipped, report.notes) == (1, 0, 0, [])
    assert report.events == 2 * (2 + 3) + 2 * (20 + 20 + 5)
    assert report.effects > report.events


@pytest.mark.parametrize("placing", Placing)
def test_placements_by_chance_are_the_same_again(tmp_path: Path, placing: Placing) -> None:
    turns = Turns(tmp_path)
    turns.add(ONE, placing)
    turns.agents(ONE, *range(1, 20))
    for _ in range(30):
        turns.turn((ONE, turns.submission()))
    report = turns.replayed()
    assert (report.differing, report.skipped) == (0, 0)


def test_journal_has_no_byte_of_a_payload_or_result(turns: Turns) -> None:
    turns.agents(ONE, 1)
    turns.work(ONE, 3)
    turns.recording.stop()
    text = json.dumps([list(SegmentReader(path).lines()) for path in segments_of(turns.folder)])
    assert "JobSubmitted" in text
    assert "AttemptFinished" in text
    assert "secret" not in text
    assert SECRET.hex() not in text


def test_journal_waits_while_too_many_jobs_live_and_says_so(tmp_path: Path) -> None:
    turns = Turns(tmp_path, snapshot_jobs_max=100)
    turns.add(ONE)
    for _ in range(100):
        turns.batcher.run(1_000, [(ONE, turns.submission())])
        turns.batcher.committed()
    with capture_logs() as logs:
        turns.agents(ONE, 1, 2)
    assert [one["event"] for one in logs if one["log_level"] == "warning"] == ["journal.waiting"]
    assert turns.recording.left_out == 2
    turns.dispatchers.clear()
    turns.batcher.drop(ONE)
    turns.add(TWO)
    turns.wait(1.0)
    turns.agents(TWO, 1)
    assert turns.recording.is_recording
    report = turns.replayed()
    assert (report.segments, report.events, report.differing) == (1, 2, 0)


def test_segments_that_begin_in_the_midst_of_work_are_all_replayed(turns: Turns) -> None:
    turns.agents(ONE, 1, 2)
    for _ in range(3):
        for _ in range(10):  # some run, some wait
            turns.turn((ONE, turns.submission()))
        turns.begin_anew()
        turns.turn()
    report = turns.replayed()
    assert report.segments == 4
    assert (report.differing, report.skipped, report.notes) == (0, 0, [])
    assert report.events == 4 + 30
