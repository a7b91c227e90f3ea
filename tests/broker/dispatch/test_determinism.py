"""Same events, same times, same seed: same effects, byte for byte, in any process (invariant 9)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.broker.dispatch.course import STEPS, course, digest

ROOT = Path(__file__).parents[3]


def digest_in_a_process(seed: int, hash_seed: int) -> str:
    command = [sys.executable, "-m", "tests.broker.dispatch.course", str(seed)]
    env = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    return subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, text=True).stdout.strip()


def test_course_gives_the_same_effects_when_hashes_differ() -> None:
    digests = {digest_in_a_process(7, hash_seed) for hash_seed in (0, 1, 4_242)}
    assert len(digests) == 1
    assert digests == {digest(course(7))}


def test_course_is_long_enough_to_show_something() -> None:
    group = course(7)
    group.check_run()
    assert len(group.history) > STEPS / 2
    assert set(group.states.values()) >= {"succeeded", "cancelled", "queued", "held"}
    assert len(group.placements) > 50


def test_course_gives_other_effects_when_the_seed_of_the_jitter_is_another() -> None:
    assert digest(course(7)) != digest(course(8))
