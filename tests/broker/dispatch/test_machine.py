"""Any order of events leaves a sound dispatcher: a Hypothesis state machine with all invariants after each step."""

from __future__ import annotations

import os
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from broker.dispatch.messages import RejectCause
from broker.dispatch.model import (
    FINAL_STATES,
    OWN_PREFETCH,
    Admin,
    DrainEnd,
    DrainThen,
    JobState,
    OnLoss,
    OutcomeStatus,
    Placing,
    Spread,
)
from tests.broker.dispatch.bench import GroupBench

AGENTS = (0, 1, 2)
OPERATIONS = ("fetch", "store")
LABELS = ("zone=eu",)
OTHER_LABELS = ("zone=us",)
LIMITS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"limit_key": "one", "running_max": 1},
    {"limit_key": "two", "running_max": 2},
    {"limit_key": "two", "running_max": 3},
)
REPORTS = ("accept", "start", "start", "finish", "finish", "fail", "stopped", "stopped", "fenced")
agent_places = st.sampled_from(AGENTS)
SETTLED = {*FINAL_STATES, JobState.HELD}
seconds = st.sampled_from((0.5, 1, 2, 5, 7, 11, 31, 70))


class GroupMachine(RuleBasedStateMachine):
    """Agents come, go, hang and lie, operators act, jobs are submitted, cancelled, reported on; the broker is killed.

    There are three agents at a time, known by their place: one that is removed is followed by another.
    """

    @initialize(seed=st.integers(0, 3), capacity=st.integers(0, 3), spread=st.sampled_from(Spread))
    def begin(self, seed: int, capacity: int, spread: Spread) -> None:
        self.group = GroupBench(
            seed,
            spread,
            placements_step_max=2,
            expiries_step_max=3,
            queue_jobs_max=12,
            lanes_max=6,
            agent_classes_max=4,
            label_sets_max=3,
        )
        self.count = 0
        self.names = ["a", "b", "c"]
        self.removed: list[str] = []
        for name in self.names:
            self.group.add(name)
        self.group.connect("a", slots=max(1, capacity), capacity=capacity, operations=OPERATIONS)

    def attempt(self, draw: Any) -> str:
        """Some attempt: mostly the latest of a live job, now and then an old one or one of a finished job."""
        live = [name for name, key in self.group.job_names.items() if key in self.group.dispatcher.ledger.jobs]
        name = draw(st.sampled_from(live or sorted(self.group.job_names)))
        number = draw(st.sampled_from((0, 0, 0, 0, 1, 2)))
        return f"{name}#{number}" if number else name

    def reporter(self, draw: Any, attempt: str) -> str:
        """The agent that has the attempt, now and then another; only one that is connected can report."""
        holder = self.group.holder(attempt)
        name = draw(st.sampled_from((holder, holder, holder, *self.names)))
        return name if name in self.names and self.group.agent(name).is_present else ""

    @rule(
        operation=st.sampled_from(OPERATIONS),
        exclusive=st.booleans(),
        on_loss=st.sampled_from(OnLoss),
        level=st.integers(1, 5),
        fairness=st.sampled_from(("", "x", "y")),
        delay_s=st.sampled_from((0, 0, 0, 3, 90)),
        run_timeout_s=st.sampled_from((0, 0, 4)),
        total_timeout_s=st.sampled_from((0, 0, 20, 100)),
        schedule_to_start_s=st.sampled_from((0, 0, 8)),
        labels=st.sampled_from(((), (), LABELS)),
        budgets=st.sampled_from(({}, {}, {"failures_max": 2, "crashes_max": 1, "bounces_max": 2})),
        limit=st.sampled_from(LIMITS),
        again=st.booleans(),
    )
    def submit(self, budgets: dict[str, Any], limit: dict[str, Any], again: bool, **fields: Any) -> None:
        self.count += 1
        job_id = {"id": f"j{self.count - 1}"} if again and self.count > 1 and self.count % 3 == 0 else {}
        self.group.submit(f"j{self.count}", payload_bytes=self.count, **fields, **budgets, **limit, **job_id)

    @rule(
        place=agent_places,
        new=st.booleans(),
        slots=st.integers(1, 3),
        spare=st.integers(0, 1),
        operations=st.sampled_from((OPERATIONS, OPERATIONS, ("fetch",), ("store",))),
        labels=st.sampled_from((LABELS, ())),
        data=st.data(),
    )
    def connect(self, place: int, new: bool, slots: int, spare: int, data: Any, **offer: Any) -> None:
        name = self.names[place]
        agent = self.group.agent(name)
        held = [f"{self.group.name(key)}#{job.attempt}" for key, job in agent.live.items()]
        held += [f"{self.group.name(key)}#{attempt}" for key, attempt in agent.detached]
        held += [f"{self.group.name(job.key)}#{job.attempt}" for job in self.adoptable(name)]
        kept = [one for one in held if not new and data.draw(st.integers(0, 3))]
        ended = [one for one in kept if not data.draw(st.integers(0, 2))]
        running = [one for one in kept if one not in ended]
        status = data.draw(st.sampled_from(OutcomeStatus))
        self.group.connect(
            name,
            new=new,
            slots=slots,
            capacity=slots + spare,
            **offer,
            held=running,
            finished=[one for one in running if data.draw(st.booleans())],
            outcomes=[f"{one}={status}" for one in ended],
        )

    def adoptable(self, name: str) -> list[Any]:
        jobs = self.group.dispatcher.ledger.jobs.values()
        number = self.group.agent_names[name]
        return [job for job in jobs if job.phase == "adoptable" and job.agent == number]

    @rule(place=agent_places)
    def connect_late(self, place: int) -> None:
        name = self.names[place]
        if self.group.agent(name).is_present:
            self.group.connect(name, stale=True)

    @rule(place=agent_places)
    def resync(self, place: int) -> None:
        name = self.names[place]
        agent = self.group.agent(name)
        if agent.is_present:
            self.group.connect(name, resync=True, held=[self.group.name(key) for key in agent.live])

    @rule(place=agent_places)
    def close(self, place: int) -> None:
        name = self.names[place]
        if self.group.agent(name).is_present:
            self.group.close(name)

    @rule(place=agent_places)
    def leave(self, place: int) -> None:
        name = self.names[place]
        if self.group.agent(name).is_present:
            self.group.leave(name)

    @rule(place=agent_places)
    def mute(self, place: int) -> None:
        name = self.names[place]
        self.group.mute(name)

    @rule(place=agent_places)
    def unmute(self, place: int) -> None:
        name = self.names[place]
        self.group.unmute(name)

    @rule(place=agent_places, capacity=st.integers(0, 4))
    def capacity(self, place: int, capacity: int) -> None:
        name = self.names[place]
        if self.group.agent(name).is_present:
            self.group.capacity(name, capacity)

    @precondition(lambda self: self.group.job_names)
    @rule(
        data=st.data(),
        report=st.sampled_from(REPORTS),
        retryable=st.booleans(),
    )
    def report(self, data: Any, report: str, retryable: bool) -> None:
        attempt = self.attempt(data.draw)
        agent = self.reporter(data.draw, attempt)
        if agent:
            more = {"retryable": retryable} if report == "fail" else {}
            getattr(self.group, report)(attempt, agent=agent, **more)

    @precondition(lambda self: self.group.job_names)
    @rule(data=st.data(), cause=st.sampled_from((RejectCause.BUSY, RejectCause.UNFIT, RejectCause.LEAVING)))
    def reject(self, data: Any, cause: str) -> None:
        attempt = self.attempt(data.draw)
        agent = self.reporter(data.draw, attempt)
        if agent:
            self.group.reject(attempt, agent=agent, cause=cause)

    @precondition(lambda self: self.group.job_names)
    @rule(data=st.data())
    def checkpoint(self, data: Any) -> None:
        attempt = self.attempt(data.draw)
        agent = self.reporter(data.draw, attempt)
        if agent:
            self.group.progress(attempt, agent=agent, body=b"half")

    @precondition(lambda self: self.group.job_names)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        self.group.cancel(data.draw(st.sampled_from(sorted(self.group.job_names))))

    @rule(place=agent_places)
    def crash(self, place: int) -> None:
        """All that the agent has runs, and its process is another one."""
        name = self.names[place]
        if self.group.agent(name).is_present:
            live = [f"{self.group.name(key)}#{job.attempt}" for key, job in self.group.agent(name).live.items()]
            self.group.start(*live, agent=name)
            self.group.connect(name, new=True)

    @rule(place=agent_places)
    def leaving(self, place: int) -> None:
        name = self.names[place]
        if self.group.agent(name).is_present:
            self.group.leaving(name)

    # --- operators --------------------------------------------------------------------------------------------------

    @rule(
        place=agent_places,
        ends=st.sampled_from(DrainEnd),
        then=st.sampled_from(DrainThen),
        deadline_s=st.sampled_from((0, 0.5, 3, 20)),
    )
    def drain(self, place: int, **how: Any) -> None:
        self.group.drain(self.names[place], **how)

    @rule(place=agent_places, act=st.sampled_from(("cancel_drain", "resume", "enable")))
    def let_work(self, place: int, act: str) -> None:
        getattr(self.group, act)(self.names[place])

    @rule(place=agent_places, now=st.booleans())
    def disable(self, place: int, now: bool) -> None:
        self.group.disable(self.names[place], now=now)

    @rule(place=agent_places, rank=st.integers(0, 2))
    def rank(self, place: int, rank: int) -> None:
        self.group.rank(self.names[place], rank)

    @rule(place=agent_places, labels=st.sampled_from(((), LABELS, OTHER_LABELS)))
    def label(self, place: int, labels: tuple[str, ...]) -> None:
        self.group.label(self.names[place], labels=labels)

    @rule(place=agent_places)
    def remove(self, place: int) -> None:
        name = self.names[place]
        self.group.remove(name)
        agent = self.group.dispatcher.ledger.agents.get(self.group.agent_names[name])
        if agent is None or agent.admin is Admin.REMOVED:
            self.removed.append(name)
            self.names[place] = f"{name[0]}{len(self.removed)}"
            self.group.add(self.names[place])

    @precondition(lambda self: self.removed)
    @rule(data=st.data(), act=st.sampled_from(("enable", "drain", "rank", "remove")))
    def too_late(self, data: Any, act: str) -> None:
        """A removed agent says Hello, an operator still wants something of it."""
        name = data.draw(st.sampled_from(self.removed))
        self.group.connect(name, slots=1, capacity=1)
        getattr(self.group, act)(name, *((1,) if act == "rank" else ()))

    @precondition(lambda self: self.group.job_names)
    @rule(data=st.data(), decision=st.sampled_from(("retry", "retry", "fail", "succeed")))
    def resolve(self, data: Any, decision: str) -> None:
        states = self.group.states
        held = sorted(name for name in states if states[name] == JobState.HELD)
        self.group.resolve(data.draw(st.sampled_from(held or sorted(states))), decision)

    # --- time -------------------------------------------------------------------------------------------------------

    @rule(
        spread=st.sampled_from(Spread),
        refuses_inactive=st.booleans(),
        placing=st.sampled_from(Placing),
        prefetch=st.sampled_from((None, OWN_PREFETCH, 0.0, 0.5, 2.0)),
    )
    def configure(self, spread: Spread, refuses_inactive: bool, placing: Placing, prefetch: float | None) -> None:
        self.group.configure(spread=spread, refuses_inactive=refuses_inactive, placing=placing, prefetch=prefetch)

    @rule(time_s=seconds)
    def advance(self, time_s: float) -> None:
        self.group.advance(time_s)

    @rule(time_s=seconds)
    def stall(self, time_s: float) -> None:
        self.group.stall(time_s)

    @rule()
    def restart(self) -> None:
        self.group.restart()

    def teardown(self) -> None:
        """In the end everything is settled: agents come back and finish, and no job is left but held ones."""
        group = self.group
        group.check_run()
        group.configure()
        for name in self.names:
            group.cancel_drain(name).resume(name).enable(name).label(name)
            group.connect(name, new=True, slots=3, capacity=3, operations=OPERATIONS, labels=LABELS)
        for _ in range(200):
            if set(group.states.values()) <= SETTLED:
                break
            group.advance(1)
            for name, phase in list(group.phases.items()):
                if phase in {"sent", "accepted", "stopping"}:
                    group.finish(name)
        assert set(group.states.values()) <= SETTLED, group.states
        assert set(group.dispatcher.ledger.agents) == {group.agent_names[name] for name in self.names}
        group.check_run()


