"""Real agent sessions and a real dispatcher in memory, under seeded faults: nothing is lost, nothing runs twice.

A failure names its seed: `mesh-sim fuzz --seeds 17 --story` repeats it and tells what happened.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest

from agent_stub.session import AgentSession
from broker.dispatch.dispatcher import Dispatcher
from simulator.backends import Serial
from simulator.cache import code_version
from simulator.cli import app
from simulator.fuzz import command
from simulator.fuzz.broken import LIVENESS
from simulator.fuzz.campaign import (
    Schedules,
    campaign,
    course_of_seed,
    play,
    play_seeds,
    story,
    words_of,
)
from simulator.fuzz.course import Course
from simulator.fuzz.faults import GENTLE
from simulator.fuzz.shrink import Shrinking, shrink
from simulator.fuzz.timeline import S
from tests.meta import schemas
from tests.mutants import all_mutants, found

ROOT = Path(__file__).parents[2]
FIRST = 1_000_000 + int(code_version()[:6], 16)
SEEDS = range(FIRST, FIRST + 1_000)
"""Others with each version of the code; what fails names its seed."""
SLICES = 20
KEPT = [
    line.split(maxsplit=2)
    for line in (Path(__file__).parent / "seeds.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
FINDERS = found.read()
LIKE_ANY = 200
"""Seeds within which each mutant must be found."""
SOAK = range(1_000, 201_000, 1_000)


@cache
def seen_in(first: int) -> Schedules:
    """The schedules of one slice of SEEDS."""
    return play_seeds(SEEDS[first : first + len(SEEDS) // SLICES])


@pytest.mark.parametrize(("seed", "drawn_from", "what"), KEPT, ids=[f"seed-{seed}" for seed, _, _ in KEPT])
def test_mesh_keeps_its_promises_where_a_seed_once_broke_one(seed: str, drawn_from: str, what: str) -> None:
    faults, features = map(int, drawn_from.split("/"))
    _, violation = play(course_of_seed(int(seed), faults, features))
    assert violation is None, f"once: {what}"


@pytest.mark.parametrize("first", range(0, len(SEEDS), len(SEEDS) // SLICES), ids=lambda first: f"from-{SEEDS[first]}")
def test_mesh_keeps_its_promises_whatever_fails(first: int) -> None:
    seen = seen_in(first)
    assert seen.violations == []
    assert seen.happened["queued: accepted"] > 0


def test_every_fault_and_every_way_out_happened_in_some_schedule() -> None:
    together = Schedules()
    for first in range(0, len(SEEDS), len(SEEDS) // SLICES):
        together.add(seen_in(first))
    assert together.never == []


@pytest.mark.parametrize("seed", range(10))
def test_every_job_runs_once_when_nothing_fails(seed: int) -> None:
    mesh, violation = play(Course(seed))
    assert violation is None
    assert mesh is not None
    assert len(mesh.journal.started) == len(mesh.journal.succeeded) == mesh.course.jobs


@pytest.mark.parametrize("seed", range(40))
def test_what_runs_is_never_given_up_when_every_agent_is_back_in_time(seed: int) -> None:
    mesh, violation = play(Course(seed, tuple(GENTLE), every_us=S))
    assert violation is None
    assert mesh is not None
    assert mesh.judge.needless == []
    assert set(mesh.judge.ended.values()) == {"succeeded"}


# --- the judge itself: every deliberate defect must be found ---------------------------------------------------------


@pytest.mark.parametrize("name", all_mutants())
def test_judge_finds_every_mutant_by_the_promise_that_it_names(name: str) -> None:
    mutant = all_mutants()[name]
    broken: Counter[str] = Counter()
    with mutant.applied():
        for seed in (FINDERS.get(name, 0), *range(LIKE_ANY)):
            _, violation = play(course_of_seed(seed))
            broken[violation.promise if violation is not None else "nothing"] += 1
            if broken[mutant.promise]:
                return
    pytest.fail(f"{mutant.what}: {mutant.promise} did not find it, but {dict(broken)}")


def test_every_promise_and_invariant_has_a_mutant_that_it_finds() -> None:
    judged = {f"inv{number:02}" for number in range(1, 16)} | {f"P{number}" for number in range(1, 8)} | {LIVENESS}
    assert {mutant.promise for mutant in all_mutants().values()} == judged


def test_mutants_leave_the_code_as_it_was() -> None:
    before = play_seeds(range(3)).digests
    for mutant in all_mutants().values():
        with mutant.applied():
            pass
    assert play_seeds(range(3)).digests == before


def test_judge_finds_an_agent_that_forgets_its_outcomes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost by that, but work is done again that was done."""
    disconnected = AgentSession.disconnected

    def forgetful(self: AgentSession, now_us: int) -> None:
        disconnected(self, now_us)
        for key in [key for key, attempt in self._held.items() if attempt.outcome is not None]:
            del self._held[key]

    monkeypatch.setattr(AgentSession, "disconnected", forgetful)
    meshes = [play(Course(seed, tuple(GENTLE), every_us=S))[0] for seed in range(40)]
    assert any(mesh is not None and mesh.judge.needless for mesh in meshes)


