"""A broker that serves for long while agents come and go: does it keep what they leave behind?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import fmean, linear_regression
from typing import Final, NamedTuple

from broker import series
from broker.store.connection import CACHE_KIB
from mesh_client import JobSpec
from tests.e2e.course import Course, until
from tests.e2e.history import Findings
from tests.e2e.page import descriptors, rss_kib, told
from tests.e2e.processes import BROKER_PROGRAM, Process, store_file
from tests.e2e.proxy import Proxy

AGENTS: Final = 200
RATE: Final = 50.0
RESETS_A_MINUTE: Final = 0.05 * AGENTS
"""5 % of the agents."""
WARM_UP_S: Final = 60.0
AGEING_PAUSE_S: Final = 0.1
"""Between two that are cut off before it is watched: what is freed and taken anew finds its places the sooner."""
FILLED_BYTES: Final = 2 * 1_024 * CACHE_KIB
"""Of the store: what the broker caches of it is full then, and so is what it remembers for watches; both are bounded,
and grow until then."""
FILLING: Final = JobSpec("echo", b"x" * 1_500)
SAMPLE_S: Final = 5.0
RECONNECTED_S: Final = 60.0
DESCRIPTORS_MAX: Final = 10
"""By how many open files the end may differ from the beginning: connections of clients that come and go."""


class Sample(NamedTuple):
    """What the broker's process held at a time."""

    t_s: float
    rss_kib: int
    descriptors: int


class Endurance:
    """One run of `seconds` after a warm-up, in `folder`, which must be empty.

    `is_filled`: its store is a large one, and in the warm-up agents come and go as often as in hours.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seconds: float,
        seed: int,
        resets_a_minute: float = RESETS_A_MINUTE,
        program: Sequence[str] = BROKER_PROGRAM,
        is_filled: bool = True,
        warm_up_s: float = WARM_UP_S,
    ) -> None:
        self._is_filled = is_filled
        self._warm_up_s = warm_up_s
        self._seconds = seconds
        self._pause_s = 60 / resets_a_minute
        self._folder = folder
        self._course = Course(folder, settings={}, broker_program=program, seed=seed)
        self.samples: list[Sample] = []
        self.resets = 0
        self.load_text = f"{AGENTS} agents, {RATE:g} jobs/s, {resets_a_minute:g} resets a minute"

    async def run(self) -> Findings:
        """Connect, cut off, watch, judge. Raises ProcessError, MeshClientError, AssertionError."""
        course = self._course
        async with course, Proxy(course.mesh.addresses.mesh) as proxy, AsyncExitStack() as ending:
            fleet = Process("fleet", self._program(proxy.address))
            ending.push_async_callback(fleet.kill)
            await fleet.start()
            await until(self._all_active, "all agents are active")
            if self._is_filled:
                await self._fill()
            async with course.load(rate=RATE, run_s=None):
                warm_up_s = min(self._warm_up_s, self._seconds)
                await self._cut_off(proxy, warm_up_s, AGEING_PAUSE_S if self._is_filled else self._pause_s)
                self.resets = 0
                await self._cut_off(proxy, self._seconds, self._pause_s, is_watched=True)
                await until(self._all_active, "all agents are active again", RECONNECTED_S)
            self._watch()
            await course.quiet()
            await fleet.stop()
            return await course.judge()

    @property
    def growth_kib(self) -> float:
        """By how much the broker's memory grew: mean of the last tenth of the samples less that of the first."""
        return _ends([sample.rss_kib for sample in self.samples])

    @property
    def descriptors_growth(self) -> float:
        """By how many the broker's open files grew."""
        return _ends([sample.descriptors for sample in self.samples])

    @property
    def slope_mib_per_h(self) -> float:
        """The line through all samples of its memory."""
        times = [sample.t_s / 3_600 for sample in self.samples]
        return linear_regression(times, [sample.rss_kib / 1_024 for sample in self.samples]).slope

    def leaks(self, growth_kib_max: float) -> list[str]:
        """What grew too much."""
        found = []
        if self.growth_kib > growth_kib_max:
            tenths = ", ".join(f"{one:.0f}" for one in self._tenths())
            found.append(f"the broker's memory grew by {self.growth_kib:.0f} KiB; in tenths of the time: {tenths}")
        if self.descriptors_growth > DESCRIPTORS_MAX:
            found.append(f"the broker's open files grew by {self.descriptors_growth:.0f}")
        return found

    def _tenths(self) -> list[float]:
        """By how many KiB its memory was larger than at first, on average in each tenth of the run."""
        values = [sample.rss_kib for sample in self.samples]
        step = max(1, len(values) // 10)
        return [fmean(values[start : start + step]) - values[0] for start in range(0, len(values), step)]

    # --- what it is made of -----------------------------------------------------------------------------------------

    def _program(self, address: str) -> list[str]:
        where = ["--broker", address, "--first", "0", "--agents", str(AGENTS)]
        return ["-m", "tests.e2e.fleet", str(self._course.agents_file), *where]

    async def _fill(self) -> None:
        """Jobs until the store is larger than what the broker keeps of it in memory: that grows up to a bound."""
        file = store_file(self._course.mesh.data)
        while file.stat().st_size < FILLED_BYTES:
            await self._course.submit_specs([FILLING] * 100)
        await self._course.quiet()

    async def _all_active(self) -> bool:
        return (await told(self._course.mesh, series.AGENTS)).get(("active",), 0) == AGENTS

    async def _cut_off(self, proxy: Proxy, seconds: float, pause_s: float, *, is_watched: bool = False) -> None:
        """One connection after the other, at a steady rate; a stall is what the mesh must ride out."""
        ends_s = time.monotonic() + seconds
        watch_s = time.monotonic()
        while (now_s := time.monotonic()) < ends_s:
            if is_watched and now_s >= watch_s:
                self._watch()
                watch_s = now_s + SAMPLE_S
            with self._course.during("reset", "broker"):
                self.resets += proxy.reset(1, self._course.generator)
            await asyncio.sleep(pause_s)

    def _watch(self) -> None:
        pid = self._course.mesh.broker.pid
        sample = Sample(time.monotonic(), rss_kib(pid), descriptors(pid))
        self.samples.append(sample)
        with (self._folder / "samples.txt").open("a") as file:  # to look at, also when the run breaks off
            file.write(f"{sample.t_s:.1f} {sample.rss_kib} {sample.descriptors}\n")


def _ends(values: Sequence[int]) -> float:
    """The last tenth less the first, by their means."""
    tenth = max(1, len(values) // 10)
    return sum(values[-tenth:]) / tenth - sum(values[:tenth]) / tenth
