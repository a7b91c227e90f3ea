"""One word for where an agent or a group stands, from what operators said and what is observed; never stored."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

from broker.dispatch.model import Admin, Agent, Link


class AgentStatus(StrEnum):
    """The words of the table in `docs/architecture.md`, "States"."""

    AWAITING_SETUP = "awaiting_setup"
    ACTIVE = "active"
    NO_RESPONSE = "no_response"
    DRAINING = "draining"
    PAUSED = "paused"
    STOPPED = "stopped"
    DISABLED = "disabled"
    EXPIRED = "expired"
    """Its certificate has run out; agents that are known by what they say (`--dev`) have none."""


class GroupStatus(StrEnum):
    """Whether a group can work."""

    ACTIVE = "active"
    INACTIVE = "inactive"


SYNONYMS: Final[Mapping[AgentStatus, tuple[str, str]]] = {
    AgentStatus.AWAITING_SETUP: ("Unregistered", "Awaiting setup"),
    AgentStatus.ACTIVE: ("Running", "Active"),
    AgentStatus.NO_RESPONSE: ("Stopped", "No response"),
    AgentStatus.DRAINING: ("Running", "Disabled"),
    AgentStatus.PAUSED: ("Running", "Disabled"),
    AgentStatus.STOPPED: ("Stopped", "No response"),
    AgentStatus.DISABLED: ("Stopped", "Disabled"),
    AgentStatus.EXPIRED: ("Stopped", "No response"),
}
"""What the two products that people come from call the same: a word of each, for every status."""


_OF_LINK: Final = {
    Link.NEVER: AgentStatus.AWAITING_SETUP,
    Link.SUSPECT: AgentStatus.NO_RESPONSE,
    Link.GONE: AgentStatus.NO_RESPONSE,
    Link.LEFT: AgentStatus.STOPPED,
    Link.STOPPED: AgentStatus.STOPPED,
}
_OF_ADMIN: Final = {
    Admin.ENABLED: AgentStatus.ACTIVE,
    Admin.DRAINING: AgentStatus.DRAINING,
    Admin.PAUSED: AgentStatus.PAUSED,
}


def agent_status(agent: Agent) -> AgentStatus:
    """The first word that holds: disabled; what its connection says; what operators said."""
    if agent.admin in (Admin.DISABLED, Admin.REMOVED):  # removed: on its way out of the books
        return AgentStatus.DISABLED
    return _OF_LINK.get(agent.link) or _OF_ADMIN[agent.admin]


def group_status(agents: Iterable[AgentStatus]) -> GroupStatus:
    """Active if and only if at least one of its agents is."""
    return GroupStatus.ACTIVE if AgentStatus.ACTIVE in agents else GroupStatus.INACTIVE
