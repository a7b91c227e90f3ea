"""What the plan of an organisation allows: how many private groups, and how many agents in them.

Settings of the mesh's operator say it (`[plan]`, `[plans.ORGANISATION]`), so no organisation can raise its own limits.
Managed groups and their agents are not counted.
"""

from broker.errors import FullError
from broker.settings import PlanSettings


def refuse_group(organisation: str, plan: PlanSettings, current: int) -> None:
    """Raise FullError unless one more private group is allowed."""
    if current >= plan.groups_max:
        text = _text(organisation, current, "private groups", plan.groups_max, plan.contact)
        raise FullError(text, reason="GROUP_QUOTA", retry_after_s=0.0, **_facts(organisation, plan, current, "groups"))


def refuse_agent(organisation: str, plan: PlanSettings, current: int) -> None:
    """Raise FullError unless one more agent of a private group is allowed."""
    if current >= plan.agents_max:
        text = _text(organisation, current, "agents", plan.agents_max, plan.contact)
        raise FullError(text, reason="AGENT_QUOTA", retry_after_s=0.0, **_facts(organisation, plan, current, "agents"))


def _text(organisation: str, current: int, what: str, limit: int, contact: str) -> str:
    return f"organizations/{organisation} has {current} {what}, and its plan allows {limit}: ask {contact} for more"


def _facts(organisation: str, plan: PlanSettings, current: int, what: str) -> dict[str, str]:
    return {
        "subject": f"organizations/{organisation}/{what}",
        "limit": str(getattr(plan, f"{what}_max")),
        "current": str(current),
        "contact": plan.contact,
    }
