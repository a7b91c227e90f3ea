"""What had been counted when a phase began: the differences of two marks are the phase."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.dispatch.model import AgentNo, GroupNo
    from simulator.recorder import FleetLog, Recorder


@dataclass(slots=True, frozen=True)
class FleetMark:
    """One group. How long processes of its agents were there, also times their slots; `assigned` by agent."""

    slots_us: int
    agents_us: int
    up_us: int
    assigned: "Mapping[AgentNo, int]"


@dataclass(slots=True, frozen=True)
class Mark:
    """Everything that only grows, as it was at `at_us`. `done` by the number of the work; lengths of what is listed."""

    at_us: int
    loop_busy_us: int
    commits: int
    overlapped: int
    wasted_us: int
    ran_us: int
    losses: int
    reassigned: int
    restarted: int
    done: Mapping[int, int]
    fleets: "Mapping[GroupNo, FleetMark]"


def mark_of(recorder: "Recorder", now_us: int, commits: int) -> Mark:
    """What the recorder has counted until now."""
    return Mark(
        now_us,
        recorder.loop_busy_us,
        commits,
        recorder.overlapped,
        recorder.wasted_us,
        recorder.ran_us,
        len(recorder.decide_s),
        len(recorder.reassign_s),
        len(recorder.restart_s),
        {number: log.done for number, log in recorder.work.items()},
        {number: _fleet_mark(recorder, log, now_us) for number, log in recorder.fleets.items()},
    )


def _fleet_mark(recorder: "Recorder", log: "FleetLog", now_us: int) -> FleetMark:
    slots_us = [(agent.pool.slots, recorder.slots_us_until(agent, now_us)) for agent in log.fleet.agents]
    agents_us = sum(spent_us // slots for slots, spent_us in slots_us)
    return FleetMark(
        sum(spent_us for _, spent_us in slots_us), agents_us, log.spells.up_until(now_us), dict(log.assigned)
    )
