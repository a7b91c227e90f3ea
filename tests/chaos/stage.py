"""What many rows begin with: a course of processes, agents, a load, and brokers with a defect."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final

from tests.chaos.campaign import play
from tests.chaos.careless import without
from tests.chaos.row import BROKER, Control, Ran, Trial
from tests.e2e.course import FAST, Course

RATE: Final = 40
"""Jobs a second."""
RUN_S: Final = (0.05, 0.35)
SECOND_MS: Final = 1_000.0
NO_HURRY_MS: Final = 20_000.0
"""In the suite, on a machine that is busy with other things, only what never comes is late."""
CONTROL_S: Final = 600.0
HASTY: Final = FAST | {
    "MESH_DISPATCH__HEARTBEAT_S": "0.1",
    "MESH_DISPATCH__IDLE_HEARTBEAT_S": "0.2",
    "MESH_DISPATCH__SUSPECT_S": "0.3",
    "MESH_DISPATCH__LEASE_S": "0.5",
    "MESH_DISPATCH__MARGIN_S": "0.2",
    "MESH_DISPATCH__RECONNECT_GRACE_S": "0.3",
    "MESH_DISPATCH__ACCEPT_TIMEOUT_S": "0.3",
}
"""A known bad setting: whoever is slow is taken for dead."""
TOO_SMALL_SHARE: Final = 0.001
"""Of a processor, a millisecond of each second: with that setting nobody lives through it."""


def course_of(trial: Trial, program: Sequence[str] = BROKER, *, settings: Mapping[str, str] | None = None) -> Course:
    """With default settings for the table, with the fast ones for the suite, unless others are given."""
    pace = ({} if trial.is_full else FAST) if settings is None else settings
    return Course(trial.folder, settings=pace, broker_program=program, seed=trial.seed)


async def start_all(course: Course, *names: str, slots: int, options: Sequence[str] = ()) -> None:
    """Agents of these names, beside each other."""
    await asyncio.gather(*(course.start_agent(name, slots=slots, options=options) for name in names))


def planted(
    name: str, run: Callable[..., Awaitable[Ran]], finds: str, *, is_in_suite: bool = True, is_short: bool = False
) -> Control:
    """The same run with a broker that has this defect (`tests.e2e.defects`), and what must be found."""
    return Control(f"defect {name}", partial(run, program=defective(name)), finds, is_in_suite, is_short)


def defective(name: str) -> Sequence[str]:
    """The program of a broker with this defect."""
    return ("-m", "tests.e2e.defects", name)


def hasty(run: Callable[..., Awaitable[Ran]], finds: str) -> Control:
    """The same run, short, with a broker that is told to take whoever is slow for dead; for the table only."""
    return Control("a lease of 0.5 s", partial(run, settings=HASTY), finds, is_in_suite=False, is_short=True)


def unguarded(guard: str, run: Callable[..., Awaitable[Ran]], finds: str, *, is_short: bool = True) -> Control:
    """The same run with a broker that lacks this guard (`tests.chaos.careless`); for the table only."""
    return Control(guard, partial(run, program=without(guard)), finds, is_in_suite=False, is_short=is_short)


CAUGHT: Final = "caught, "


def each(*controls: Control) -> Control:
    """All of them in one, which is caught only if every single one is."""

    async def run(trial: Trial) -> Ran:
        ran = Ran("")
        for control in controls:
            is_full = trial.is_full and not control.is_short
            one = await play(control.run, seed=trial.seed, is_full=is_full, timeout_s=CONTROL_S)
            found = [text for text in one.violations if control.finds in text]
            if not found:
                return Ran("", violations=[f"{control.name}: not caught: {one.violations[:3]}"])
            ran.violations.append(f"{CAUGHT}{control.name}: {found[0]}")
        return ran

    names = ", ".join(control.name.removeprefix("defect ") for control in controls)
    return Control(f"defects {names}", run, CAUGHT, is_in_suite=all(control.is_in_suite for control in controls))