def test_judge_finds_a_broker_that_takes_agents_for_silent_because_it_stood_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Dispatcher, "_forgive", lambda self, lag_us: None)
    meshes = [play(Course(seed, tuple(GENTLE), every_us=S))[0] for seed in range(40)]
    lost = {one[2] for mesh in meshes if mesh is not None for one in mesh.judge.needless}
    assert "lost" in lost


# --- repeating, shrinking, telling ----------------------------------------------------------------------------------


def fuzz(*arguments: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    """`mesh-sim fuzz` as a process of its own, at the top of the tree."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("mesh-sim")), "fuzz", *arguments],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_fuzz_gives_the_same_runs_whatever_the_order_of_hashes_and_however_many_workers() -> None:
    first = fuzz("--seeds", "1-20", "--workers", "1", "--json", hash_seed="1")
    second = fuzz("--seeds", "1-20", "--workers", "2", "--json", hash_seed="2")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    one, other = json.loads(first.stdout), json.loads(second.stdout)
    schemas.validate("fuzz", one)
    assert one["schedules"] == 20
    assert {**one, "wall_s": 0} == {**other, "wall_s": 0}


def test_campaign_counts_what_it_plays() -> None:
    parts = list(campaign(range(5, 27), Serial()))
    assert sum(part.count for part in parts) == 22
    assert [len(part.digests) for part in parts] == [part.count for part in parts]


def test_shrinking_keeps_the_broken_promise_and_leaves_out_the_rest() -> None:
    with all_mutants()["double-reply"].applied():
        seed = next(seed for seed in range(LIKE_ANY) if play(course_of_seed(seed))[1] is not None)
        course = course_of_seed(seed)
        smaller = shrink(course, "inv08")
        _, violation = play(smaller)
        assert violation is not None
        assert violation.promise == "inv08"
        (strike,) = smaller.strikes or ()
        assert strike.fault in ("cancel", "cancel-away")
        assert len(smaller.submitted) < len(course.submitted)
        assert "cancel" in words_of(smaller)
        told = story(smaller)
        assert told[-1].startswith("broken: inv08")
        assert any("fault: cancel" in line for line in told)


@pytest.mark.parametrize("seed", [3, 4, 24])
def test_strikes_of_a_run_are_the_same_run_again(seed: int) -> None:
    course = course_of_seed(seed)
    first, _ = play(course)
    assert first is not None
    again, violation = play(replace(course, strikes=tuple(first.strikes)))
    assert violation is None
    assert again is not None
    assert again.chronicle.digest == first.chronicle.digest
    assert again.strikes == first.strikes


def test_shrinking_leaves_few_strikes_of_what_seldom_breaks() -> None:
    with all_mutants()["acknowledge-before-commit"].applied():
        course = course_of_seed(FINDERS["acknowledge-before-commit"])
        mesh, violation = play(course)
        assert mesh is not None
        assert violation is not None
        smaller = shrink(course, violation.promise)
        assert smaller.strikes is not None
        assert 0 < len(smaller.strikes) <= len(mesh.strikes) // 5
        again = play(smaller)[1]
        assert again is not None
        assert again.promise == violation.promise


def test_interrupted_shrinking_has_the_smallest_so_far(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tell = command._tell_shrinking

    def interrupt(shrinking: Shrinking) -> None:
        tell(shrinking)
        if shrinking.played == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(command, "_tell_shrinking", interrupt)
    monkeypatch.setattr(command, "TOLD_S", 0.0)
    arguments = ["fuzz", "--mutant", "double-reply", "--seeds", "0-9", "--workers", "1", "--story", "--shrink"]
    assert app(arguments, result_action="return_value") == 0
    told = capsys.readouterr().err
    assert "shrinking: 5 schedules played; " in told
    assert "interrupted; smallest so far: seed=" in told
    assert "broken: inv08" in told


def test_command_says_what_is_broken_and_how_to_see_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    with all_mutants()["double-reply"].applied():
        seed = next(seed for seed in range(LIKE_ANY) if play(course_of_seed(seed))[1] is not None)
        code = app(["fuzz", "--seeds", str(seed), "--workers", "1", "--story"], result_action="return_value")
    out, told = capsys.readouterr()
    assert code == 3
    assert f"broken: inv08 in seed {seed}" in out
    assert f"mesh-sim fuzz --seeds {seed} --story" in out
    assert f"code:  {version('jobmesh')} {code_version()[:12]}\n" in out
    assert "broken: inv08" in told


def test_document_of_what_is_broken_names_the_code_that_was_played(capsys: pytest.CaptureFixture[str]) -> None:
    with all_mutants()["double-reply"].applied():
        arguments = ["fuzz", "--seeds", f"0-{FINDERS['double-reply']}", "--workers", "1", "--json"]
        code = app(arguments, result_action="return_value")
    document = json.loads(capsys.readouterr().out)
    schemas.validate("fuzz", document)
    assert code == 3
    assert document["violations"][-1]["code"] == f"{version('jobmesh')} {code_version()[:12]}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seeds", "many"], "give a seed or a range, such as 17 or 1-2000"),
        (["--seeds", "5-"], "give a seed or a range, such as 17 or 1-2000"),
        (["--seeds", "1-²"], "give a seed or a range, such as 17 or 1-2000"),
        (["--seeds", "9-3"], "did you mean 3-9?"),
        (["--mutant", "lost-wakeup"], "lost-wake-up"),
        (["--mutant", "all", "--mutants", "nowhere.at.all"], "run this at its top"),
        (["--mutant", "all", "--story"], "name one mutant"),
        (["--mutant", "all", "--shrink"], "name one mutant"),
        (["--seeds", "1-100000", "--out", "no/such/folder/found.json"], "there is no folder no/such/folder"),
        (["--mutant", "all", "--out", "no/such/folder/found.json"], "there is no folder no/such/folder"),
        (["--seeds", "1-100000", "--out", "/"], "cannot be written"),
    ],
)
def test_command_refuses_bad_input(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["fuzz", *arguments], result_action="return_value") == 2
    assert said in capsys.readouterr().err


def test_command_writes_what_it_found_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for out, arguments in (("runs", ["--seeds", "1-3"]), ("mutants", ["--mutant", "double-reply", "--seeds", "0-9"])):
        file = tmp_path / f"{out}.json"
        file.write_text("from yesterday")
        app(["fuzz", *arguments, "--workers", "1", "--json", "--out", str(file)], result_action="return_value")
        written = json.loads(file.read_text())
        assert written == json.loads(capsys.readouterr().out)
        schemas.validate("fuzz" if out == "runs" else out, written)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["mutants.json", "runs.json"]


def test_command_tells_the_story_of_a_mutant(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fuzz", "--mutant", "double-reply", "--seeds", "0-9", "--workers", "1", "--story", "--shrink"]
    assert app(arguments, result_action="return_value") == 0
    out, told = capsys.readouterr()
    assert "found     double-reply: inv08 in seed" in out
    assert "smallest: seed=" in told
    assert "fault: cancel" in told
    assert "broken: inv08" in told


@pytest.mark.soak
@pytest.mark.parametrize("first", SOAK, ids=lambda first: f"from-{first}")
def test_mesh_keeps_its_promises_in_many_more_schedules(first: int) -> None:
    """In ranges with a result file each: what was played with this version is not played again."""
    folder = ROOT / "build/fuzz" / code_version()
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / f"{first}.json"
    seen = read_json(result)
    if seen is None:
        done = fuzz("--seeds", f"{first}-{first + 999}", "--out", str(result), "--json")
        assert done.returncode in (0, 3), done.stderr
        seen = json.loads(result.read_text())
    assert seen["violations"] == []
    assert seen["never"] == []


def read_json(file: Path) -> dict[str, object] | None:
    """What a file says; None if there is none, or none that can be read."""
    try:
        document = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


@pytest.mark.parametrize("text", [None, "", '{"violations": [', "[]"])
def test_result_file_that_cannot_be_read_is_not_there(text: str | None, tmp_path: Path) -> None:
    file = tmp_path / "1000.json"
    if text is not None:
        file.write_text(text)
    assert read_json(file) is None
