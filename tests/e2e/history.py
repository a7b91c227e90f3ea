"""What clients and agents did, and whether the store agrees: the checker of every run with faults.

Each process appends lines `{t, process, op, key, phase}`: `submit` with the job's id as key, `run` and `outcome` with
`job_key/attempt`. `invoke` comes before the act; `ok` and `fail` are certain, `info` means that nobody knows whether
it happened. Lines are written at once, so a killed process leaves what it knew.

After the faults: heal, wait for quiet, stop the broker, and `check` the histories against the store's file.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mesh_client import FINAL_STATES
from tests.e2e.processes import JobRecord


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


@dataclass(slots=True)
class Findings:
    """What is wrong, by job (ids and keys as texts). Empty lists are what a run must have.

    `lost`: acknowledged, and not final in the store. `phantom`: in the store, submitted by nobody or refused.
    `double`: more than one accepted successful outcome. `unfenced`: the accepted attempt is not the last one that was
    given out. `ran_after_final`: an attempt began after a success had been accepted. `ran_twice`: one attempt ran more
    than once. `needless_reruns`: a job that began to run again although it had neither failed nor lost its agent; an
    attempt that a killed broker never sent out has not run, so the next one is no second run.
    """

    acknowledged: int
    final: int
    lost: list[str] = field(default_factory=list)
    phantom: list[str] = field(default_factory=list)
    double: list[str] = field(default_factory=list)
    unfenced: list[str] = field(default_factory=list)
    ran_after_final: list[str] = field(default_factory=list)
    ran_twice: list[str] = field(default_factory=list)
    needless_reruns: list[str] = field(default_factory=list)

    def wrong(self) -> dict[str, list[str]]:
        """The lists that are not empty."""
        names = ("lost", "phantom", "double", "unfenced", "ran_after_final", "ran_twice", "needless_reruns")
        return {name: found for name in names if (found := getattr(self, name))}


def check(entries: Sequence[Entry], records: Sequence[JobRecord], killed: Iterable[str] = ()) -> Findings:
    """Hold what happened against what is stored. `killed` are agents whose loss a re-run may follow."""
    by_id = {record.job_id.hex(): record for record in records}
    submits: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        if entry.op == "submit":
            submits[entry.key].add(entry.phase)
    acknowledged = {key for key, phases in submits.items() if "ok" in phases}
    possible = {key for key, phases in submits.items() if "ok" in phases or "fail" not in phases}
    final = {key for key, record in by_id.items() if record.state in FINAL_STATES}
    accepted, runs = _accepted(entries), _runs(entries)
    return Findings(
        acknowledged=len(acknowledged),
        final=len(acknowledged & final),
        lost=sorted(acknowledged - final),
        phantom=sorted(by_id.keys() - possible),
        double=_doubles(accepted),
        unfenced=sorted(
            str(record.job_key)
            for record in records
            if any(attempt != record.attempt for attempt, _ in accepted[record.job_key])
        ),
        ran_after_final=_ran_after_final(entries, accepted),
        ran_twice=sorted(key for key, count in runs.items() if count > 1),
        needless_reruns=_needless(records, runs, frozenset(killed)),
    )


def _attempt_of(key: str) -> tuple[int, int]:
    job_key, _, attempt = key.partition("/")
    return int(job_key), int(attempt)


def _accepted(entries: Sequence[Entry]) -> dict[int, list[tuple[int, float]]]:
    """For each job the successes that the broker accepted: (attempt, when the agent heard it)."""
    succeeded = {entry.key for entry in entries if (entry.op, entry.phase) == ("run", "ok")}
    accepted: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for entry in entries:
        if (entry.op, entry.phase) == ("outcome", "ok") and entry.key in succeeded:
            job_key, attempt = _attempt_of(entry.key)
            accepted[job_key].append((attempt, entry.t))
    return accepted


def _doubles(accepted: dict[int, list[tuple[int, float]]]) -> list[str]:
    return sorted(str(job_key) for job_key, outcomes in accepted.items() if len(outcomes) > 1)


def _ran_after_final(entries: Sequence[Entry], accepted: dict[int, list[tuple[int, float]]]) -> list[str]:
    late = set()
    for entry in entries:
        if (entry.op, entry.phase) == ("run", "invoke"):
            job_key, attempt = _attempt_of(entry.key)
            if any(entry.t > at_s and attempt > other for other, at_s in accepted.get(job_key, ())):
                late.add(entry.key)
    return sorted(late)


def _runs(entries: Sequence[Entry]) -> Counter[str]:
    return Counter(entry.key for entry in entries if (entry.op, entry.phase) == ("run", "invoke"))


def _needless(records: Sequence[JobRecord], runs: Container[str], killed: frozenset[str]) -> list[str]:
    needless = []
    for record in records:
        endings = {number: (agent, ending) for number, agent, ending in record.attempts}
        for number in range(1, record.attempt):
            agent, ending = endings.get(number, ("", ""))
            is_excused = ending == "failed" or agent in killed
            if attempt_key(record.job_key, number) in runs and not is_excused:
                needless.append(attempt_key(record.job_key, number))
    return needless
