"""What clients, agents and operators did, and whether the store agrees: the checker of every run with faults.

Each process appends lines `{t, process, op, key, phase}`, at once, so a killed process leaves what it knew. `invoke`
comes before the act; `ok` and `fail` are certain, `info` means that nobody knows whether it happened.

| op | key | who writes it |
|---|---|---|
| `submit` | the job's id | the submitter; `ok`: acknowledged |
| `run` | `job_key/attempt` | the agent; `info`: it was stopped, and may have had its effect |
| `outcome` | `job_key/attempt` | the agent: what the broker said, accepted (`ok`) or refused (`fail`) |
| `session` | the agent | the agent, when it is welcomed |
| `kill`, `freeze`, `cut`, `disable_now` | the agent, or `broker` | whoever does it: `invoke` before, `ok` when healed |
| `stall`, `restart` | the same | what the mesh must ride out: no excuse for running anything again |
| `drain`, `disable` | the agent | the operator; `ok`: from now on it is given nothing |
| `resume`, `enable`, `start` | the agent | the operator; `invoke`: from now on it may be given something |

After the faults: heal, wait for quiet, stop the broker, and `check` the histories against the store's file.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from operator import itemgetter
from pathlib import Path
from typing import Final, NamedTuple

from tests.e2e.counters import GROUP, Page, differences
from tests.e2e.latency import latency_p99_ms
from tests.e2e.stored import SECOND_US, StoredAttempt, StoredJob

BROKER: Final = "broker"
EXCUSES: Final = frozenset({"kill", "freeze", "cut", "disable_now"})
"""What an agent may be run past for: its work starts elsewhere, and nobody is to blame."""
RESET: Final = "reset"
"""The connection of some agent is cut off: what it had not accepted yet starts elsewhere at once."""
AT_ONCE_S: Final = 1.0
"""What an agent has accepted waits for its return for longer than that."""
FAULTS: Final = EXCUSES | {RESET, "stall", "restart"}
CLOSES: Final = frozenset({"drain", "disable", "disable_now"})
OPENS: Final = frozenset({"resume", "enable", "start"})
NEVER_S: Final = float("inf")
CLOCKS_S: Final = 0.01
"""By how much the broker's clock, read once at its start, may have drifted from that of the histories."""


class Entry(NamedTuple):
    """One line. `t` is the wall clock in seconds: all processes are on one machine."""

    t: float
    process: str
    op: str
    key: str
    phase: str


class History:
    """Where one process writes what it does."""

    def __init__(self, path: Path, process: str) -> None:
        self.process = process
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, op: str, key: str, phase: str) -> None:
        """Append a line: in the hands of the kernel when this returns."""
        entry = Entry(time.time(), self.process, op, key, phase)
        os.write(self._file, f"{json.dumps(entry._asdict())}\n".encode())

    @contextmanager
    def during(self, op: str, key: str) -> Iterator[None]:
        """`invoke` before, and `ok` after what is done meanwhile."""
        self.add(op, key, "invoke")
        yield
        self.add(op, key, "ok")

    def close(self) -> None:
        """Write no more."""
        os.close(self._file)


def attempt_key(job_key: int, attempt: int) -> str:
    """How attempts are called in a history."""
    return f"{job_key}/{attempt}"


def read(paths: Iterable[Path]) -> list[Entry]:
    """All lines of some histories in the order of their times. A last line that was cut off is left out."""
    entries = []
    for path in paths:
        lines = path.read_text().split("\n")[:-1]
        entries += [Entry(**json.loads(line)) for line in lines]
    return sorted(entries)


class Budgets(NamedTuple):
    """How often a job may fail, lose its agent by a crash, and be sent back, before it is dead."""

    failures: int = 3
    crashes: int = 3
    bounces: int = 20


DEFAULT_BUDGETS: Final = Budgets()


class Fault(NamedTuple):
    """One that was injected: what, into whom, when, until when, and how many runs it hit (of all agents: `broker`)."""

    op: str
    key: str
    t: float
    until: float
    in_flight: int


