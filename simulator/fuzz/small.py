"""A mesh in which nothing happens by itself: each frame, timer, end of a run and fault is a choice of who plays it.

The dispatcher, its driver and the sessions are those of `simulator.fuzz.mesh`; there is no chance. `choices` are all
that can happen next, `do` has one of them happen, and whatever it breaks is raised. `simulator.fuzz.search` plays every
order there is.

How time passes: a frame, the end of a stream and a timer that has come are soon, and all of them happen before time
goes on, in any order. What has its own time (how long a run takes, when a process is started again, when an agent dials
again) may happen at any moment. Time goes on to the next deadline of somebody; of several at one instant those of
agents come first. A heartbeat on a stream that is whole and empty is answered in the instant in which it is sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Final

from agent_stub.session import Hello
from broker.dispatch.batch import Batch
from broker.dispatch.messages import (
    AgentAdded,
    DrainCancelled,
    DrainRequested,
    HeldDecision,
    HeldResolved,
    JobAccepted,
    JobSubmitted,
    Reply,
)
from broker.dispatch.model import AgentNo, DrainEnd, DrainThen, JobKey, JobState, OperationPolicy
from simulator.fuzz.agent import Journal
from simulator.fuzz.bounds import POLICY, Bounds, Choice
from simulator.fuzz.broken import LIVENESS, expect
from simulator.fuzz.course import NAMES, OPERATOR, WORK, Course
from simulator.fuzz.judge import Judge
from simulator.fuzz.line import Line
from simulator.fuzz.small_agent import SmallAgent, is_beat_only
from simulator.fuzz.stepped import Constant, SteppedBroker, Still, Tally
from simulator.fuzz.timeline import START_US, S

FIRST_STEPS_MAX: Final = 100


class SmallMesh:
    """One run, as far as it has come. `left` is how often each fault may still strike."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.timeline = Still()
        self.chronicle = Tally()
        self.journal = Journal(self.chronicle)
        self.judge = Judge(self.chronicle, self.journal)
        self.accepted: dict[int, JobKey] = {}
        self.left = {
            one.name: getattr(bounds, one.name)
            for one in fields(bounds)
            if one.name not in ("exclusive", "agents", "jobs")
        }
        self.is_due = False
        """Whether the broker's timer has come."""
        self.lines: list[Line] = []
        course = Course(0, agents=bounds.agents, jobs=bounds.jobs, looks_every=1, policy=POLICY)
        self.broker = SteppedBroker(course, self.timeline, self.chronicle, self._on_commit, Constant())
        self.broker.start()
        self.drained: dict[AgentNo, None] = {}
        self._lives: Counter[AgentNo] = Counter()
        numbers = [AgentNo(number + 1) for number in range(bounds.agents)]
        for number in numbers:
            self.broker.ask(lambda ticket, no=number: AgentAdded(ticket, no, NAMES[no - 1]))  # type: ignore[misc]
        self.broker.turn()
        self.broker.commit()
        self.agents = {number: self._begun(number) for number in numbers}

    def connect(self) -> None:
        """Have every agent dial and be welcomed, and the broker be over its start."""
        for _ in range(FIRST_STEPS_MAX):
            able = [one for one in self.choices() if not one.is_fault and one.name != "submit"]
            self.do(min(able, key=lambda one: one.name == "tick"))
            if self.timeline.now_us > START_US + POLICY.recovery_grace_us and not self.is_due:
                return
        raise AssertionError("agents do not connect")

    @property
    def is_done(self) -> bool:
        """Whether all work has come to its end, and nothing is under way."""
        broker = self.broker
        return (
            broker.is_settled
            and len(self.accepted) == self.bounds.jobs
            and not broker.dispatcher.ledger.jobs
            and all(one.session.is_idle for one in self._alive())
            and not any(one.held for one in broker.dispatcher.ledger.agents.values())
            and not self.is_due
            and not any(line.is_busy for line in self.lines)
        )

    def _alive(self) -> list[SmallAgent]:
        return [agent for agent in self.agents.values() if not agent.is_over]

    # --- what can happen --------------------------------------------------------------------------------------------

    def choices(self) -> list[Choice]:
        """All that can happen next, faults included; none: it would stand still for ever."""
        if self.broker.is_committing:
            fates = ("lose", "keep") if self.left["broker_crashes"] else ()
            return [Choice("commit"), *(Choice(name, is_fault=True) for name in fates)]
        soon = self._soon()
        found = [*soon, *self._patient(), *self._faults()]
        if not soon and self._next_us() is not None:
            found.append(Choice("tick"))
        return found

    def in_any_order(self, choices: list[Choice]) -> list[Choice]:
        """Those of `choices` that must be tried now, so that no outcome is missed: the others may as well come later.

        With faults to come that is all of them. Else what arrives at an agent meets nothing but the ends of its own
        runs: whatever else happens before it happens just so after it.
        """
        if any(self.left.values()):
            return choices
        for choice in choices:
            if choice.name in ("down", "agent_hears_end"):
                number = self.lines[choice.number].number
                return [choice, *(one for one in choices if one.name == "finish" and one.number == number)]
        return choices

    def _soon(self) -> list[Choice]:
        """What happens before time goes on."""
        found = [Choice("timer")] if self.is_due else []
        for index, line in enumerate(self.lines):
            if line.up.frames:
                found.append(Choice("up", index))
            elif line.ends_at_broker:
                found.append(Choice("broker_hears_end", index))
            if line.down.frames:
                found.append(Choice("down", index))
            elif line.ends_at_agent:
                found.append(Choice("agent_hears_end", index))
        return found

    def _patient(self) -> list[Choice]:
        """What happens when it likes."""
        is_up = self.broker.is_up
        found = [] if is_up else [Choice("start_broker")]
        for number, agent in self.agents.items():
            if agent.may_dial and is_up:
                found.append(Choice("dial", number))
            found += [Choice("finish", number, nth) for nth in range(len(agent.runs))]
        if is_up:
            found += [Choice("submit", number) for number in range(self.bounds.jobs) if number not in self.accepted]
            found += [Choice("resolve", number) for number in self._held()]
        return found + [Choice("undrain", number) for number in self.drained if is_up]

    def _held(self) -> list[int]:
        """Jobs that wait for a person, who looks first whether they still run."""
        jobs, executing = self.broker.dispatcher.ledger.jobs, self.journal.executing
        states = {number: jobs.get(key) for number, key in self.accepted.items() if key not in executing}
        return [number for number, job in states.items() if job is not None and job.state is JobState.HELD]

    def _faults(self) -> list[Choice]:
        left, is_up, found = self.left, self.broker.is_up, []
        up = [number for number, agent in self.agents.items() if not agent.is_over]
        found += [Choice("crash", number, is_fault=True) for number in up if left["crashes"]]
        found += [Choice("stop", number, is_fault=True) for number in up if left["stops"]]
        whole = [index for index, line in enumerate(self.lines) if line.is_whole]
        found += [Choice("cut", index, is_fault=True) for index in whole if left["cuts"]]
        found += [Choice("silence", index, is_fault=True) for index in whole if left["silences"]]
        if is_up:
            found += [Choice("kill_broker", is_fault=True)] if left["broker_crashes"] else []
            found += [Choice("cancel", number, is_fault=True) for number in self.accepted if left["cancels"]]
            able = [number for number in self.agents if number not in self.drained and left["drains"]]
            found += [Choice("drain", number, is_fault=True) for number in able]
        return found

    def _next_us(self) -> int | None:
        due = [self.broker.due_us, *(agent.due_us for agent in self.agents.values())]
        return min((one for one in due if one is not None), default=None)

    # --- what happens -----------------------------------------------------------------------------------------------

    def do(self, choice: Choice) -> None:
        """Have it happen. Raises BrokenPromiseError."""
        _ACTS[choice.name](self, choice)
        for line in self.lines:
            self._beat(line)
            self._forget(line)
        current = {id(agent.line) for agent in self.agents.values()}
        self.lines = [line for line in self.lines if line.is_busy or id(line) in current or line in self.broker.peers]

    def _forget(self, line: Line) -> None:
        """What arrives where nobody reads it any more does not count."""
        if self.agents[AgentNo(line.number)].line is not line:
            line.down.cut()
            line.ends_at_agent = False
        is_hello = bool(line.up.frames) and isinstance(line.up.frames[0], Hello)
        if line not in self.broker.peers and not is_hello:
            line.up.frames.clear()
            line.ends_at_broker = False

    def _beat(self, line: Line) -> None:
        """A heartbeat alone on a stream that is whole and empty is answered at once."""
        if line.is_whole and not line.down.frames and len(line.up.frames) == 1 and is_beat_only(line.up.frames[0]):
            self._on_up(line)
            while line.down.frames:
                self._on_down(line)

    def _on_up(self, line: Line) -> None:
        agent = self.agents[AgentNo(line.number)]
        self.broker.read(line, agent, agent.process.encode(), line.up.frames.popleft())

    def _on_down(self, line: Line) -> None:
        frame = line.down.frames.popleft()
        agent = self.agents[AgentNo(line.number)]
        if agent.line is line:
            agent.read(frame)

    def _do_up(self, choice: Choice) -> None:
        self._on_up(self.lines[choice.number])
        self._turn()

    def _do_down(self, choice: Choice) -> None:
        self._on_down(self.lines[choice.number])

    def _do_broker_hears(self, choice: Choice) -> None:
        line = self.lines[choice.number]
        line.ends_at_broker = False
        self.broker.ended(line)
        self._turn()

    def _do_agent_hears(self, choice: Choice) -> None:
        line = self.lines[choice.number]
        line.ends_at_agent = False
        agent = self.agents[AgentNo(line.number)]
        if agent.line is line:
            agent.hear_the_end()

    def _do_tick(self, _: Choice) -> None:
        next_us = self._next_us()
        assert next_us is not None, "nothing is awaited"
        now_us = self.timeline.now_us = max(self.timeline.now_us, next_us)
        for agent in self.agents.values():  # what they do at this instant touches nothing that they share
            if agent.due_us is not None and agent.due_us <= now_us:
                agent.timer()
        self.is_due = self.broker.due_us is not None and self.broker.due_us <= now_us

    def _do_timer(self, _: Choice) -> None:
        self._turn()

    def _turn(self) -> None:
        self.is_due = False
        self.broker.turn()
        if self.broker.is_committing and not self.left["broker_crashes"]:
            self.broker.commit()

    def _do_submit(self, choice: Choice) -> None:
        self.broker.ask(partial(self._submission, choice.number), partial(self._on_reply, choice.number))
        self._turn()

    def _submission(self, number: int, ticket: int) -> JobSubmitted:
        policy = OperationPolicy(1, exclusive=self.bounds.exclusive, cancel_grace_us=2 * S)
        return JobSubmitted(ticket, b"job %d" % number, WORK, policy, b"same")

    def _on_reply(self, number: int, reply: Reply) -> None:
        expect(isinstance(reply, JobAccepted), "P7", f"job {number} was answered by {reply}")
        if isinstance(reply, JobAccepted):
            self.accepted[number] = reply.job_key

    def _do_commit(self, _: Choice) -> None:
        self.broker.commit()

    def _on_commit(self, batch: Batch) -> None:
        self.judge.on_commit(self.broker, batch)

    def _begun(self, number: AgentNo) -> SmallAgent:
        self._lives[number] += 1
        return SmallAgent(number, self._lives[number], self.timeline, self.journal)

    def _do_dial(self, choice: Choice) -> None:
        """An agent opens a stream; one that has ended is started again first."""
        number = AgentNo(choice.number)
        if self.agents[number].is_over:
            self.agents[number] = self._begun(number)
        self.lines.append(self.agents[number].dial())

    def _do_finish(self, choice: Choice) -> None:
        agent = self.agents[AgentNo(choice.number)]
        agent.finish(list(agent.runs)[choice.attempt])

    def _do_start_broker(self, _: Choice) -> None:
        self.broker.start()

    def _do_resolve(self, choice: Choice) -> None:
        key = self.accepted[choice.number]
        self.broker.ask(lambda ticket: HeldResolved(ticket, key, HeldDecision.RETRY, OPERATOR))
        self._turn()

    # --- faults -----------------------------------------------------------------------------------------------------

    def _do_crash(self, choice: Choice) -> None:
        self.left["crashes"] -= 1
        self.agents[AgentNo(choice.number)].kill()

    def _do_stop(self, choice: Choice) -> None:
        self.left["stops"] -= 1
        self.agents[AgentNo(choice.number)].drain()

    def _do_cut(self, choice: Choice) -> None:
        self.left["cuts"] -= 1
        self.lines[choice.number].cut()

    def _do_silence(self, choice: Choice) -> None:
        self.left["silences"] -= 1
        self.lines[choice.number].cut(is_silent=True)

    def _do_kill_broker(self, _: Choice, *, keeps: bool | None = None) -> None:
        self.left["broker_crashes"] -= 1
        self.broker.kill(keeps=keeps)
        self.is_due = False
        for line in self.lines:
            line.ends_at_broker = False

    def _do_cancel(self, choice: Choice) -> None:
        self.left["cancels"] -= 1
        self.judge.cancel(self.broker, self.accepted[choice.number])
        self._turn()

    def _do_drain(self, choice: Choice) -> None:
        self.left["drains"] -= 1
        agent = AgentNo(choice.number)
        self.drained[agent] = None
        ends, then = DrainEnd.PAUSE, DrainThen.REQUEUE
        self.judge.choose(agent, then)
        self.broker.ask(lambda ticket: DrainRequested(ticket, agent, ends, then, 2 * S, OPERATOR))
        self._turn()

    def _do_undrain(self, choice: Choice) -> None:
        agent = AgentNo(choice.number)
        del self.drained[agent]
        self.broker.ask(lambda ticket: DrainCancelled(ticket, agent, OPERATOR))
        self._turn()

    # --- the end ----------------------------------------------------------------------------------------------------

    def judge_end(self) -> None:
        """All work has ended: what was stored and answered is what really ran. Raises BrokenPromiseError."""
        expect(self.is_done, LIVENESS, "it is not at its end")
        self.judge.at_end(self.broker, self._alive(), self.accepted)
        self.broker.judge_life()


_ACTS: Final[dict[str, Callable[[SmallMesh, Choice], None]]] = {
    "up": SmallMesh._do_up,
    "down": SmallMesh._do_down,
    "broker_hears_end": SmallMesh._do_broker_hears,
    "agent_hears_end": SmallMesh._do_agent_hears,
    "tick": SmallMesh._do_tick,
    "timer": SmallMesh._do_timer,
    "submit": SmallMesh._do_submit,
    "commit": SmallMesh._do_commit,
    "dial": SmallMesh._do_dial,
    "finish": SmallMesh._do_finish,
    "start_broker": SmallMesh._do_start_broker,
    "resolve": SmallMesh._do_resolve,
    "crash": SmallMesh._do_crash,
    "stop": SmallMesh._do_stop,
    "cut": SmallMesh._do_cut,
    "silence": SmallMesh._do_silence,
    "kill_broker": SmallMesh._do_kill_broker,
    "lose": partial(SmallMesh._do_kill_broker, keeps=False),
    "keep": partial(SmallMesh._do_kill_broker, keeps=True),
    "cancel": SmallMesh._do_cancel,
    "drain": SmallMesh._do_drain,
    "undrain": SmallMesh._do_undrain,
}
"""How each choice happens, by its name."""