def run(examples: int, steps: int) -> None:
    """The same examples on every run on CI, new ones at home."""
    run_state_machine_as_test(
        GroupMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=os.environ.get("CI") == "true",
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_dispatcher_stays_sound_under_any_order_of_events() -> None:
    run(examples=100, steps=40)


@pytest.mark.soak
def test_dispatcher_stays_sound_under_any_order_of_many_events() -> None:
    run(examples=3_000, steps=60)


# --- the same machine on long walks ---------------------------------------------------------------------------------

OFTEN = {"submit": 4, "report": 6, "connect": 3, "advance": 2, "let_work": 2, "resolve": 1.5, "drain": 1.2}
BEFORE_THE_END = {
    "submit",
    "connect",
    "close",
    "mute",
    "report",
    "crash",
    "drain",
    "disable",
    "remove",
    "advance",
    "cancel",
}
SELDOM = {
    "configure": 0.4,
    "restart": 0.3,
    "stall": 0.5,
    "mute": 0.4,
    "leave": 0.5,
    "leaving": 0.5,
    "remove": 0.7,
    "disable": 0.7,
}


class Draws:
    """In a walk it stands for Hypothesis's data: plain chance gets further than a search for the smallest."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)

    def draw(self, strategy: Any) -> Any:
        strategy = getattr(strategy, "wrapped_strategy", strategy)
        kind = type(strategy).__name__
        if kind == "SampledFromStrategy":
            return self.chance.choice(list(strategy.elements))
        if kind == "IntegersStrategy":
            return self.chance.randint(strategy.start, strategy.end)
        if kind == "BooleansStrategy":
            return self.chance.random() < 0.5
        if kind == "JustStrategy":
            return strategy.value
        assert kind == "DataStrategy", f"a walk cannot draw from {kind}"
        return self


def _act(machine: GroupMachine, one: Any, draws: Draws) -> None:
    one.function(machine, **{name: draws.draw(strategy) for name, strategy in one.arguments.items()})


def walk(seed: int, steps: int) -> None:
    """Rules by chance and weight; each but the most needed is left out of one walk in five."""
    draws, machine = Draws(seed), GroupMachine()
    chance = draws.chance

    _act(machine, machine._initialize_rules_to_run[0], draws)
    rules = [one for one in machine.rules if one.function.__name__ in OFTEN or chance.random() < 0.8]
    weights = [{**OFTEN, **SELDOM}.get(one.function.__name__, 1) for one in rules]
    for one in chance.choices(rules, weights, k=steps):
        if all(may_run(machine) for may_run in one.preconditions):
            _act(machine, one, draws)
    machine.teardown()


def walk_to_the_end(seed: int, steps: int) -> None:
    """A walk in the middle of which the group is removed; the broker may be killed before that is through."""
    draws, machine = Draws(seed), GroupMachine()
    _act(machine, machine._initialize_rules_to_run[0], draws)
    rules = [one for one in machine.rules if one.function.__name__ in BEFORE_THE_END]
    for one in draws.chance.choices(rules, k=steps):
        if all(may_run(machine) for may_run in one.preconditions):
            _act(machine, one, draws)
    group = machine.group
    group.remove_group()
    for _ in range(draws.chance.randrange(4)):
        group.restart().remove_group()
    group.advance(200)
    ledger = group.dispatcher.ledger
    assert (len(ledger.jobs), ledger.agents, ledger.queue.jobs, ledger.queued_bytes) == (0, {}, 0, 0)
    assert (ledger.running, ledger.ending, group.dispatcher.next_deadline_us()) == ({}, set(), None)
    group.check_run()


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_removed_group_ends_whatever_it_held(first: int) -> None:
    for seed in range(first, first + 50):
        walk_to_the_end(seed, steps=40)


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_dispatcher_stays_sound_on_long_walks(first: int) -> None:
    for seed in range(first, first + 20):
        walk(seed, steps=60)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(1_000, 31_000, 1_000))
def test_dispatcher_stays_sound_on_many_long_walks(first: int) -> None:
    for seed in range(first, first + 1_000):
        walk(seed, steps=100)