@dataclass(slots=True)
class Findings:
    """What happened, and what is wrong with it: jobs (ids or keys) and attempts (`job_key/attempt`) as texts.

    `lost`: acknowledged, and not final in the store. `phantom`: in the store, submitted by nobody or refused.
    `double`: more than one accepted successful outcome. `unfenced`: the accepted attempt is not the last one that was
    given out. `unfounded`: stored as succeeded, and no agent ran that attempt to a good end. `ran_after_terminal`: an
    attempt was given out, or began, after the outcome. `ran_twice`: one attempt ran more than once.
    `dispatched_while`: given to an agent that was draining, paused or disabled. `over_max`: failed, crashed or bounced
    more often than it may. `stuck`: in the end not final, or begun by an agent that never ended it. `wasted`: a job
    that ran again although it had neither failed nor lost its agent to a fault; an attempt that never reached its
    agent has not run, so the next one is no second run. `counters`: figures of the metrics page that are not those of
    the store.
    """

    acknowledged: int
    final: int
    lost: list[str] = field(default_factory=list)
    phantom: list[str] = field(default_factory=list)
    double: list[str] = field(default_factory=list)
    unfenced: list[str] = field(default_factory=list)
    unfounded: list[str] = field(default_factory=list)
    ran_after_terminal: list[str] = field(default_factory=list)
    ran_twice: list[str] = field(default_factory=list)
    dispatched_while: list[str] = field(default_factory=list)
    over_max: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    wasted: list[str] = field(default_factory=list)
    counters: list[str] = field(default_factory=list)
    stale_refused: int = 0
    """Outcomes that the broker refused."""
    assigned: Mapping[str, int] = field(default_factory=dict)
    """How many attempts each agent was given, also those that were given none."""
    faults: list[Fault] = field(default_factory=list)
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    """How long jobs waited during the faults and after them (`tests.e2e.latency`)."""

    def wrong(self) -> dict[str, list[str]]:
        """The lists that are not empty."""
        return {name: found for name in WRONGS if (found := getattr(self, name))}

    @property
    def evenness(self) -> float:
        """Jain's index of what each agent was given."""
        return jain(self.assigned.values())


WRONGS: Final = tuple(one.name for one in fields(Findings) if one.type == "list[str]")


def jain(counts: Iterable[int]) -> float:
    """Jain's index: 1 is even, 1/n is all to one of n. Of nothing it is 1."""
    given = list(counts)
    squares = sum(count * count for count in given)
    return sum(given) ** 2 / (len(given) * squares) if squares else 1.0


def check(
    entries: Sequence[Entry], jobs: Sequence[StoredJob], budgets: Budgets = DEFAULT_BUDGETS, page: Page | None = None
) -> Findings:
    """Hold what happened against what is stored, and what the broker told of itself, if it could still be asked."""
    findings = _Check(entries, jobs, budgets).findings()
    if page is not None:
        findings.counters = differences(page, [job for job in jobs if job.group == GROUP])
    return findings


