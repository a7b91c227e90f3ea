"""Many runs: each seed a schedule, judged, counted and digested; what fails is told.

`mesh-sim fuzz --seeds 1-2000` is a campaign.
"""

from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from simulator.backends import Backend
from simulator.fuzz.broken import CRASH, BrokenPromiseError
from simulator.fuzz.chronicle import DIGEST_BYTES
from simulator.fuzz.course import FEATURES, Course, course_of
from simulator.fuzz.faults import FAULTS, GENTLE
from simulator.fuzz.mesh import Mesh
from simulator.fuzz.timeline import START_US, S

SLICE: Final = 10
"""Schedules that a worker plays before it answers."""
SOMETIMES: Final = frozenset(
    {f"fault {name}" for name in FAULTS}
    | {"running: adopted", "queued: agent_lost", "queued: not_listed", "queued: accept_timeout", "queued: fenced"}
    | {"queued: rejected_leaving", "queued: rejected_unfit", "queued: agent_left", "queued: drain_requeue"}
    | {"queued: agent_disabled", "queued: due", "queued: resolved", "held: agent_lost", "failed: agent_lost"}
    | {"failed: killed", "failed: deadline_exceeded", "failed: not_started_in_time", "dead: attempts_used"}
    | {"dead: crashed_agents", "scheduled: accepted", "scheduled: failed", "scheduled: run_timeout"}
    | {"cancelled: cancelled", "attempt stop_unconfirmed", "attempt incarnation_ended", "refused: final"}
    | {"refused: superseded", "refused: foreign", "refused: other content", "refused: GROUP_INACTIVE"}
    | {
        "refused: QUEUE_FULL",
        "rejected: AGENT_DISABLED",
        "rejected: QUARANTINED",
        "rejected: REMOVED",
        "refused: GROUP_REMOVED",
        "cancelled: group_removed",
        "checkpoint kept",
        "attempt taken_over",
        "killed before commit",
        "killed after commit",
    }
    | {"commit failed", "accepted again", "answer lost", "life replayed", "process ended", "resolved: retry"}
    | {"resolved: fail", "resolved: succeed", "held: stop_unconfirmed", "failed: failed"}
    | {f"attempt {ending}" for ending in ("succeeded", "failed", "fenced", "lost", "left", "not_listed")}
    | {f"attempt {ending}" for ending in ("rejected_leaving", "rejected_unfit", "accept_timeout")}
    | {f"attempt stopped_{why}" for why in ("accept_timeout", "requested", "run_timeout", "drain_requeue")}
    | {f"agent {why}" for why in ("connected", "closed", "silent", "heard", "leaving", "left", "stuck")}
    | {f"agent {why}" for why in ("draining", "drain_deadline", "drained", "disabled", "enabled", "removed")}
)
"""What must have happened in some run of a campaign, or it shows nothing."""


@dataclass(slots=True, frozen=True)
class Violation:
    """What a schedule broke: `promise` as in BrokenPromiseError."""

    seed: int
    promise: str
    text: str

    @property
    def command(self) -> str:
        """What repeats it, and tells the story."""
        return f"mesh-sim fuzz --seeds {self.seed} --story"


@dataclass(slots=True)
class Schedules:
    """What some schedules came to; `digests` are those of the runs, in the order of the seeds."""

    count: int = 0
    steps: int = 0
    digests: list[str] = field(default_factory=list)
    happened: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)

    def add(self, other: "Schedules") -> None:
        """And these too."""
        self.count += other.count
        self.steps += other.steps
        self.digests += other.digests
        self.happened += other.happened
        self.violations += other.violations

    @property
    def digest(self) -> str:
        """One for all of them, in hexadecimal."""
        return blake2b("".join(self.digests).encode(), digest_size=DIGEST_BYTES).hexdigest()

    @property
    def never(self) -> list[str]:
        """What of SOMETIMES has not happened."""
        return sorted(name for name in SOMETIMES if not self.happened[name])


def play(course: Course, *, keeps: bool = False) -> tuple[Mesh | None, Violation | None]:
    """One schedule: the mesh as it was left (None: it did not even begin), and what it broke."""
    mesh = None
    try:
        mesh = Mesh(course, {**FAULTS, **GENTLE}, keeps=keeps)
        mesh.run()
    except BrokenPromiseError as error:
        return mesh, Violation(course.seed, error.promise, error.text)
    except Exception as error:  # noqa: BLE001 - whatever the code under test raises is a finding
        return mesh, Violation(course.seed, CRASH, f"{type(error).__name__}: {error}")
    return mesh, None


def course_of_seed(seed: int, faults: int = len(FAULTS), features: int = len(FEATURES)) -> Course:
    """What a campaign plays for this seed; with fewer of the two what one played when there were only so many."""
    return course_of(seed, tuple(FAULTS)[:faults], FEATURES[:features])


def play_seeds(seeds: Iterable[int]) -> Schedules:
    """The schedules of some seeds, one after the other."""
    seen = Schedules()
    for seed in seeds:
        mesh, violation = play(course_of_seed(seed))
        seen.count += 1
        if violation is not None:
            seen.violations.append(violation)
        if mesh is not None:
            seen.steps += mesh.timeline.steps
            seen.digests.append(mesh.chronicle.digest)
            seen.happened += mesh.chronicle.counts
    return seen


def campaign(seeds: range, backend: Backend) -> Generator[Schedules, None, None]:
    """All schedules of a range, slice by slice in the order of the seeds: the same on every backend."""
    slices = [seeds[start : start + SLICE] for start in range(0, len(seeds), SLICE)]
    return backend.play(play_seeds, slices)


def words_of(course: Course) -> str:
    """What a course is made of, in a line."""
    made: Mapping[str, object] = {
        "seed": course.seed,
        "agents": course.agents,
        "jobs": len(course.submitted),
        "faults": ",".join(_faults_of(course)) or "none",
        "features": ",".join(course.features) or "none",
        "placing": course.policy.placing,
        "spread": course.policy.spread,
    }
    return " ".join(f"{name}={value}" for name, value in made.items())


def _faults_of(course: Course) -> Iterable[str]:
    if course.strikes is None:
        return course.faults
    return (f"{one.fault}@{(one.at_us - START_US) / S:.3f}s" for one in course.strikes)


def story(course: Course) -> list[str]:
    """What happened in a schedule that breaks something: to the job that it names, or to the whole mesh."""
    mesh, violation = play(course, keeps=True)
    if mesh is None:
        return [] if violation is None else [violation.text]
    named = [key for key in mesh.broker.known.values() if violation is not None and str(key.job_key) in violation.text]
    lines = mesh.chronicle.story(named[0].job_key) if named else []
    told = lines or [f"{at_us / 1e6:9.3f} s  {text}" for at_us, _, text in mesh.chronicle.lines]
    return told if violation is None else [*told, f"broken: {violation.promise}: {violation.text}"]
