"""`mesh-sim fuzz` and `mesh-sim explore`. Light to import: it is read for `mesh-sim --help`."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter
from cyclopts.validators import Number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from simulator.backends import Backend
    from simulator.fuzz.campaign import Schedules
    from simulator.fuzz.course import Course
    from simulator.fuzz.search import Found
    from simulator.fuzz.shrink import Shrinking
    from simulator.fuzz.trials import Trial

ENOUGH: Final = 1_000
"""Schedules from which on everything must have happened in some of them."""
TOLD_MAX: Final = 10
TOLD_S: Final = 5.0
CODE_DIGITS: Final = 12
FOUND = 3
INTERRUPTED = 4
BAD_INPUT = 2


def fuzz(
    *,
    seeds: str = "1-200",
    mutant: str = "",
    mutants: str = "tests.mutants",
    story: Annotated[bool, Parameter(negative="")] = False,
    shrink: Annotated[bool, Parameter(negative="")] = False,
    out: Path | None = None,
    workers: Annotated[int, Parameter(name=["--workers", "--jobs"], validator=Number(gte=0, lte=1024))] = 0,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """A mesh in memory under seeded chance, seed after seed: every promise is judged whatever fails.

    Exit code 0: nothing was broken; 3: something was, or a mutant was not found, or (with 1,000 seeds and more)
    something that should happen now and then never did; 4: interrupted; 2: bad input.

    Parameters
    ----------
    seeds
        The seeds, such as `1-2000` or `17`.
    mutant
        Put this deliberate defect into the code, or `all` of them one after the other: each must be found.
    mutants
        The module that holds them; they are in the source tree, not in the package.
    story
        Tell what happened in the first schedule that broke something, with one mutant: in the one that found it.
    shrink
        Look for the smallest schedule that breaks the same; Ctrl-C ends that with the smallest so far.
    out
        Write the JSON object to this file too, whole or not at all: an interrupted range of ranges goes on behind the
        last file.
    workers
        Worker processes; 0: one for each core.
    as_json
        Print one JSON object.
    """
    from broker.errors import MeshError
    from simulator.backends import backend_named

    try:
        wanted = _range_of(seeds)
        _check_out(out)
        backend = backend_named("loky", workers)
        explain = partial(_explain, is_told=story, is_shrunk=shrink) if story or shrink else None
        if mutant:
            return _mutants(wanted, backend, mutant, mutants, explain, out, as_json=as_json)
        return _campaign(wanted, backend, explain, out, as_json=as_json)
    except (ValueError, MeshError) as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted: nothing was written; run the same seeds again", file=sys.stderr)
        return INTERRUPTED


def _range_of(text: str) -> range:
    found = re.fullmatch("([0-9]+)(?:-([0-9]+))?", text)
    if found is None:
        raise ValueError(f"--seeds {text}: give a seed or a range, such as 17 or 1-2000")
    first, last = found[1], found[2] or found[1]
    seeds = range(int(first), int(last) + 1)
    if not seeds:
        raise ValueError(f"--seeds {text}: the first seed is after the last one; did you mean {last}-{first}?")
    return seeds


def _check_out(out: Path | None) -> None:
    """Before anything is played."""
    if out is not None and not out.parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}; make it first")
    if out is not None and (out.is_dir() or not os.access(out.parent, os.W_OK)):
        raise ValueError(f"--out {out}: this cannot be written; give a file in a folder that you may write to")


def _write(document: Mapping[str, object], out: Path | None) -> None:
    if out is None:
        return
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        beside.write_text(f"{json.dumps(document)}\n", encoding="utf-8")
        beside.replace(out)
    except OSError as error:
        raise ValueError(f"--out {out}: {error.strerror}; what was found is told above") from error
    finally:
        beside.unlink(missing_ok=True)


def _campaign(
    seeds: range, backend: Backend, explain: Callable[[int], None] | None, out: Path | None, *, as_json: bool
) -> int:
    from simulator.fuzz.campaign import Schedules, campaign

    began_s, code = time.monotonic(), _code()
    seen = Schedules()
    for part in _shown(campaign(seeds, backend), len(seeds)):
        seen.add(part)
    document = _document(seeds, seen, code, time.monotonic() - began_s)
    print(json.dumps(document) if as_json else "\n".join(_words(seen, seeds, code)), flush=True)
    _write(document, out)
    if seen.violations and explain is not None:
        explain(seen.violations[0].seed)
    return FOUND if seen.violations or document["never"] else 0


def _shown(parts: Iterable[Schedules], of: int) -> Iterator[Schedules]:
    from simulator.console import progress_bar

    with progress_bar() as show:
        done = 0
        for part in parts:
            done += part.count
            show("schedules", done, of)
            yield part


def _code() -> str:
    """Which code is played: a seed means the same in the same code only. Ask before: sources may change meanwhile."""
    from importlib.metadata import version

    from simulator.cache import code_version

    return f"{version('jobmesh')} {code_version()[:CODE_DIGITS]}"


def _document(seeds: range, seen: Schedules, code: str, wall_s: float) -> dict[str, object]:
    return {
        "from": seeds[0],
        "to": seeds[-1],
        "schedules": seen.count,
        "steps": seen.steps,
        "violations": [
            {"seed": one.seed, "invariant": one.promise, "text": one.text, "command": one.command, "code": code}
            for one in seen.violations
        ],
        "sometimes": dict(sorted(seen.happened.items())),
        "never": seen.never if seen.count >= ENOUGH else [],
        "digest": seen.digest,
        "wall_s": round(wall_s, 1),
    }


def _words(seen: Schedules, seeds: range, code: str) -> list[str]:
    lines = [f"{seen.count:,} schedules (seeds {seeds[0]} to {seeds[-1]}), {seen.steps:,} steps, digest {seen.digest}"]
    for one in seen.violations[:TOLD_MAX]:
        lines += [
            f"broken: {one.promise} in seed {one.seed}: {one.text}",
            f"        again: {one.command}",
            f"        code:  {code}",
        ]
    if len(seen.violations) > TOLD_MAX:
        lines.append(f"        and {len(seen.violations) - TOLD_MAX} more")
    if seen.count >= ENOUGH:
        lines += [f"never happened: {name}" for name in seen.never]
    lines.append("something is broken" if seen.violations else "every promise and every invariant held")
    return lines


def _explain(seed: int, *, is_told: bool, is_shrunk: bool) -> None:
    from simulator.fuzz.campaign import course_of_seed, story

    course = course_of_seed(seed)
    if is_shrunk:
        course = _shrunk(course)
    if is_told:
        print("\n".join(story(course)), file=sys.stderr)


def _shrunk(course: Course) -> Course:
    """Says now and then how far it is. An interrupt ends it with the smallest so far."""
    from simulator.fuzz.campaign import play, words_of
    from simulator.fuzz.shrink import Shrinking

    _, violation = play(course)
    if violation is None:
        return course
    shrinking = Shrinking(course, violation.promise, _every(TOLD_S, _tell_shrinking))
    try:
        shrinking.run()
        name = "smallest"
    except KeyboardInterrupt:
        name = "interrupted; smallest so far"
    print(f"{name}: {words_of(shrinking.best)}", file=sys.stderr)
    return shrinking.best


def _tell_shrinking(shrinking: Shrinking) -> None:
    strikes = "" if shrinking.best.strikes is None else f" {len(shrinking.best.strikes)} strikes of faults and"
    jobs = len(shrinking.best.submitted)
    print(f"shrinking: {shrinking.played} schedules played;{strikes} {jobs} jobs are left", file=sys.stderr)


def _every(wait_s: float, tell: Callable[[Shrinking], None]) -> Callable[[Shrinking], None]:
    next_s = time.monotonic() + wait_s

    def now_and_then(shrinking: Shrinking) -> None:
        nonlocal next_s
        if time.monotonic() >= next_s:
            next_s = time.monotonic() + wait_s
            tell(shrinking)

    return now_and_then


def _mutants(
    seeds: range,
    backend: Backend,
    name: str,
    module: str,
    explain: Callable[[int], None] | None,
    out: Path | None,
    *,
    as_json: bool,
) -> int:
    from simulator.fuzz.trials import mutants_of, tried

    if name == "all" and explain is not None:
        raise ValueError(
            "--mutant all with --story or --shrink: name one mutant, such as --mutant lost-wake-up --story"
        )
    known = mutants_of(module)
    names = sorted(known) if name == "all" else [name]
    trials: list[Trial] = []
    for trial in tried(names, module, seeds, backend):
        trials.append(trial)
        if not as_json:
            print(trial.words, flush=True)
    killed = sum(trial.is_killed for trial in trials)
    score = killed / len(trials)
    document = {"mutants": [trial.document for trial in trials], "score": score}
    words = f"{killed} of {len(trials)} mutants were found: {score:.0%}"
    print(json.dumps(document) if as_json else words, flush=True)
    _write(document, out)
    if explain is not None and trials[0].found is not None:
        with known[name].applied():
            explain(trials[0].found.seed)
    return 0 if killed == len(trials) else FOUND


def explore(
    *,
    larger: Annotated[bool, Parameter(negative="")] = False,
    mutant: str = "",
    mutants: str = "tests.mutants",
    out: Path | None = None,
    workers: Annotated[int, Parameter(name=["--workers", "--jobs"], validator=Number(gte=0, lte=1024))] = 0,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """One job, two agents and one fault, in every order in which frames, timers and the fault can come.

    Nothing is left to chance: each state is looked into once, until there is no more. Exit code 0: every promise holds
    in all of them; 3: one does not, and the steps that break it are told; 4: interrupted; 2: bad input.

    Parameters
    ----------
    larger
        Two faults, or two jobs: for the better part of an hour.
    mutant
        Put this deliberate defect into the code: it should be found.
    mutants
        The module that holds it; it is in the source tree, not in the package.
    out
        Write the JSON object to this file too, whole or not at all.
    workers
        Worker processes; 0: one for each core.
    as_json
        Print one JSON object.
    """
    from broker.errors import MeshError
    from simulator.backends import backend_named
    from simulator.fuzz.enumeration import LARGER, SMALL, enumerated
    from simulator.fuzz.trials import mutants_of

    try:
        _check_out(out)
        if mutant:
            mutants_of(mutants)
        found = enumerated(LARGER if larger else SMALL, backend_named("loky", workers), mutant, mutants)
        return _explored(found, out, as_json=as_json)
    except (ValueError, MeshError) as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return INTERRUPTED


def _explored(parts: Iterable[Found], out: Path | None, *, as_json: bool) -> int:
    from simulator.fuzz.enumeration import document_of, words_of

    began_s = time.monotonic()
    all_found: list[Found] = []
    for found in parts:
        all_found.append(found)
        if not as_json:
            print("\n".join(words_of(found)), flush=True)
    document = document_of(all_found, time.monotonic() - began_s)
    is_whole = "every order was looked at, and every promise holds" if document["complete"] else "something is broken"
    words = f"{document['states']:,} states, {document['transitions']:,} transitions: {is_whole}"
    print(json.dumps(document) if as_json else words, flush=True)
    _write(document, out)
    return 0 if document["complete"] else FOUND
