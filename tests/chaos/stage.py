"""What many rows begin with: a course of processes, agents, a load, and brokers with a defect."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from tests.chaos.campaign import play
from tests.chaos.row import BROKER, Control, Ran, Trial
from tests.e2e.course import FAST, Course

RATE: Final = 40
"""Jobs a second."""
RUN_S: Final = (0.05, 0.35)
SECOND_MS: Final = 1_000.0
NO_HURRY_MS: Final = 20_000.0
"""In the suite, on a machine that is busy with other things, only what never comes is late."""
CONTROL_S: Final = 600.0


def course_of(trial: Trial, program: Sequence[str] = BROKER) -> Course:
    """With default settings for the table, with the fast ones for the suite."""
    return Course(trial.folder, settings={} if trial.is_full else FAST, broker_program=program, seed=trial.seed)


async def start_all(course: Course, *names: str, slots: int, options: Sequence[str] = ()) -> None:
    """Agents of these names, beside each other."""
    await asyncio.gather(*(course.start_agent(name, slots=slots, options=options) for name in names))


def planted(name: str, run: Callable[..., Awaitable[Ran]], finds: str, *, is_in_suite: bool = True) -> Control:
    """The same run with a broker that has this defect (`tests.e2e.defects`), and what must be found."""
    return Control(f"defect {name}", partial(run, program=("-m", "tests.e2e.defects", name)), finds, is_in_suite)


def each(*controls: Control) -> Control:
    """All of them in one, which is caught only if every single one is."""

    async def run(trial: Trial) -> Ran:
        ran = Ran("")
        for control in controls:
            one = await play(control.run, seed=trial.seed, is_full=trial.is_full, timeout_s=CONTROL_S)
            found = [text for text in one.violations if control.finds in text]
            if not found:
                return Ran("")
            ran.violations.append(f"{control.name}: {found[0]}")
        return ran

    names = ", ".join(control.name.removeprefix("defect ") for control in controls)
    return Control(f"defects {names}", run, is_in_suite=all(control.is_in_suite for control in controls))
