"""A mesh under steady good load while somebody hostile does as he likes, and what that cost the good ones.

async with Siege(trial) as siege:
    await siege.attack("pings", siege.api, 1_000)      # warm up: what a first time costs is no leak
    siege.mark()
    await siege.attack("pings", siege.api, 100_000)
return siege.ran(fired)
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.chaos import attacker
from tests.chaos.frames import Counts
from tests.chaos.row import BROKER, Ran, Trial
from tests.chaos.witness import Witness
from tests.e2e.course import FAST, Course, until
from tests.e2e.history import Findings
from tests.e2e.stored import percentile

AGENTS: Final = ("a1", "a2")
SLOTS: Final = 8
RATE: Final = 40.0
FIRST_JOBS: Final = 20
GROWTH_MAX_MIB: Final = 20.0
SETTLE_S: Final = 6.0
"""How long memory of connections that ended may take to be given back."""


Act = Callable[["Siege"], Awaitable[None]]


class Siege:
    """One broker, agents, a submitter and a witness; judged when the context is left.

    `before` prepares the broker before the good load begins, `after` tidies it up when that is over.
    """

    def __init__(
        self,
        trial: Trial,
        *,
        program: Sequence[str] = BROKER,
        settings: Mapping[str, str] = FAST,
        before: Act | None = None,
        after: Act | None = None,
    ) -> None:
        self.course = Course(trial.folder, settings=settings, broker_program=program, seed=trial.seed)
        self.witness = Witness(self.course.mesh)
        self.seed = trial.seed
        """That of the last attack."""
        self.violations: list[str] = []
        self.figures: dict[str, float] = {}
        self._before, self._after = before, after
        self.peak_growth_mib = 0.0
        """By how much the broker's memory was above its highest before the mark, for a moment at least."""
        self._before_mib = self._highest_mib = 0.0
        self._stack = AsyncExitStack()
        self._findings: Findings | None = None

    @property
    def api(self) -> str:
        """The port of submitters and operators."""
        return self.course.mesh.addresses.api

    @property
    def mesh(self) -> str:
        """The port of agents."""
        return self.course.mesh.addresses.mesh

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.course)
        try:
            await asyncio.gather(*(self.course.start_agent(name, slots=SLOTS) for name in AGENTS))
            if self._before is not None:
                await self._before(self)
            self._good = AsyncExitStack()
            self.load = await self._good.enter_async_context(self.course.load(rate=RATE))
            await self._good.enter_async_context(self.witness.watching())
            await self.load.until_acknowledged(FIRST_JOBS)
        except BaseException:
            await self._stack.aclose()
            raise
        self.mark()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self._weigh()
                await self.load.until_acknowledged(FIRST_JOBS)
            await self._good.__aexit__(kind, error, trace)
            if error is None:
                if self._after is not None:
                    await self._after(self)
                self._findings = await self.course.judge()
        finally:
            await self._stack.aclose()

    # --- what is done to it -----------------------------------------------------------------------------------------

    async def attack(self, name: str, address: str, number: int) -> Counts:
        """Run an attack of `tests.chaos.attacker` to its end."""
        self.seed += 1
        return await attacker.attack(name, address, seed=self.seed, number=number)

    def mark(self) -> None:
        """From here on memory counts."""
        self._before_mib = self._mib("VmRSS")
        self._highest_mib = self._mib("VmHWM")

    def expect(self, is_so: bool, text: str) -> None:
        """What the row promises besides."""
        if not is_so:
            self.violations.append(text)

    # --- what came of it --------------------------------------------------------------------------------------------

    def ran(self, fired: int, *, recovery_ms: Sequence[float] = ()) -> Ran:
        """The run, with everything that was found."""
        assert self._findings is not None, "the context was not left in good order"
        witness = self.witness
        load = f"{RATE:g} jobs/s, {len(AGENTS)} agents"
        ran = Ran(load, fired, recovery_ms=list(recovery_ms)).judged(self._findings)
        ran.violations += self.violations + [f"a good client was not served: {text}" for text in witness.failures[:5]]
        growth_mib = self.figures["rss_growth_mib"]
        if growth_mib > GROWTH_MAX_MIB:
            ran.violations.append(f"the broker grew by {growth_mib:.1f} MiB, allowed are {GROWTH_MAX_MIB:g}")
        sessions = Counter(entry.key for entry in self.course.entries() if entry.op == "session")
        lost = [name for name, times in sessions.items() if times > 1]
        if lost:
            ran.violations.append(f"good agents lost their streams: {', '.join(lost)}")
        ran.figures |= self.figures | {
            "good_calls": len(witness.call_ms) + len(witness.dial_ms),
            "good_call_p99_ms": percentile(witness.call_ms, 0.99),
            "good_dial_p99_ms": percentile(witness.dial_ms, 0.99),
            "rss_peak_growth_mib": self.peak_growth_mib,
        }
        return ran

    async def _weigh(self) -> None:
        """What stays when the hostile ones are gone."""
        self.peak_growth_mib = self._mib("VmHWM") - self._highest_mib

        async def is_small() -> bool:
            self.figures["rss_growth_mib"] = self._mib("VmRSS") - self._before_mib
            return self.figures["rss_growth_mib"] <= GROWTH_MAX_MIB

        with suppress(AssertionError):  # it is judged later
            await until(is_small, "the memory is given back", SETTLE_S)

    def _mib(self, name: str) -> float:
        """What the kernel knows of the broker's memory: `VmRSS` now, `VmHWM` at its highest."""
        lines = Path(f"/proc/{self.course.mesh.broker.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024
