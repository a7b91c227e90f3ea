"""A scenario: groups of agents, the work that arrives, the network, the broker, what goes wrong, what is wanted.

`Scenario` is frozen, picklable and complete: the same scenario and seed give the same run, bit by bit.
`simulator.scenario_file` reads it from YAML; `changed` gives it with other values, as sweeps do.
"""

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from broker.dispatch.model import OnLoss, Spread
from simulator.incidents import Incident
from simulator.laws import Arrivals, ConstantLaw, Law, QuantileLaw, Trace
from simulator.model import Above, Count, Model, Money, Name, Seconds, Share, Whole
from simulator.units import nearest


class ChangeError(ValueError):
    """A change that names nothing, or gives a value that does not fit."""


class Horizon(Model):
    """How long: `settle` is left out of all figures, arrivals end after `run`, what is under way then may end."""

    settle: Seconds = 0.0
    run: Annotated[Seconds, Field(gt=0)]
    finish: Seconds = 3_600.0
    """How long after the last arrival jobs may take to end; what is live then is counted as unfinished."""


class Pool(Model):
    """Equal agents of a group. `speed` 2 halves durations; `spread` gives the agents their zones in turn."""

    count: Annotated[int, Field(ge=0, le=100_000)]
    slots: Count = 4
    prefetch: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    speed: Above = 1.0
    spread: Annotated[tuple[str, ...], Field(min_length=1)] = ("zone-a",)
    labels: tuple[str, ...] = ()
    rank: Annotated[int, Field(ge=0, le=1_000)] = 0
    backoff: Literal["mesh", "grpc"] = "mesh"


class Autoscale(Model):
    """Agents follow the load: of the first pool, between `least` and `most`, looked at `every` so often.

    Wanted are as many slots as jobs hold or wait for, over `target`. New agents work after `delay`; after each change
    nothing is changed for `cooldown`. Agents go only as far as no look within `patience` wanted more, as a moment of
    little work is no trend; those that go drain themselves first.
    """

    least: Annotated[int, Field(ge=0, le=100_000)]
    most: Count
    target: Annotated[Share, Field(gt=0)] = 0.7
    every: Annotated[Seconds, Field(gt=0)] = 30.0
    delay: Seconds = 60.0
    cooldown: Seconds = 120.0
    patience: Seconds = 300.0

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.least > self.most:
            raise ValueError("`least` is above `most`")
        return self


class Queue(Model):
    """Bounds and order of what waits. `limit` counts live jobs, running ones included; `ageing` 0: strict levels."""

    limit: Count = 1_000_000
    ageing: Seconds = 300.0


class Group(Model):
    """An agent group: one pool of equal agents, or several that differ."""

    agents: Annotated[tuple[Pool, ...], BeforeValidator(lambda value: [value] if isinstance(value, dict) else value)]
    policy: Annotated[str, Field(pattern=r"^(least-loaded|round-robin|random|power-of-[1-9][0-9]?)$")] = "least-loaded"
    """How an agent is chosen; brokers place by load, the others are there to compare with."""
    spread: Spread = Spread.BALANCED
    queue: Queue = Queue()
    need: Count | None = None
    """So many agents must be up for the group to count as available."""
    autoscale: Autoscale | None = None

    @property
    def count(self) -> int:
        """Agents at the start."""
        return sum(pool.count for pool in self.agents)


class Work(Model):
    """One class of jobs. Durations are drawn for the job: every fleet and policy sees the same work."""

    group: str
    arrivals: Arrivals
    duration: ConstantLaw
    operation: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]*$")] | None = None
    """What agents are asked to run; its own name without it. Work with one operation stands in one queue."""
    redraw: bool = False
    """Whether a further attempt takes another duration of the law; else it takes that of the job again."""
    failure: Share = 0.0
    """The chance that an attempt fails and may be tried again."""
    attempts: Count = 3
    crashes: Count = 3
    bounces: Count = 20
    backoff: Seconds = 1.0
    level: Annotated[int, Field(ge=1, le=5)] = 3
    labels: tuple[str, ...] = ()
    customers: Count = 1
    """So many fairness keys, in turn."""
    exclusive: bool = False
    on_loss: OnLoss = OnLoss.RETRY
    running_max: Whole = 0
    start_within: ConstantLaw | None = None
    run_timeout: Seconds = 0.0
    deadline: Seconds = 0.0


