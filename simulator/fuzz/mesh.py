"""A mesh in memory under seeded chance: submitters, one broker, agents with the real session, and all that fails.

A safety phase in which faults happen, then a quiet phase in which all must come to an end. Nothing here knows what the
dispatcher or the session do inside: what is judged is what ran, what was committed and what was answered. Each actor
draws from a generator of its own, so that the same seed gives the same run, whatever the order of hashes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import Final

from broker.dispatch import reasons
from broker.dispatch.batch import Batch
from broker.dispatch.messages import (
    AgentAdded,
    DisableRequested,
    DrainCancelled,
    EnableRequested,
    HeldDecision,
    HeldResolved,
    JobAccepted,
    JobSubmitted,
    LabelsSet,
    RemoveRequested,
    Reply,
    RequestRefused,
    ResumeRequested,
    StopReason,
)
from broker.dispatch.model import Admin, AgentNo, JobKey, JobState, Spread
from simulator.fuzz.agent import AgentProcess, Journal
from simulator.fuzz.broken import LIVENESS, expect
from simulator.fuzz.broker import BrokerProcess
from simulator.fuzz.chronicle import Chronicle
from simulator.fuzz.course import FAULTY_US, NAMES, OPERATOR, Course, Strike, submission
from simulator.fuzz.judge import Judge
from simulator.fuzz.timeline import MS, START_US, S, Stream, Timeline

QUIET_US: Final = 900 * S
ASK_AGAIN_US: Final = 3 * S
ADDED: Final = ("added=by-ann",)
"""What an operator says of each agent at first; no job asks for it."""
LOST_ANSWERS: Final = 0.1
"""Share of answers to submitters that never arrive, while there are faults."""
RETRIES_BY_HAND: Final = 2
_FOR_NOW: Final = (reasons.QUEUE_FULL, reasons.NO_ACTIVE_AGENT)
"""Refusals after which a submitter asks again."""


def again_id(number: int) -> bytes:
    """The id under which somebody else says the key of job `number`."""
    return b"job %d again" % number


class Mesh:
    """One run. `run` raises BrokenPromiseError with what went wrong; `chronicle` says what happened.

    `strikes` are the faults that struck, so that a course can have them, or some of them, again.

    Args:
        course: what it is made of.
        faults: what the names in `course.faults` do.
        keeps: whether the chronicle keeps its lines.
    """

    def __init__(self, course: Course, faults: Mapping[str, Callable[[Mesh], bool]], *, keeps: bool = False) -> None:
        self.course = course
        self.chance = Random(f"mesh {course.seed}")
        self.timeline = Timeline()
        self.chronicle = Chronicle(self.timeline, keeps=keeps)
        self.journal = Journal(self.chronicle)
        self.accepted: dict[int, JobKey] = {}
        self.turned_away: set[int] = set()
        self.contested: set[int] = set()
        """Submissions whose key somebody else has said for something else, perhaps before."""
        self.judge = Judge(self.chronicle, self.journal)
        self.strikes: list[Strike] = []
        self._faults = faults
        self._weights = [10 ** self.chance.uniform(-1, 0) for _ in course.faults]
        self._is_quiet = False
        self._lives: Counter[str] = Counter()
        self._resolved: Counter[JobKey] = Counter()
        self.broker = BrokerProcess(course, self.timeline, self.chronicle, self._on_commit)
        self.broker.start()
        self.agents: dict[str, AgentProcess] = {}
        self.clones: list[AgentProcess] = []
        self._agents_ever = course.agents
        self.numbers = {NAMES[number]: AgentNo(number + 1) for number in range(course.agents)}
        for number in range(course.agents):
            self._add_agent(NAMES[number])
            self.timeline.after(self.chance.randrange(S), partial(self._begin_agent, NAMES[number]))
        for number in range(course.jobs):
            asked = self.submission(number, 0)
            self.judge.asked[asked.job_id] = asked
            submits_us = self.chance.randrange(FAULTY_US)
            if number not in course.left_out:
                self.timeline.after(submits_us, partial(self.submit, number))
        if course.removed_after_us:
            self.timeline.after(course.removed_after_us, self._remove_group)

    def run(self) -> None:
        """The safety phase, the quiet phase, the judgement."""
        if self.course.strikes is not None:
            self._arm_strike(0, self.course.strikes)
        elif self.course.faults:
            self._arm_fault()
        self.timeline.run(START_US + FAULTY_US)
        self.chronicle.note("the faults are over")
        self._is_quiet = True
        self._calm()
        self.timeline.run(START_US + FAULTY_US + QUIET_US, self._is_done)
        self._judge()

    # --- agents and submitters --------------------------------------------------------------------------------------

    def _add_agent(self, name: str) -> None:
        """An operator adds it, again if the broker died before it answered."""
        agent = self.numbers[name]
        if agent in self.broker.stored.agents or self.broker.is_removed:
            return
        if self.broker.is_up:
            self.broker.ask(lambda ticket: AgentAdded(ticket, agent, name, labels=ADDED))
        self.timeline.after(S, lambda: self._add_agent(name))

    def _begin_agent(self, name: str) -> None:
        self._lives[name] += 1
        self.agents[name] = AgentProcess(
            self.course,
            name,
            self.numbers[name],
            self._lives[name],
            timeline=self.timeline,
            broker=self.broker,
            journal=self.journal,
            on_end=self._on_end,
        )

    def clone(self, process: AgentProcess) -> None:
        """A second process of the same agent is started while the first one runs on, or stands still."""
        self.clones.append(process)
        self._begin_agent(process.name)

    def _on_end(self, process: AgentProcess) -> None:
        """Whatever supervises the agent starts it again."""
        self.chronicle.count("process ended")
        self.chronicle.note(f"agent {process.process} has ended")
        if process in self.clones:
            self.clones.remove(process)
            return
        self.timeline.after(self.chance.randrange(10 * MS, 3 * S), lambda: self._begin_agent(process.name))

    def submission(self, number: int, ticket: int) -> JobSubmitted:
        """What the submitter of job `number` says, each time the same."""
        return submission(self.course, number, ticket)

    def submit(self, number: int) -> None:
        """Submit until it is answered: with the same id it never makes a second job (promise P7)."""
        if number in self.accepted or number in self.turned_away:
            return
        self.ask_once(number)
        self.timeline.after(ASK_AGAIN_US, lambda: self.submit(number))

    def ask_once(self, number: int) -> None:
        """Submit, whatever becomes of it."""
        if self.broker.is_up:
            self.broker.ask(partial(self.submission, number), partial(self._on_reply, number))

    def _on_reply(self, number: int, reply: Reply) -> None:
        if self.chance.random() < LOST_ANSWERS and not self._is_quiet:
            self.chronicle.count("answer lost")
            return
        if (reason := self.refusal(reply)) is not None:
            if reason == reasons.GROUP_GONE:
                self.turned_away.add(number)
            return
        if number in self.contested and isinstance(reply, RequestRefused) and reply.reason == reasons.KEY_REUSED:
            self.turned_away.add(number)
            return
        expect(isinstance(reply, JobAccepted), "P7", f"job {number} was answered by {reply}")
        if isinstance(reply, JobAccepted):
            self.chronicle.count("accepted again", reply.duplicate)
            self.chronicle.note(f"the submitter of job {number} is told that it is accepted", reply.job_key)
            self.accepted[number] = reply.job_key

    def refusal(self, reply: Reply) -> str | None:
        """Why no job was made of a submission, if that is a reason that any submission may be refused for."""
        if not isinstance(reply, RequestRefused):
            return None
        is_gone = reply.reason == reasons.GROUP_GONE and self.broker.is_removed
        if not is_gone and reply.reason not in _FOR_NOW:
            return None
        self.chronicle.count(f"refused: {reply.reason}")
        return reply.reason

    def _on_commit(self, batch: Batch) -> None:
        self.judge.on_commit(self.broker, batch)
        for writes in batch.writes.values():
            for row in writes.agents:
                if row.admin == Admin.REMOVED:
                    self._add_anew(row.agent_no)

    def _add_anew(self, agent: AgentNo) -> None:
        """An operator sees that it was removed, and adds its name again: that is another agent."""
        name = next((name for name, number in self.numbers.items() if number == agent), "")
        if name:
            self._agents_ever += 1
            self.numbers[name] = AgentNo(self._agents_ever)
            self._add_agent(name)

    # --- faults -----------------------------------------------------------------------------------------------------

    def _arm_fault(self) -> None:
        self.timeline.after(round(self.chance.expovariate(1) * self.course.every_us), self._strike)

    def _strike(self) -> None:
        if self._is_quiet:
            return
        (name,) = self.chance.choices(self.course.faults, self._weights)
        self._hit(name)
        self._arm_fault()

    def _hit(self, name: str) -> None:
        self.strikes.append(Strike(self.timeline.now_us, name, self.chance.getstate()))
        has_met = self._faults[name](self)
        self.chronicle.count(f"fault {name}", has_met)
        self.chronicle.note(f"fault: {name}" if has_met else f"fault: {name} meets nothing")

    def _arm_strike(self, place: int, strikes: tuple[Strike, ...]) -> None:
        """As `_arm_fault`, also in what it draws: what is drawn after a strike is then the same too."""
        self.chance.expovariate(1)
        if place < len(strikes):
            self.timeline.at(strikes[place].at_us, partial(self._strike_again, place, strikes))

    def _strike_again(self, place: int, strikes: tuple[Strike, ...]) -> None:
        self.chance.setstate(strikes[place].state)
        self._hit(strikes[place].fault)
        self._arm_strike(place + 1, strikes)

    def alive(self) -> list[AgentProcess]:
        """The agents that run."""
        return [one for one in self.agents.values() if not (one.is_over or one.is_frozen)]

    def any_agent(self) -> AgentProcess | None:
        """One of the agents that run."""
        alive = self.alive()
        return self.chance.choice(alive) if alive else None

    def any_stream(self) -> Stream | None:
        """The stream of one of the agents that run, if it has one."""
        agent = self.any_agent()
        return None if agent is None else agent.stream

    def any_number(self) -> AgentNo:
        """An agent, running or not."""
        return self.numbers[NAMES[self.chance.randrange(self.course.agents)]]

    def let_work(self, agent: AgentNo) -> None:
        """An operator takes back whatever keeps the agent from working."""
        self.broker.ask(lambda ticket: EnableRequested(ticket, agent, OPERATOR))
        self.broker.ask(lambda ticket: ResumeRequested(ticket, agent, OPERATOR))
        self.broker.ask(lambda ticket: DrainCancelled(ticket, agent, OPERATOR))

    def remove(self, agent: AgentNo) -> None:
        """An operator removes the agent, which must not work then: is away, or is disabled first."""
        self.judge.chosen |= {(agent, StopReason.DISABLED), (agent, StopReason.REMOVED)}
        if self.chance.random() < 0.5:
            self.broker.ask(lambda ticket: DisableRequested(ticket, agent, now=True, actor=OPERATOR))
        self.broker.ask(lambda ticket: RemoveRequested(ticket, agent, OPERATOR))

    def label(self, agent: AgentNo, *labels: str) -> None:
        """An operator says these labels of the agent, in the place of what was said before."""
        self.broker.ask(lambda ticket: LabelsSet(ticket, agent, (*ADDED, *labels), OPERATOR))

    def _remove_group(self) -> None:
        """An operator removes the group; who finds the broker down asks again."""
        if self.broker.is_up:
            self.broker.remove_group()
        else:
            self.timeline.after(S, self._remove_group)

    # --- the end ----------------------------------------------------------------------------------------------------

    def _calm(self) -> None:
        """Faults are over; every few seconds operators let everything work and look at what is held."""
        self.broker.fails_next_commit = False
        for process in list(self.clones):
            process.kill()
        if self.broker.is_up:
            self.broker.configure(Spread.BALANCED, refuses_inactive=False)
            for number in self.numbers.values():
                self.let_work(number)
                if "label" in self.course.faults:
                    self.label(number)
            self._resolve_held()
        for agent in self.agents.values():
            if agent.stream is not None and (agent.stream.up.is_cut != agent.stream.down.is_cut):
                agent.stream.cut()
        self.timeline.after(5 * S, self._calm)

    def _resolve_held(self) -> None:
        jobs = self.broker.dispatcher.ledger.jobs
        runs = {key for process in (*self.agents.values(), *self.clones) for key in process.job_keys}
        for key in [key for key, job in jobs.items() if job.state is JobState.HELD]:
            if key not in runs:  # a person looks before it is tried again, also at what stands still
                self.resolve(key)

    def resolve(self, key: JobKey) -> None:
        """A person lets a held job try again, and after a few times decides how it has ended."""
        self._resolved[key] += 1
        may_retry = self._resolved[key] <= RETRIES_BY_HAND
        decision = HeldDecision.RETRY if may_retry else self.chance.choice((HeldDecision.FAIL, HeldDecision.SUCCEED))
        self.chronicle.count(f"resolved: {decision}")
        self.broker.ask(lambda ticket: HeldResolved(ticket, key, decision, OPERATOR))

    def _is_done(self) -> bool:
        return (
            self.broker.is_settled
            and len(self.accepted.keys() | self.turned_away) == len(self.course.submitted)
            and not self.broker.dispatcher.ledger.jobs
            and all(one.session.is_idle for one in self.agents.values())
            and not any(one.held for one in self.broker.dispatcher.ledger.agents.values())
            and not self.judge.stay(self.broker)
        )

    def _judge(self) -> None:
        answered = self.accepted.keys() | self.turned_away
        expect(len(answered) == len(self.course.submitted), LIVENESS, "a submission was never answered")
        twice = [number for number in answered if {b"job %d" % number, again_id(number)} <= self.broker.known.keys()]
        expect(not twice, "P7", f"one key became two jobs: of the submissions {twice}")
        self.judge.at_end(self.broker, self.agents.values(), self.accepted)
        self.broker.judge_life()
