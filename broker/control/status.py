"""One word for where an agent stands, derived from what operators said and what the broker observes; never stored."""

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