class Network(Model):
    """One way between an agent and the broker, which stands in `broker_zone`; frames of a stream keep their order."""

    broker_zone: str = "zone-a"
    same_zone: QuantileLaw = Law.model_validate({"constant": "0.5 ms"})
    other_zone: QuantileLaw = Law.model_validate({"lognormal": {"p50": "2 ms", "p99": "15 ms"}})
    submit: QuantileLaw = Law(constant=0.0)
    """From when a program submits a job until the broker has it."""
    loss: Annotated[Share, Field(le=0.5)] = 0.0
    """This share of what is sent is lost on every line, and sent again as TCP does."""


class Fidelity(StrEnum):
    """How much is modelled: each level has all of the one before.

    `exact`: the dispatcher alone; agents run at once what they are given, nothing costs time. `network`: agents run
    the real session over delays, with heartbeats and leases. `broker`: a serial event loop with costs and commits.
    `wire`: heartbeats and connections cost the loop time too.
    """

    EXACT = "exact"
    NETWORK = "network"
    BROKER = "broker"
    WIRE = "wire"


class Costs(Model):
    """What the broker's event loop spends, on a machine like the one of the bench; `mesh-sim calibrate` measures it."""

    turn: Seconds = 60e-6
    submission: Seconds = 40e-6
    report: Seconds = 12e-6
    frame: Seconds = 90e-6
    """One frame in or out, however much is in it; heartbeats only at `wire`."""
    connect: Seconds = 2e-3
    """Handshakes of a new stream, at `wire`."""


class Commits(Model):
    """How long a commit takes. A turn begins at least `interval` after the one before; a `tail` of commits is slow."""

    time: QuantileLaw = Law.model_validate({"lognormal": {"p50": "800 us", "p99": "5 ms"}})
    interval: Seconds = 0.0
    tail: Share = 0.0
    tail_time: Seconds = 50e-3


class Broker(Model):
    """How the broker is modelled, and its settings for liveness (see docs/reference/settings.md).

    With a `profile` costs, commits, network and what agents add are as it says, where the scenario does not.
    """

    fidelity: Fidelity = Fidelity.BROKER
    profile: Trace | None = None
    heartbeat: Annotated[Seconds, Field(gt=0)] = 2.0
    idle_heartbeat: Annotated[Seconds, Field(gt=0)] = 5.0
    suspect: Annotated[Seconds, Field(gt=0)] = 6.0
    lease: Annotated[Seconds, Field(gt=0)] = 10.0
    margin: Seconds = 2.0
    reconnect_grace: Seconds = 2.0
    recovery_grace: Seconds = 30.0
    accept_timeout: Annotated[Seconds, Field(gt=0)] = 5.0
    costs: Costs = Costs()
    commits: Commits = Commits()

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if not self.margin < self.lease:
            raise ValueError("`margin` must be less than `lease`")
        if not self.heartbeat < self.suspect <= self.lease:
            raise ValueError("heartbeat < suspect <= lease is wanted: give `suspect` and `lease` with `heartbeat`")
        return self


class AgentHost(Model):
    """What every agent adds to a job besides running it: taking it from its stream, starting it, saying that it ended.

    Not at `exact`.
    """

    overhead: QuantileLaw = Law(constant=0.0)


class Statistics(Model):
    """How many replications, how precise: `auto` goes on until the objectives are decided."""

    replications: Count | Literal["auto"] = "auto"
    precision: Annotated[Share, Field(gt=0)] = 0.05
    seed: Whole = 1


class Cost(Model):
    """What things cost."""

    agent_hour: Money


