"""What one run is made of, drawn from its seed: faults, features of the work, and the policy of the group."""

from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from broker.dispatch.messages import JobSubmitted
from broker.dispatch.model import (
    SECOND_US,
    DispatchPolicy,
    OnLoss,
    OperationPolicy,
    Placing,
    Spread,
)
from simulator.fuzz.timeline import MS, S

FEATURES: Final = (
    "levels",
    "fairness",
    "limits",
    "labels",
    "delays",
    "deadlines",
    "poison",
    "hopeless",
    "boasts",
    "bounds",
    "progress",
    "removal",
)
"""What a run may have beyond the plain: see `submission`, `labels_of`, `claims` and `Course`. Added at the end only."""
WORK: Final = "work"
RARE: Final = "rare"
"""An operation that only the first agent serves; with `boasts` the last one says so too, and refuses it."""
POISON: Final = "poison"
"""An operation that kills its agent."""
HOPELESS: Final = "hopeless"
"""An operation that fails each time."""
NAMES: Final = "abcdef"
_LOSSES: Final = (OnLoss.RETRY, OnLoss.RETRY, OnLoss.RETRY, OnLoss.RETRY, OnLoss.HOLD, OnLoss.FAIL)
POLICIES: Final = tuple(
    OperationPolicy(number + 1, exclusive=number % 2 == 1, on_loss=on_loss, cancel_grace_us=3 * SECOND_US)
    for number, on_loss in enumerate(_LOSSES)
)
LIMITED: Final = OperationPolicy(len(POLICIES) + 1, cancel_grace_us=3 * SECOND_US, running_max=1)
LIVE_MAX: Final = 6
"""Live jobs that a group with `bounds` takes."""
REMOVALS: Final = 0.4
"""Share of the runs with `removal` in which the group is removed in the midst of the faults."""
STRICT: Final = (3, 8)
"""Of sixteen seeds those in which all invariants are judged after each step; what is wrong in the books stays there."""
FAULTY_US: Final = 40 * S
"""How long faults happen."""
OPERATOR: Final = "ann"
SUBMITTER: Final = "bob"
"""Who cancels jobs."""
OTHER_DIGEST: Final = b"other"
"""Of a submission that says the id of a job and means another one."""


@dataclass(slots=True, frozen=True)
class Strike:
    """A fault that struck, with the state of the mesh's generator from which it drew."""

    at_us: int
    fault: str
    state: tuple[Any, ...] = field(repr=False)


@dataclass(slots=True, frozen=True)
class Course:
    """`faults` are names of `simulator.fuzz.faults`, struck about `every_us` apart; `features` are of FEATURES.

    `failing` and `slow_stops` are shares of runs. `replays`: whether each life of the broker is played again
    (invariant 9), which costs as much as the run. `looks_every`: after how many batches all invariants of a state are
    judged; 0: after each step of the dispatcher, which costs more than the run. `strikes` are those of another run of
    the same seed: they strike in the place of what would be drawn. Jobs that are `left_out` are never submitted.
    `removed_after_us`: when the group is removed with all that it has; 0: never.
    """

    seed: int
    faults: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    every_us: int = 2 * S
    agents: int = 3
    jobs: int = 14
    failing: float = 0.0
    slow_stops: float = 0.0
    replays: bool = False
    looks_every: int = 0
    policy: DispatchPolicy = field(default_factory=DispatchPolicy)
    strikes: tuple[Strike, ...] | None = None
    left_out: frozenset[int] = frozenset()
    removed_after_us: int = 0

    @property
    def submitted(self) -> tuple[int, ...]:
        """The numbers of the jobs that are submitted."""
        return tuple(number for number in range(self.jobs) if number not in self.left_out)


def course_of(seed: int, faults: tuple[str, ...], known: tuple[str, ...] = FEATURES) -> Course:
    """Each fault and each `known` feature on with one half (a swarm); one seed in four with all of them."""
    chance = Random(f"course {seed}")
    is_full = seed % 4 == 0
    features = tuple(feature for feature in known if is_full or chance.random() < 0.5)
    return Course(
        seed,
        tuple(fault for fault in faults if is_full or chance.random() < 0.5),
        features,
        every_us=chance.choice((500 * MS, S, 3 * S)),
        agents=chance.choice((2, 3, 3, 4)),
        failing=chance.choice((0.0, 0.2)),
        slow_stops=chance.choice((0.0, 0.3)),
        replays=seed % 8 == 0,
        looks_every=0 if seed % 16 in STRICT else 5,
        policy=_policy(chance, LIVE_MAX if "bounds" in features else DispatchPolicy().queue_jobs_max),
        removed_after_us=_removed_after_us(chance) if "removal" in features else 0,
    )


def _removed_after_us(chance: Random) -> int:
    return chance.randrange(10 * S, FAULTY_US) if chance.random() < REMOVALS else 0


def _policy(chance: Random, jobs_max: int) -> DispatchPolicy:
    """The starting numbers, or small bounds that make the dispatcher go on in slices."""
    return DispatchPolicy(
        placing=chance.choice((Placing.LEAST_LOADED, *Placing)),
        spread=chance.choice((Spread.BALANCED, *Spread)),
        ageing_us=chance.choice((0, 5 * S, 300 * S)),
        placements_step_max=chance.choice((1, 3, 1_024)),
        expiries_step_max=chance.choice((2, 5, 256)),
        queue_jobs_max=jobs_max,
    )


def labels_of(course: Course, number: int) -> frozenset[str]:
    """The labels of agent `number` (0 is the first)."""
    return frozenset({f"zone={'xy'[number % 2]}"}) if "labels" in course.features else frozenset()


def serves(course: Course, number: int) -> frozenset[str]:
    """The operations that agent `number` runs."""
    return frozenset({WORK, POISON, HOPELESS} | ({RARE} if number == 0 else set()))


def claims(course: Course, number: int) -> frozenset[str]:
    """The operations that agent `number` says that it runs."""
    is_boasting = "boasts" in course.features and number == course.agents - 1
    return serves(course, number) | ({RARE} if is_boasting else set())


def _operation(number: int, features: set[str]) -> str:
    if "poison" in features and number % 7 == 0:
        return POISON
    if "hopeless" in features and number % 6 == 1:
        return HOPELESS
    return RARE if number % 5 == 0 else WORK


def submission(course: Course, number: int, ticket: int) -> JobSubmitted:
    """Job `number` (0 is the first): the same whenever it is asked for."""
    chance = Random(f"job {number} of {course.seed}")
    features = {feature for feature in course.features if chance.random() < 0.5}
    operation = _operation(number, features)
    is_limited = "limits" in features
    zone = f"zone={chance.choice('xy'[: min(2, course.agents)])}"
    is_placed = "labels" in features and operation != RARE
    return JobSubmitted(
        ticket,
        b"job %d" % number,
        operation,
        LIMITED if is_limited else chance.choice(POLICIES),
        b"same",
        labels=(zone,) if is_placed else (),
        level=chance.randint(1, 5) if "levels" in features else 3,
        fairness=chance.choice("mn") if "fairness" in features else "",
        limit_key="one" if is_limited else "",
        delay_us=chance.randrange(5 * S) if "delays" in features else 0,
        schedule_to_start_us=chance.choice((0, 8 * S)) if "deadlines" in features else 0,
        run_timeout_us=2 * S if "deadlines" in features else 0,
        total_timeout_us=25 * S if "deadlines" in features else 0,
        idempotency_key=f"key {number}" if number % 3 == 0 else "",
    )