class _Check:
    """The histories and the store, in the order in which the questions need them."""

    def __init__(self, entries: Sequence[Entry], jobs: Sequence[StoredJob], budgets: Budgets) -> None:
        self._entries = entries
        self._jobs = jobs
        self._budgets = budgets
        self._submits: dict[str, set[str]] = defaultdict(set)
        self._begun: dict[str, list[tuple[float, str]]] = defaultdict(list)
        self._ended: dict[str, tuple[float, str]] = {}
        self._accepted: dict[str, list[float]] = defaultdict(list)
        self._highest: Counter[int] = Counter()
        for entry in entries:
            if entry.op == "submit":
                self._submits[entry.key].add(entry.phase)
            elif (entry.op, entry.phase) == ("run", "invoke"):
                self._begun[entry.key].append((entry.t, entry.process))
                job_key, _, number = entry.key.partition("/")
                self._highest[int(job_key)] = max(self._highest[int(job_key)], int(number))
            elif entry.op == "run":
                self._ended[entry.key] = (entry.t, entry.phase)
            elif (entry.op, entry.phase) == ("outcome", "ok"):
                self._accepted[entry.key].append(entry.t)
        self._faults = sorted((self._fault(*span) for span in _spans(entries, FAULTS)), key=lambda fault: fault.t)

    def findings(self) -> Findings:
        acknowledged = {key for key, phases in self._submits.items() if "ok" in phases}
        possible = {key for key, phases in self._submits.items() if "ok" in phases or "fail" not in phases}
        final = {job.job_id.hex() for job in self._jobs if job.is_final}
        return Findings(
            acknowledged=len(acknowledged),
            final=len(acknowledged & final),
            lost=sorted(acknowledged - final),
            phantom=sorted({job.job_id.hex() for job in self._jobs} - possible),
            double=[str(job.job_key) for job in self._jobs if len(self._successes(job)) > 1],
            unfenced=[
                str(job.job_key)
                for job in self._jobs
                if any(number != job.attempt for number, _ in self._successes(job))
            ],
            unfounded=sorted(self._unfounded()),
            ran_after_terminal=sorted(self._ran_after_terminal()),
            ran_twice=sorted(key for key, runs in self._begun.items() if len(runs) > 1),
            dispatched_while=sorted(self._dispatched_while()),
            over_max=[str(job.job_key) for job in self._jobs if self._is_over_max(job)],
            stuck=sorted(self._stuck()),
            wasted=sorted(self._wasted()),
            stale_refused=sum((entry.op, entry.phase) == ("outcome", "fail") for entry in self._entries),
            assigned=self._assigned(),
            faults=self._faults,
            latency_ms=self._latency_ms(),
        )

    def _successes(self, job: StoredJob) -> list[tuple[int, float]]:
        """Successes that the broker accepted: (attempt, when the agent heard it)."""
        keys = ((number, attempt_key(job.job_key, number)) for number in range(1, self._last(job) + 1))
        return [(number, t) for number, key in keys if self._has_succeeded(key) for t in self._accepted.get(key, ())]

    def _last(self, job: StoredJob) -> int:
        """The highest attempt that anybody knows of: the store may not know one that an agent has."""
        return max(job.attempt, self._highest[job.job_key])

    def _has_succeeded(self, key: str) -> bool:
        return self._ended.get(key, (0.0, ""))[1] == "ok"

    def _unfounded(self) -> Iterator[str]:
        for job in self._jobs:
            key = attempt_key(job.job_key, job.attempt)
            if job.state == "succeeded" and not self._has_succeeded(key):
                yield key

    def _ran_after_terminal(self) -> Iterator[str]:
        for job in self._jobs:
            first = min(self._successes(job), default=None)
            for number in range(1, self._last(job) + 1):
                key = attempt_key(job.job_key, number)
                if first is not None and number > first[0] and any(t > first[1] for t, _ in self._begun.get(key, ())):
                    yield key
            for attempt in job.attempts:
                if job.finished_us and attempt.assigned_us > job.finished_us:
                    yield attempt_key(job.job_key, attempt.number)

    def _dispatched_while(self) -> Iterator[str]:
        closed = _closed(self._entries)
        for job in self._jobs:
            for attempt in job.attempts:
                at_s = attempt.assigned_us / SECOND_US
                if any(since + CLOCKS_S < at_s < until - CLOCKS_S for since, until in closed[attempt.agent]):
                    yield f"{attempt_key(job.job_key, attempt.number)} {attempt.agent}"

    def _is_over_max(self, job: StoredJob) -> bool:
        keys = (attempt_key(job.job_key, number) for number in range(1, self._last(job) + 1))
        failed = sum(self._ended.get(key, (0.0, ""))[1] == "fail" and key in self._accepted for key in keys)
        spent = Budgets(max(job.failures, failed), job.crashes, job.bounces)
        return any(used > most for used, most in zip(spent, self._budgets, strict=True))

    def _stuck(self) -> Iterator[str]:
        for job in self._jobs:
            if not job.is_final:
                yield str(job.job_key)
        killed = {fault.key: fault.t for fault in self._faults if fault.op == "kill"}  # the last time
        for key, runs in self._begun.items():
            began_s, agent = runs[-1]
            if key not in self._ended and began_s > killed.get(agent, -NEVER_S):
                yield key

    def _wasted(self) -> Iterator[str]:
        excuses = [fault for fault in self._faults if fault.op in EXCUSES]
        resets = [fault for fault in self._faults if fault.op == RESET]
        for job in self._jobs:
            for attempt in job.attempts[:-1]:
                key = attempt_key(job.job_key, attempt.number)
                if key not in self._begun or attempt.ending == "failed":
                    continue
                if not _is_excused(attempt, excuses) and not _was_cut_off(attempt, resets):
                    yield key

    def _assigned(self) -> dict[str, int]:
        given: Counter[str] = Counter({entry.key: 0 for entry in self._entries if entry.op == "session"})
        for job in self._jobs:
            given.update(attempt.agent for attempt in job.attempts)
        return dict(given)

    def _latency_ms(self) -> dict[str, float]:
        submits = [entry for entry in reversed(self._entries) if entry.op == "submit"]  # the first of each key stays
        ids = {str(job.job_key): job.job_id.hex() for job in self._jobs}
        runs = [(key.partition("/")[0], begun[0][0]) for key, begun in self._begun.items()]
        begun_s = {ids[job_key]: t for job_key, t in sorted(runs, key=itemgetter(1), reverse=True) if job_key in ids}
        return latency_p99_ms(
            {entry.key: entry.t for entry in submits if entry.phase == "invoke"},
            {"accepted": {entry.key: entry.t for entry in submits if entry.phase == "ok"}, "begun": begun_s},
            [(fault.t, fault.until) for fault in self._faults],
        )

    def _fault(self, op: str, key: str, since_s: float, until_s: float) -> Fault:
        running = 0
        for attempt, runs in self._begun.items():
            ended_s = self._ended.get(attempt, (NEVER_S, ""))[0]
            running += any(t < since_s < ended_s and key in (agent, BROKER) for t, agent in runs)
        return Fault(op, key, since_s, until_s, running)