class Scenario(Model):
    """Everything that is simulated."""

    version: Literal[1] = 1
    name: str = "unnamed"
    horizon: Horizon
    groups: Annotated[dict[Name, Group], Field(min_length=1, max_length=1_000)]
    work: dict[Name, Work] = Field(default_factory=dict)
    network: Network = Network()
    broker: Broker = Broker()
    agent: AgentHost = AgentHost()
    faults: tuple[Incident, ...] = ()
    objectives: tuple[str, ...] = ()
    cost: Cost | None = None
    statistics: Statistics = Statistics()

    @property
    def end_s(self) -> float:
        """When arrivals end."""
        return self.horizon.settle + self.horizon.run

    @property
    def zones(self) -> list[str]:
        """All zones that agents stand in."""
        return sorted({zone for group in self.groups.values() for pool in group.agents for zone in pool.spread})

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        from simulator.contradictions import check  # it knows scenarios

        check(self)
        return self

    def changed(self, changes: Mapping[str, object]) -> "Scenario":
        """The scenario with other values under `key.path` names. Raises ChangeError."""
        if not changes:
            return self
        tree = self.resolved()
        for path, value in changes.items():
            _set(tree, path, value)
        try:
            return Scenario.model_validate(tree)
        except ValidationError as error:
            from simulator.scenario_file import words_of  # it knows scenarios

            wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {words_of(one)}" for one in error.errors())
            raise ChangeError(f"{', '.join(f'{path}={value}' for path, value in changes.items())}: {wrong}") from error

    def resolved(self) -> dict[str, Any]:
        """The scenario as a file would say it, with every default written out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


_AGENTS: Final = re.compile(r"(?P<group>[a-z][a-z0-9-]*)/(?P<first>\d+)(-(?P<last>\d+))?")


def agents_named(scenario: Scenario, word: str) -> Iterator[tuple[str, int]]:
    """(group, number of the agent in it, from 1) of what a word names. Raises LookupError in words."""
    match = _AGENTS.fullmatch(word)
    group = match["group"] if match else word
    if match:
        count = scenario.groups[group].count if group in scenario.groups else 0
        first, last = int(match["first"]), int(match["last"] or match["first"])
        if not 1 <= first <= last <= count:
            raise LookupError(f"`{word}`: group `{group}` has agents 1 to {count}")
        yield from ((group, number) for number in range(first, last + 1))
        return
    if word != "all" and word not in scenario.groups and word not in scenario.zones:
        known = ["all", *scenario.groups, *scenario.zones]
        raise LookupError(f"`{word}` names no agents; {nearest(word, known)}")
    for name, one in scenario.groups.items():
        for number, (_, zone) in enumerate(places_of(one), 1):
            if word in ("all", name, zone):
                yield name, number


def places_of(group: Group) -> Iterator[tuple[Pool, str]]:
    """(pool, zone) of each agent of the group, in the order of their numbers."""
    for pool in group.agents:
        for index in range(pool.count):
            yield pool, pool.spread[index % len(pool.spread)]


def _set(tree: Any, path: str, value: object) -> None:
    """Put a value into the tree. Raises ChangeError if the path leads nowhere."""
    *steps, last = path.split(".")
    for step in steps:
        tree = _into(tree, step, path)
    tree = tree[0] if isinstance(tree, list) and not last.isdigit() and len(tree) == 1 else tree
    if isinstance(tree, dict):
        tree[last] = value
    elif isinstance(tree, list) and last.isdigit() and int(last) < len(tree):
        tree[int(last)] = value
    else:
        raise ChangeError(f"`{path}` leads nowhere: `{last}` is not there")


def _into(tree: Any, step: str, path: str) -> Any:
    if isinstance(tree, list) and len(tree) == 1 and not step.isdigit():
        tree = tree[0]
    if isinstance(tree, list) and step.isdigit() and int(step) < len(tree):
        return tree[int(step)]
    if isinstance(tree, dict) and step in tree:
        return tree[step]
    known = tree if isinstance(tree, dict) else ()
    raise ChangeError(f"`{path}` leads nowhere: there is no `{step}`; {nearest(step, known)}")
