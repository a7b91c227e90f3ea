from __future__ import annotations

import pytest

from broker.control.status import AgentStatus, agent_status
from broker.dispatch.model import Admin, Agent, AgentNo, Link


@pytest.mark.parametrize(
    ("link", "admin", "status"),
    [
        (Link.NEVER, Admin.ENABLED, AgentStatus.AWAITING_SETUP),
        (Link.LIVE, Admin.ENABLED, AgentStatus.ACTIVE),
        (Link.SUSPECT, Admin.ENABLED, AgentStatus.NO_RESPONSE),
        (Link.GONE, Admin.ENABLED, AgentStatus.NO_RESPONSE),
        (Link.LEFT, Admin.ENABLED, AgentStatus.STOPPED),
        (Link.STOPPED, Admin.ENABLED, AgentStatus.STOPPED),
        (Link.LIVE, Admin.DRAINING, AgentStatus.DRAINING),
        (Link.LIVE, Admin.PAUSED, AgentStatus.PAUSED),
        (Link.GONE, Admin.PAUSED, AgentStatus.NO_RESPONSE),
        (Link.LIVE, Admin.DISABLED, AgentStatus.DISABLED),
        (Link.NEVER, Admin.DISABLED, AgentStatus.DISABLED),
    ],
)
def test_agent_has_the_first_word_that_holds(link: Link, admin: Admin, status: AgentStatus) -> None:
    assert agent_status(Agent(AgentNo(1), "a1", link=link, admin=admin)) is status


def test_every_link_and_admin_state_has_a_word() -> None:
    for link in Link:
        for admin in Admin:
            assert agent_status(Agent(AgentNo(1), "a1", link=link, admin=admin)) in AgentStatus
