from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.control.status import SYNONYMS, AgentStatus, GroupStatus, agent_status, group_status
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


@pytest.mark.req("R70")
@given(st.lists(st.sampled_from(AgentStatus)))
def test_group_is_active_if_and_only_if_one_of_its_agents_is(statuses: list[AgentStatus]) -> None:
    is_active = any(status == "active" for status in statuses)
    assert group_status(iter(statuses)) is (GroupStatus.ACTIVE if is_active else GroupStatus.INACTIVE)


@pytest.mark.req("R58")
@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("awaiting_setup", ("Unregistered", "Awaiting setup")),
        ("active", ("Running", "Active")),
        ("no_response", ("Stopped", "No response")),
        ("draining", ("Running", "Disabled")),
        ("paused", ("Running", "Disabled")),
        ("stopped", ("Stopped", "No response")),
        ("disabled", ("Stopped", "Disabled")),
        ("expired", ("Stopped", "No response")),
    ],
)
def test_status_has_the_words_that_people_know_from_elsewhere(status: str, words: tuple[str, str]) -> None:
    assert SYNONYMS[AgentStatus(status)] == words


@pytest.mark.req("R58")
def test_every_status_has_words_from_elsewhere() -> None:
    assert set(SYNONYMS) == set(AgentStatus)
