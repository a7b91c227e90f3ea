"""A mesh in memory under seeded chance: submitters, one broker, agents with the real session, and all that fails.

A safety phase in which faults happen, then a quiet phase in which all must come to an end. Nothing here knows what the
dispatcher or the session do inside: what is judged is what ran, what was committed and what was answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random

from broker.dispatch.batch import Batch
from broker.dispatch.messages import (
    AcceptOutcome,
    AgentAdded,
    AssignJob,
    CancelRequested,
    DisableRequested,
    DrainCancelled,
    DrainRequested,
    EnableRequested,
    HeldResolved,
    JobAccepted,
    JobSubmitted,
    RefuseOutcome,
    RejectAgent,
    Reply,
    ResumeRequested,
    Transition,
)
from broker.dispatch.model import (
    FINAL_STATES,
    SECOND_US,
    AgentNo,
    DispatchPolicy,
    DrainEnd,
    DrainThen,
    JobKey,
    JobState,
    OnLoss,
    OperationPolicy,
)
from tests.integration.agent_process import AgentProcess, Journal
from tests.integration.broker_process import BrokerProcess
from tests.integration.timeline import MS, START_US, S, Timeline

FAULTY_US = 40 * S
QUIET_US = 600 * S
FAULTS = (
    *("cut", "cut_silently", "cut_one_way", "cut_off", "delay", "resync", "kill_agent", "freeze_agent", "stop_agent"),
    *("kill_broker", "stall_broker", "slow_store", "operate", "cancel"),
)
GENTLE = ("cut", "delay_a_little", "resync", "kill_broker")
"""Faults after which every agent is back in time: no work is lost by them."""
POLICIES = tuple(
    OperationPolicy(number + 1, exclusive=number % 2 == 1, on_loss=on_loss, cancel_grace_us=3 * SECOND_US)
    for number, on_loss in enumerate((OnLoss.RETRY, OnLoss.RETRY, OnLoss.RETRY, OnLoss.RETRY, OnLoss.HOLD, OnLoss.FAIL))
)


@dataclass
class Settings:
    """What a run is made of. `faults` are names of FAULTS or GENTLE, each with its own rate."""

    faults: tuple[str, ...]
    every_us: int = 2 * S
    agents: int = 3
    jobs: int = 14
    failing: float = 0.0
    slow_stops: float = 0.0
    is_timed: bool = False
    """Whether some jobs have deadlines."""


def swarm(seed: int) -> Settings:
    """Each fault on with one half; one seed in four with all of them."""
    chance = Random(f"swarm {seed}")
    faults = FAULTS if seed % 4 == 0 else tuple(fault for fault in FAULTS if chance.random() < 0.5)
    return Settings(
        faults,
        every_us=chance.choice((500 * MS, S, 3 * S)),
        failing=chance.choice((0.0, 0.2)),
        slow_stops=chance.choice((0.0, 0.3)),
        is_timed=chance.random() < 0.3,
    )


class Mesh:
    """One run. `run` raises AssertionError with what went wrong; `counts` says what happened."""

    def __init__(self, seed: int, settings: Settings) -> None:
        self.chance = Random(seed)
        self.settings = settings
        self.timeline = Timeline()
        self.journal = Journal()
        self.counts: Counter[str] = Counter()
        self.accepted: dict[int, JobKey] = {}
        self.ended: dict[JobKey, JobState] = {}
        self.taken: Counter[tuple[JobKey, int]] = Counter()
        self.endings: list[tuple[JobKey, int, str, int]] = []
        self._is_quiet = False
        self._lives: Counter[str] = Counter()
        self.broker = BrokerProcess(self.timeline, self.chance, DispatchPolicy(), self._on_commit)
        self.broker.start()
        self.agents: dict[str, AgentProcess] = {}
        for number in range(settings.agents):
            name = "abcdef"[number]
            self._add_agent(AgentNo(number + 1), name)
            self.timeline.after(self.chance.randrange(S), partial(self._begin_agent, name))
        for number in range(settings.jobs):
            self.timeline.after(self.chance.randrange(FAULTY_US), partial(self._submit, number))

    def run(self) -> None:
        """The safety phase, the quiet phase, the judgement."""
        if self.settings.faults:
            self._arm_fault()
        self.timeline.run(START_US + FAULTY_US)
        self._is_quiet = True
        self._calm()
        self.timeline.run(START_US + FAULTY_US + QUIET_US, self._is_done)
        self._judge()
        self.counts.update(self.broker.counts)

    # --- agents and submitters --------------------------------------------------------------------------------------

    def _add_agent(self, agent: AgentNo, name: str) -> None:
        """An operator adds it, again if the broker died before it answered."""
        if self.broker.is_up and agent not in self.broker.stored.agents:
            self.broker.ask(lambda ticket: AgentAdded(ticket, agent, name))
        if agent not in self.broker.stored.agents:
            self.timeline.after(S, lambda: self._add_agent(agent, name))

    def _begin_agent(self, name: str) -> None:
        self._lives[name] += 1
        self.agents[name] = AgentProcess(
            name,
            AgentNo("abcdef".index(name) + 1),
            self._lives[name],
            timeline=self.timeline,
            chance=self.chance,
            broker=self.broker,
            journal=self.journal,
            slots=self.chance.randint(1, 3),
            prefetch=self.chance.randint(0, 1),
            failing=self.settings.failing,
            slow_stops=self.settings.slow_stops,
            on_end=self._on_end,
        )

    def _on_end(self, process: AgentProcess) -> None:
        """Whatever supervises the agent starts it again."""
        self.counts["process ended"] += 1
        self.timeline.after(self.chance.randrange(10 * MS, 3 * S), lambda: self._begin_agent(process.name))

    def _submit(self, number: int) -> None:
        """Submit until it is answered: with the same id it never makes a second job (promise P7)."""
        if number in self.accepted:
            return
        chance = Random(f"job {number} {self.settings.jobs}")
        policy = POLICIES[chance.randrange(len(POLICIES))]
        is_timed = self.settings.is_timed and chance.random() < 0.5
        if self.broker.is_up:
            self.broker.ask(
                lambda ticket: JobSubmitted(
                    ticket,
                    b"job %d" % number,
                    "work",
                    policy,
                    b"same",
                    run_timeout_us=2 * S if is_timed else 0,
                    total_timeout_us=25 * S if is_timed else 0,
                ),
                lambda reply: self._on_reply(number, reply),
            )
        self.timeline.after(3 * S, lambda: self._submit(number))

    def _on_reply(self, number: int, reply: Reply) -> None:
        if self.chance.random() < 0.1 and not self._is_quiet:
            self.counts["answer lost"] += 1
            return
        assert isinstance(reply, JobAccepted), reply
        self.counts["accepted again"] += reply.duplicate
        self.accepted[number] = reply.job_key

    # --- what is committed ------------------------------------------------------------------------------------------

    def _on_commit(self, batch: Batch) -> None:
        for send in batch.sends():  # an assignment and its end may share a batch: look before the notices
            assert not (isinstance(send, AssignJob) and send.job_key in self.ended), f"{send} after the end"
        for notice in batch.notices():
            if not isinstance(notice, Transition):
                continue
            assert notice.job_key not in self.ended, f"{notice} after the end"
            self.counts[f"{notice.to_state}: {notice.reason}"] += 1
            if notice.to_state in FINAL_STATES:
                self.ended[notice.job_key] = notice.to_state
        for send in batch.sends():
            if isinstance(send, AcceptOutcome):
                self.taken[send.job_key, send.attempt] += 1
            elif isinstance(send, RefuseOutcome):
                self.counts[f"refused: {send.reason}"] += 1
            elif isinstance(send, RejectAgent):
                self.counts[f"rejected: {send.code}"] += 1
        for writes in batch.writes.values():
            for row in writes.attempts:
                self.endings.append((row.job_key, row.attempt, row.ending, row.started_us))
                self.counts[f"attempt {row.ending}"] += 1

    # --- faults -----------------------------------------------------------------------------------------------------

    def _arm_fault(self) -> None:
        self.timeline.after(round(self.chance.expovariate(1) * self.settings.every_us), self._strike)

    def _strike(self) -> None:
        if self._is_quiet:
            return
        name = self.chance.choice(self.settings.faults)
        act: Callable[[], bool] = getattr(self, f"_{name}")
        self.counts[f"fault {name}"] += act()
        self._arm_fault()

    def _agent(self) -> AgentProcess | None:
        alive = [one for one in self.agents.values() if not (one.is_over or one.is_frozen)]
        return self.chance.choice(alive) if alive else None

    def _cut(self, *, is_silent: bool = False) -> bool:
        agent = self._agent()
        if agent is None or agent.stream is None:
            return False
        agent.stream.cut(is_silent=is_silent)
        return True

    def _cut_silently(self) -> bool:
        return self._cut(is_silent=True)

    def _cut_one_way(self) -> bool:
        agent = self._agent()
        if agent is None or agent.stream is None:
            return False
        pipe = self.chance.choice((agent.stream.up, agent.stream.down))
        pipe.is_cut = True
        return True

    def _cut_off(self) -> bool:
        agent = self._agent()
        if agent is not None:
            agent.cut_off(self.chance.choice((3 * S, 8 * S, 16 * S)))
        return agent is not None

    def _delay(self, most_us: int = 9 * S) -> bool:
        agent = self._agent()
        if agent is None or agent.stream is None:
            return False
        pipe = self.chance.choice((agent.stream.up, agent.stream.down))
        pipe.extra_us = self.chance.randrange(most_us)
        self.timeline.after(self.chance.randrange(8 * S), lambda: setattr(pipe, "extra_us", 0))
        return True

    def _delay_a_little(self) -> bool:
        return self._delay(300 * MS)

    def _resync(self) -> bool:
        agent = self._agent()
        if agent is None or agent.stream not in self.broker.peers or not self.broker.is_up:
            return False
        self.broker.resync(agent.stream)
        return True

    def _kill_agent(self) -> bool:
        agent = self._agent()
        if agent is not None:
            agent.kill()
        return agent is not None

    def _freeze_agent(self) -> bool:
        agent = self._agent()
        if agent is not None:
            agent.freeze(self.chance.choice((S, 5 * S, 12 * S, 20 * S)))
        return agent is not None

    def _stop_agent(self) -> bool:
        agent = self._agent()
        if agent is not None:
            agent.drain()
        return agent is not None

    def _kill_broker(self) -> bool:
        if self.broker.is_up:
            self.broker.kill()
            self.timeline.after(self.chance.randrange(50 * MS, 4 * S), self.broker.start)
        return True

    def _stall_broker(self) -> bool:
        if self.broker.is_up:
            self.broker.stall(self.chance.choice((600 * MS, 3 * S, 13 * S)))
        return self.broker.is_up

    def _slow_store(self) -> bool:
        self.broker.commit_us_max = 2 * S
        self.timeline.after(3 * S, lambda: setattr(self.broker, "commit_us_max", 5 * MS))
        return True

    def _operate(self) -> bool:
        if not self.broker.is_up:
            return False
        agent = AgentNo(self.chance.randint(1, self.settings.agents))
        ends, then = self.chance.choice(list(DrainEnd)), self.chance.choice(list(DrainThen))
        deadline_us, is_now = self.chance.choice((MS, 3 * S)), self.chance.random() < 0.5
        act = self.chance.randrange(5)
        if act == 0:
            self.broker.ask(lambda ticket: DrainRequested(ticket, agent, ends, then, deadline_us, "ann"))
        elif act == 1:
            self.broker.ask(lambda ticket: DisableRequested(ticket, agent, is_now, "ann"))
        else:
            self._let_work(agent)
        return True

    def _let_work(self, agent: AgentNo) -> None:
        self.broker.ask(lambda ticket: EnableRequested(ticket, agent, "ann"))
        self.broker.ask(lambda ticket: ResumeRequested(ticket, agent, "ann"))
        self.broker.ask(lambda ticket: DrainCancelled(ticket, agent, "ann"))

    def _cancel(self) -> bool:
        if not (self.broker.is_up and self.accepted):
            return False
        key = self.chance.choice(list(self.accepted.values()))
        self.broker.ask(lambda ticket: CancelRequested(ticket, key, "ann"))
        return True

    # --- the end ----------------------------------------------------------------------------------------------------

    def _calm(self) -> None:
        """Faults are over; every few seconds operators let everything work and look at what is held."""
        if self.broker.is_up:
            for number in range(self.settings.agents):
                self._let_work(AgentNo(number + 1))
            jobs = self.broker.dispatcher.ledger.jobs
            for key in [key for key, job in jobs.items() if job.state is JobState.HELD]:
                if key not in self.journal.executing:  # a person looks before it is tried again
                    self.counts["resolved"] += 1
                    self.broker.ask(lambda ticket, one=key: HeldResolved(ticket, one, "retry", "ann"))  # type: ignore[misc]
        for agent in self.agents.values():
            if agent.stream is not None and (agent.stream.up.is_cut != agent.stream.down.is_cut):
                agent.stream.cut()
        self.timeline.after(5 * S, self._calm)

    def _is_done(self) -> bool:
        return (
            self.broker.is_settled
            and len(self.accepted) == self.settings.jobs
            and not self.broker.dispatcher.ledger.jobs
            and all(one.session.is_idle for one in self.agents.values())
            and not any(one.held for one in self.broker.dispatcher.ledger.agents.values())
        )

    def _judge(self) -> None:
        ledger = self.broker.dispatcher.ledger
        left = [(job.key, job.state, job.phase, job.agent) for job in ledger.jobs.values()]
        assert not left, f"jobs never ended: {left}"
        assert len(self.accepted) == self.settings.jobs, "a submission was never answered"
        held = {one.process: one.session.held for one in self.agents.values() if not one.session.is_idle}
        assert not held, f"agents hold attempts for ever: {held}"
        occupied = {one.agent_id: one.held for one in ledger.agents.values() if one.held}
        assert not occupied, f"slots are taken for ever: {occupied}"
        keys = set(self.accepted.values())
        assert keys == set(self.ended), "a job that was accepted is not there, or one that nobody submitted is"
        assert len(keys) == len(self.accepted), "two submissions were told the same job"
        twice = [one for one, count in self.taken.items() if count > 1]
        assert not twice, f"outcomes accepted twice: {twice}"
        self._judge_results()

    @property
    def needless(self) -> list[tuple[JobKey, int, str]]:
        """Attempts that the broker knew to run and gave up although nobody asked for it: (job, attempt, why)."""
        given_up = ("lost", "not_listed", "incarnation_ended", "accept_timeout", "left")
        return [one[:3] for one in self.endings if one[2] in given_up and one[3]]

    def _judge_results(self) -> None:
        """What is stored as a result was made by the job's last attempt, which did succeed."""
        for key, state in self.ended.items():
            if state is not JobState.SUCCEEDED:
                continue
            row = self.broker.stored.finished[key]
            if row.code == "" and (key, row.attempt) in self.taken:
                assert (key, row.attempt) in self.journal.succeeded, (
                    f"attempt {row.attempt} of job {key} never succeeded"
                )
                assert bytes(self.broker.stored.results[key]).startswith(f"{(key, row.attempt)}".encode())  # type: ignore[call-overload]
