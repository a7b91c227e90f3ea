"""What operators did is done again to each agent in its order, whenever the agent is there for it."""

from __future__ import annotations

import pytest

from broker.dispatch.messages import DisableRequested, DrainCancelled, DrainRequested, EnableRequested, ResumeRequested
from broker.dispatch.model import Admin, AgentNo, DrainEnd, GroupNo
from simulator.acts import NO_TICKET, Act, Acts, Again
from simulator.streams import SECOND_US
from simulator.world import World
from tests.simulator.worlds import scenario

ONE, A1 = GroupNo(1), AgentNo(1)
PAUSE = DrainRequested(NO_TICKET, A1, DrainEnd.PAUSE)
RESUME = ResumeRequested(NO_TICKET, A1)
TAKE_BACK = DrainCancelled(NO_TICKET, A1)
DISABLE, ENABLE = DisableRequested(NO_TICKET, A1, now=False), EnableRequested(NO_TICKET, A1)
DOWN = {"at": "1 s", "crash": "erp/1", "for": "5 s"}


def ended(*acts: tuple[float, Act], duration: str = "100 ms", is_down: bool = True) -> Admin:
    """What holds for the agent in the end when this was asked; it is not there from the first to the sixth second."""
    world = World(
        scenario(
            agents={"count": 2, "slots": 1},
            arrivals={"even": "1/s"},
            duration={"constant": duration},
            settle="1 s",
            run="30 s",
            faults=[DOWN] if is_down else [],
        ),
        1,
        0,
    )
    again = Acts(world)
    for at_s, act in acts:
        again.plan(Again(round(at_s * SECOND_US), ONE, A1, act))
    world.run()
    return world.driver.dispatcher(ONE).ledger.agents[A1].admin


def test_agent_is_drained_when_it_is_back() -> None:
    assert ended((2, PAUSE)) is Admin.PAUSED


def test_resume_waits_for_the_drain_that_was_asked_before_it() -> None:
    assert ended((2, PAUSE), (3, RESUME)) is Admin.ENABLED


def test_acts_keep_their_order_when_the_agent_is_away() -> None:
    assert ended((2, PAUSE), (3, RESUME), (3, PAUSE)) is Admin.PAUSED
    assert ended((2, DISABLE), (3, ENABLE), (3, PAUSE), (4, RESUME), (5, DISABLE)) is Admin.DISABLED


@pytest.mark.parametrize("act", [RESUME, TAKE_BACK], ids=["resume", "take_back"])
@pytest.mark.parametrize("duration", ["100 ms", "20 s"], ids=["paused", "draining"])
def test_pause_ends_here_when_it_did_there_whether_or_not_the_drain_is_over(act: Act, duration: str) -> None:
    assert ended((10, PAUSE), (15, act), duration=duration, is_down=False) is Admin.ENABLED
