"""Thousands of agents that come back at once, and hundreds that come and go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tests.chaos.endurance import RESETS_A_MINUTE, Endurance
from tests.chaos.row import BROKER, Ran, Row, Trial
from tests.chaos.stage import unguarded
from tests.e2e.herd import RATE, Herd

BACK_MAX_S: Final = 30.0
AGENT_KIB_MAX: Final = 120.0
LONG_S: Final = 2.0
"""A return that takes longer must not keep submissions waiting."""
ENDURANCE_S: Final = 300.0
GROWTH_KIB_MAX: Final = 4_096.0
"""In five minutes, after the warm-up; the slope of an hour is the soak's (tests/chaos/test_endurance.py)."""


async def herd_returns(trial: Trial, program: Sequence[str] = BROKER) -> Ran:
    """All agents lose a killed broker in the same moment."""
    agents = trial.of(300, 5_000)
    herd = Herd(trial.folder, agents=agents, is_killed=True, program=program)
    findings = await herd.run()
    figures = herd.figures
    ran = Ran(f"{agents:,} agents, {RATE:g} jobs/s", fired=1, recovery_ms=[1_000 * figures.all_again_s])
    ran.figures = {
        "half_again_s": figures.half_again_s,
        "falsely_dead": figures.falsely_dead,
        "came_again": figures.came_again,
        "acknowledged_returning": figures.acknowledged_returning,
        "broker_kib_per_agent": figures.kib_per_agent["broker"],
        "agent_kib_per_agent": figures.kib_per_agent["agent"],
        "p99_s": figures.p99_s,
        "submit_p99_s": figures.submit_p99_s,
    }
    if figures.falsely_dead:
        ran.violations.append(f"{figures.falsely_dead} agents were taken for dead although they were back")
    if figures.came_again:
        ran.violations.append(f"{figures.came_again} agents came back twice")
    if not figures.acknowledged_meanwhile:
        ran.violations.append("no submission was acknowledged after the broker was back")
    if figures.all_again_s > LONG_S and not figures.acknowledged_returning:
        ran.violations.append("no submission was acknowledged while the agents came back")
    if trial.is_full and figures.all_again_s > BACK_MAX_S:
        ran.violations.append(f"all agents were back after {figures.all_again_s:.1f} s, not {BACK_MAX_S:g} s")
    if figures.kib_per_agent["broker"] > AGENT_KIB_MAX:
        ran.violations.append(f"an agent costs the broker {figures.kib_per_agent['broker']:.0f} KiB")
    return ran.judged(findings)


async def agents_come_and_go(trial: Trial, program: Sequence[str] = BROKER) -> Ran:
    """Connections end with RST all the time; memory and descriptors stay where they were."""
    endurance = Endurance(
        trial.folder,
        seconds=float(trial.of(10, int(ENDURANCE_S))),
        seed=trial.seed,
        resets_a_minute=trial.of(60, int(RESETS_A_MINUTE)),
        program=program,
        is_filled=trial.is_full,
    )
    findings = await endurance.run()
    ran = Ran(endurance.load_text, fired=endurance.resets)
    ran.figures = {
        "rss_growth_kib": endurance.growth_kib,
        "rss_slope_mib_per_h": endurance.slope_mib_per_h,
        "descriptors_growth": endurance.descriptors_growth,
    }
    ran.violations += endurance.leaks(GROWTH_KIB_MAX)
    return ran.judged(findings)


ROWS: Final = (
    Row(
        "herd-returns",
        "5,000 agents lose a killed broker at once: all active again within 30 s, none falsely dead, 120 KiB each",
        herd_returns,
        control=unguarded("keeps-streams", herd_returns, "an agent costs the broker"),
        is_in_suite=False,
    ),
    Row(
        "agents-come-and-go",
        "5 % of 200 agents are cut off each minute for 5 min: memory and descriptors of the broker stay flat",
        agents_come_and_go,
        control=unguarded("keeps-streams", agents_come_and_go, "memory grew"),
        is_in_suite=False,
    ),
)