def _spans(entries: Iterable[Entry], ops: Container[str]) -> Iterator[tuple[str, str, float, float]]:
    """What was done from when until when: (op, key, since, until)."""
    since_s: dict[tuple[str, str], float] = {}
    for entry in entries:
        if entry.op in ops and entry.phase == "invoke":
            since_s[entry.op, entry.key] = entry.t
        elif entry.op in ops and (began_s := since_s.pop((entry.op, entry.key), None)) is not None:
            yield entry.op, entry.key, began_s, entry.t
    for (op, key), began_s in since_s.items():
        yield op, key, began_s, NEVER_S


def _closed(entries: Iterable[Entry]) -> Mapping[str, list[tuple[float, float]]]:
    """For each agent, when it was to be given nothing: (since, until)."""
    since_s: dict[str, float] = {}
    closed: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for entry in entries:
        if entry.op in CLOSES and entry.phase == "ok":
            since_s.setdefault(entry.key, entry.t)
        elif entry.op in OPENS and entry.phase == "invoke" and entry.key in since_s:
            closed[entry.key].append((since_s.pop(entry.key), entry.t))
    for agent, began_s in since_s.items():
        closed[agent].append((began_s, NEVER_S))
    return closed


def _is_excused(attempt: StoredAttempt, excuses: Iterable[Fault]) -> bool:
    """Whether its agent had a fault while it had the attempt."""
    assigned_s = attempt.assigned_us / SECOND_US - CLOCKS_S
    ended_s = attempt.ended_us / SECOND_US + CLOCKS_S if attempt.ended_us else NEVER_S
    return any(fault.key == attempt.agent and fault.t <= ended_s and assigned_s <= fault.until for fault in excuses)


def _was_cut_off(attempt: StoredAttempt, resets: Iterable[Fault]) -> bool:
    """Whether it was taken away as soon as a connection was cut off: what is accepted waits longer."""
    assigned_s, ended_s = attempt.assigned_us / SECOND_US, attempt.ended_us / SECOND_US
    return attempt.ending == "lost" and any(
        assigned_s <= reset.until + CLOCKS_S and reset.t - CLOCKS_S <= ended_s <= reset.until + AT_ONCE_S
        for reset in resets
    )
