"""Judges each step of a dispatcher by what only a course of events shows: invariants 3, 7, 8, 15 and parts of others.

`Watcher` stands in for the dispatcher that it drives. At the end of a run it replays the journal (invariant 9) and
recovers from what is stored (10). For tests and simulations.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.invariants import Violation, check, owners
from broker.dispatch.ledger import Ledger
from broker.dispatch.messages import (
    AcceptOutcome,
    AgentConnected,
    AssignJob,
    AttemptFinished,
    Effects,
    Event,
    RefuseOutcome,
    RejectAgent,
    TimerFired,
    Transition,
)
from broker.dispatch.model import (
    FINAL_STATES,
    LIVE_PHASES,
    Agent,
    AgentNo,
    Job,
    JobKey,
    JobState,
    Phase,
    Placing,
    Spread,
)
from broker.dispatch.placement import may_take
from broker.dispatch.rows import JobRow
from broker.dispatch.stored import Stored

_OUTCOME_ANSWERS: Final = (AcceptOutcome, RefuseOutcome)

Script = list[tuple[int, Event | None]]
"""What a dispatcher was given: (time, event), and `None` for each take of its effects."""


def replay(dispatcher: Dispatcher, script: Script) -> list[Effects]:
    """The effects of each take, from a dispatcher in the state in which the script began."""
    taken: list[Effects] = []
    is_first = True
    for place, (now_us, event) in enumerate(script):
        if is_first and (lag_us := _lag_us(script, place)):
            dispatcher.stood_still(now_us, lag_us)
        is_first = event is None
        if event is None:
            taken.append(dispatcher.take_effects())
        else:
            dispatcher.step(now_us, event)
    return taken


def _lag_us(script: Script, place: int) -> int:
    """What the timer at the end of a batch says of its driver, who told it before the first event (`Batcher.run`)."""
    for _, event in script[place:]:
        if event is None:
            return 0
        if isinstance(event, TimerFired):
            return event.lag_us
    return 0


class Watcher:
    """Drives a dispatcher and judges each of its steps: `step` and `take_effects` are those of `Dispatcher`.

    `violations` gathers what was found, `script` and `taken` what was given and ordered. A watcher of a recovered
    dispatcher takes `earlier`, the one of the dispatcher before it: attempt numbers grow across crashes too.
    """

    def __init__(self, dispatcher: Dispatcher, earlier: "Watcher | None" = None) -> None:
        self.dispatcher = dispatcher
        self.violations: list[Violation] = []
        self.script: Script = []
        self.taken: list[Effects] = []
        self._epoch = dispatcher.epoch
        self._attempts = {key: job.attempt for key, job in dispatcher.ledger.jobs.items()}
        self._agents = {key: job.agent for key, job in dispatcher.ledger.jobs.items()}
        self._assigned: dict[AgentNo, int] = {}
        self._placements = 0
        if earlier is not None:
            self._attempts |= {key: no for key, no in earlier._attempts.items() if key in self._attempts}

    def step(self, now_us: int, event: Event) -> None:
        """Step the dispatcher, then judge what the step did and the state that it left."""
        effects = self.dispatcher.ledger.effects
        replies, sends, notices = len(effects.replies), len(effects.sends), len(effects.notices)
        self.script.append((now_us, event))
        is_known = self.knows(event)
        self.dispatcher.step(now_us, event)
        new = Effects(replies=effects.replies[replies:], sends=effects.sends[sends:], notices=effects.notices[notices:])
        self.violations += check(self.dispatcher)
        self.judge(event, new, is_known=is_known)

    def knows(self, event: Event) -> bool:
        """Before the step: whether the agent that reports an outcome is one of the group, so that it is answered."""
        return not isinstance(event, AttemptFinished) or event.agent in self.dispatcher.ledger.agents

    def take_effects(self) -> Effects:
        """The effects of the steps since the last take, as the dispatcher gives them."""
        effects = self.dispatcher.take_effects()
        self.script.append((self.dispatcher.ledger.now_us, None))
        self.taken.append(effects)
        return effects

    def judge(self, event: Event, new: Effects, *, is_known: bool) -> None:
        """Judge one step by its event, what it ordered, and what `knows` said before it."""
        assigns = [send for send in new.sends if isinstance(send, AssignJob)]
        for number, judge in (
            (3, self._numbers(assigns)),
            (2, self._capacity(assigns)),
            (4, self._allowed(assigns)),
            (6, self._past(event)),
            (7, self._final(new)),
            (8, self._answers(event, new, is_known=is_known)),
            (15, self._chosen_right(assigns)),
        ):
            self.violations += [Violation(number, text) for text in judge]
        for assign in assigns:
            self._agents[assign.job_key] = self.dispatcher.ledger.jobs[assign.job_key].agent

    def _numbers(self, assigns: list[AssignJob]) -> Iterator[str]:
        """3: attempt numbers of a job only grow; the epoch never changes."""
        if self.dispatcher.epoch != self._epoch:
            yield f"the epoch went from {self._epoch} to {self.dispatcher.epoch}"
        for key, job in self.dispatcher.ledger.jobs.items():
            before = self._attempts.get(key, 0)
            if job.attempt < before:
                yield f"job {key} went back from attempt {before} to {job.attempt}"
        for assign in assigns:
            if assign.attempt <= self._attempts.get(assign.job_key, 0):
                yield f"attempt {assign.attempt} of job {assign.job_key} was made before"
            self._attempts[assign.job_key] = assign.attempt

    def _placed(self, assigns: Iterable[AssignJob]) -> Iterator[tuple[Job, Agent]]:
        ledger = self.dispatcher.ledger
        for assign in assigns:
            job = ledger.jobs[assign.job_key]
            yield job, ledger.agents[job.agent]

    def _capacity(self, assigns: list[AssignJob]) -> Iterator[str]:
        """2: no placement makes an agent's live attempts exceed the capacity that it last stated."""
        for agent in {agent.no: agent for _, agent in self._placed(assigns)}.values():
            if agent.held > agent.capacity:
                yield f"agent {agent.no} was given work up to {agent.held} attempts, its capacity is {agent.capacity}"

    def _allowed(self, assigns: list[AssignJob]) -> Iterator[str]:
        """4: no attempt is placed on an agent that may not take it, nor sent on another session than its own."""
        for assign, (job, agent) in zip(assigns, self._placed(assigns), strict=True):
            if not may_take(job, agent) or assign.session != agent.session:
                yield f"job {job.key} was placed on agent {agent.no} ({agent.link}, {agent.admin})"

    def _past(self, event: Event) -> Iterator[str]:
        """6: no armed deadline lies in the past after `TimerFired`, unless the dispatcher asks to be woken now."""
        if not isinstance(event, TimerFired):
            return
        ledger = self.dispatcher.ledger
        due_us = min((one for _, one, _ in owners(ledger) if one), default=ledger.now_us)
        next_us = self.dispatcher.next_deadline_us()
        asks_now = next_us is not None and next_us <= ledger.now_us
        if due_us < ledger.now_us and not asks_now:
            yield f"a deadline at {due_us} was left behind at {ledger.now_us}"

    def _final(self, new: Effects) -> Iterator[str]:
        """7: a finished job emits no further transitions."""
        for notice in new.notices:
            if not isinstance(notice, Transition):
                continue
            if notice.from_state is None:
                self._attempts.setdefault(notice.job_key, 0)  # it may have been placed in this step
            elif notice.job_key not in self._attempts:
                yield f"job {notice.job_key} is finished and went from {notice.from_state} to {notice.to_state}"
            if notice.to_state in FINAL_STATES:
                self._attempts.pop(notice.job_key, None)
                self._agents.pop(notice.job_key, None)

    def _answers(self, event: Event, new: Effects, *, is_known: bool) -> Iterator[str]:
        """8: each request has one reply, each outcome received one acknowledgement, accepted or refused.

        Of an agent that is removed and forgotten nothing is heard any more: its stream has been ended.
        """
        asked = [event.ticket] if hasattr(event, "ticket") else []
        replied = [reply.ticket for reply in new.replies]
        if replied != asked:
            yield f"tickets {asked} were answered by {replied}"
        outcomes = _outcomes(event, new) if is_known else ()
        received = [(one.session, one.job_key, one.attempt) for one in outcomes]
        answered = [
            (send.session, send.job_key, send.attempt) for send in new.sends if isinstance(send, _OUTCOME_ANSWERS)
        ]
        if sorted(received) != sorted(answered):
            yield f"outcomes {sorted(received)} were acknowledged as {sorted(answered)}"

    def _chosen_right(self, assigns: list[AssignJob]) -> Iterator[str]:
        """15: the agent is the one that the policy says, of all with room that may take the job.

        The agent of the job's previous attempt is chosen only if there is no other (where agents fail over in order: no
        other of the first rank that works). Loads before each placement are
        worked out from those after the step, in which nothing else happens after the first placement.
        """
        if not assigns:
            return
        ledger = self.dispatcher.ledger
        held = {no: agent.held for no, agent in ledger.agents.items()}
        suspects = {no: len(agent.suspects) for no, agent in ledger.agents.items()}
        for job, agent in self._placed(assigns):
            held[agent.no] -= 1
            suspects[agent.no] -= job.is_suspect
        for job, chosen in self._placed(assigns):
            able = [one for one in ledger.agents.values() if held[one.no] < one.capacity and may_take(job, one)]
            if job.is_suspect:
                able = [one for one in able if not suspects[one.no]]
            if ledger.policy.spread is Spread.ORDERED:
                first_rank = min(one.rank for one in ledger.agents.values() if may_take(job, one))
                able = [one for one in able if one.rank == first_rank]
            others = [one for one in able if one.no != self._agents.get(job.key)]
            yield from self._judge_choice(job, chosen, others or able, held)
            held[chosen.no] += 1
            suspects[chosen.no] += job.is_suspect
            self._placements += 1
            self._assigned[chosen.no] = self._placements

    def _judge_choice(self, job: Job, chosen: Agent, able: list[Agent], held: dict[AgentNo, int]) -> Iterator[str]:
        """One placement: the first by load or by turn, or one of the first so many that chance may have drawn."""
        policy = self.dispatcher.ledger.policy
        ranked = sorted(able, key=lambda one: self._rank(one, held[one.no]))
        if policy.placing in (Placing.LEAST_LOADED, Placing.ROUND_ROBIN):
            if ranked[:1] != [chosen]:
                first = ranked[0].no if ranked else None
                yield f"job {job.key} went to agent {chosen.no}, {policy.placing} would have been {first}"
            return
        if policy.spread is Spread.SPILL:
            ranked = [one for one in ranked if one.rank == ranked[0].rank]
        drawn = 1 if policy.placing is Placing.RANDOM else policy.placing_choices
        # Whoever is the best of d that were drawn is at least as good as d - 1 others.
        if chosen not in ranked[: max(1, len(ranked) - drawn + 1)]:
            yield f"job {job.key} went to agent {chosen.no}, which is not the best of any {drawn} with room"

    def _rank(self, agent: Agent, held: int) -> tuple[int, int, int, int]:
        policy = self.dispatcher.ledger.policy
        rank = agent.rank if policy.spread is not Spread.BALANCED else 0
        load = 0 if policy.placing is Placing.ROUND_ROBIN else (held << 20) // agent.slots
        return rank, load, self._assigned.get(agent.no, 0), agent.no

    # --- asked for by a driver --------------------------------------------------------------------------------------

    def replay(self, dispatcher: Dispatcher) -> list[Violation]:
        """9: a dispatcher in the state in which this one was first seen gives the same effects for the same events."""
        again = replay(dispatcher, self.script)
        return [
            Violation(9, f"take {number} of {len(again)} gave other effects")
            for number, (first, second) in enumerate(zip(self.taken, again, strict=True))
            if first != second
        ]

    def recovery(self, stored: Stored) -> list[Violation]:
        """10: what is stored gives a dispatcher equal in the durable projection, queue order included.

        Call it when all effects are taken and stored.
        """
        ledger = self.dispatcher.ledger
        other = Dispatcher(ledger.group, ledger.policy, ledger.epoch + 1, ledger.random)
        stored.recover(other, ledger.now_us)
        ours, theirs = _durable(self.dispatcher), _durable(other)
        texts = [
            f"job {key} is {ours.get(key)}, stored {theirs.get(key)}"
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key)
        ]
        if _lanes(ledger) != _lanes(other.ledger):
            texts.append(f"waiting jobs stand as {_lanes(ledger)}, recovered as {_lanes(other.ledger)}")
        if ledger.acceptance_no != other.ledger.acceptance_no:
            texts.append(f"{ledger.acceptance_no} jobs were accepted, recovered {other.ledger.acceptance_no}")
        return [Violation(10, text) for text in texts]


def _outcomes(event: Event, new: Effects) -> Iterable[AttemptFinished]:
    if isinstance(event, AttemptFinished):
        return (event,)
    if isinstance(event, AgentConnected) and not any(isinstance(send, RejectAgent) for send in new.sends):
        return event.outcomes
    return ()


def _durable(dispatcher: Dispatcher) -> dict[JobKey, JobRow]:
    """The durable projection without the soft flags: whether a live attempt was accepted or has started."""
    rows = dispatcher.durable_view()
    for key, row in rows.items():
        if row.phase in LIVE_PHASES:
            rows[key] = row._replace(phase=Phase.AWAY, state=JobState.ASSIGNED, started_us=0)
    return rows


def _lanes(ledger: Ledger) -> dict[tuple[int, int, str, str, bool], list[JobKey]]:
    """The order of every lane, those of suspects included, under what makes it another than the others."""
    ordinary = set(map(id, ledger.queue.lanes.values()))
    return {
        (lane.level.label_set.no, lane.level.number, lane.fairness, lane.limit_key, id(lane) in ordinary): [
            job.key for job in sorted(lane, key=lambda job: (job.order_us, job.key))
        ]
        for lane in ledger.queue.all_lanes()
        if lane.size
    }
