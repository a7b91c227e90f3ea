"""Runs rows and their controls, one after the other: what each gave, as the JSON of `make chaos`."""

from __future__ import annotations

import asyncio
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.chaos.machine import missing
from tests.chaos.remains import name_of
from tests.chaos.row import Control, Ran, Row, RowError, Run, Trial
from tests.e2e.stored import percentile

BROKE_OFF = "broke off"
NEVER_FIRED = "the fault never fired: the run shows nothing"


async def play(run: Run, *, seed: int, is_full: bool, timeout_s: float) -> Ran:
    """One run in a folder of its own; RowError goes on to the caller.

    A run that breaks off is a violation, and nobody knows how often its fault had fired: that counts as never.
    """
    with tempfile.TemporaryDirectory(prefix=name_of("")) as folder:
        try:
            async with asyncio.timeout(timeout_s):
                return await run(Trial(Path(folder), seed, is_full))
        except RowError:
            raise
        except ExceptionGroup as group:
            if (shown := group.subgroup(RowError)) is not None:
                raise RowError("; ".join(str(one) for one in _leaves(shown))) from group
            return Ran("", violations=[f"{BROKE_OFF} with {one!r}" for one in group.exceptions])
        except Exception as error:  # noqa: BLE001 - the rows after it are to run, whatever it was
            last = traceback.extract_tb(error.__traceback__)[-1]
            return Ran("", violations=[f"{BROKE_OFF} with {type(error).__name__} at {last.name}: {error}"])


def has_broken_off(ran: Ran) -> bool:
    """Whether the run did not come to its end."""
    return any(text.startswith(BROKE_OFF) for text in ran.violations)


def _hit_too_little(ran: Ran) -> Ran:
    text = f"the fault fired {ran.fired} times, wanted are {ran.wanted}" if ran.fired else NEVER_FIRED
    return replace(ran, violations=[*ran.violations, text])


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for one in group.exceptions:
        yield from _leaves(one) if isinstance(one, BaseExceptionGroup) else (one,)


async def row_result(row: Row, *, seed: int, is_full: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """All runs of a row and its control: one entry of `rows` in docs/schemas/chaos.json."""
    result: dict[str, Any] = {
        "id": row.id,
        "fault": row.fault,
        "status": "not_run",
        "reason": missing(tuple(row.needs)),
        "fired": 0,
        "runs": 0,
        "load": "",
        "violations": [],
        "recovery_ms": None,
        "figures": {},
        "control": None,
    }
    if result["reason"]:
        say(f"{row.id}: not run: {result['reason']}")
        return result
    runs: list[Ran] = []
    try:
        for number in range(row.runs if is_full else 1):
            ran = await play(row.run, seed=seed + number, is_full=is_full, timeout_s=row.timeout_s)
            say(f"{row.id} seed {seed + number}: fired {ran.fired}, violations {len(ran.violations)}")
            runs.append(ran if ran.fired >= ran.wanted or has_broken_off(ran) else _hit_too_little(ran))
        if row.control and (is_full or row.control.is_in_suite):
            result["control"] = await _caught(row.control, row, seed, is_full)
    except RowError as error:
        if not any(ran.violations for ran in runs):  # what was found is not forgotten for what could not be made later
            return {**result, "reason": str(error)}
    return {**result, **_together(runs), "status": "ran"}


async def _caught(control: Control, row: Row, seed: int, is_full: bool) -> dict[str, Any]:
    run = row.run if os.environ.get("MESH_SABOTAGE") == "no-defect" else control.run
    ran = await play(run, seed=seed, is_full=is_full and not control.is_short, timeout_s=row.timeout_s)
    found = [text for text in ran.violations if control.finds in text]
    # A bad program that does not even start has shown nothing, unless standing still is what it is known for.
    is_caught = any(control.finds or not text.startswith(BROKE_OFF) for text in found)
    return {"name": control.name, "caught": is_caught, "how": ran.violations[:3]}


def _together(runs: Sequence[Ran]) -> dict[str, Any]:
    recovered = [one for ran in runs for one in ran.recovery_ms]
    return {
        "fired": sum(ran.fired for ran in runs),
        "runs": len(runs),
        "load": next((ran.load for ran in runs if ran.load), ""),
        "violations": [text for ran in runs for text in ran.violations],
        "recovery_ms": (
            {"p50": round(percentile(recovered, 0.5), 1), "p99": round(percentile(recovered, 0.99), 1)}
            if recovered
            else None
        ),
        "figures": {name: round(figure, 3) for ran in runs for name, figure in ran.figures.items()},
    }


def wrong(result: dict[str, Any], *, must_run: bool) -> list[str]:
    """Why the row is not good; empty if it is. `must_run`: a row that was not run is not good either."""
    if result["status"] == "not_run":
        return [f"not run: {result['reason']}"] if must_run else []
    texts = list(result["violations"])
    control = result["control"]
    if control is not None and not control["caught"]:
        texts.append(f"the control {control['name']} was not caught: the row proves nothing")
    return texts
