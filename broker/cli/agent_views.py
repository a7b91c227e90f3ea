"""How agents are shown, and what may be done with one next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.cli.access import Access
from broker.cli.confirm import counted
from broker.cli.output import age, joined, local_time, pairs, say, write_one

if TYPE_CHECKING:
    from mesh_client import AgentView, DrainView

GROUP: Final = "default"
"""The group that commands mean when none is named."""
BEEN_HERE: Final = ("no_response", "stopped", "paused", "draining")
"""What only an agent can be that has been connected."""
NOT_SINCE: Final = "not since restart"


def tell(view: AgentView, access: Access) -> None:
    """The agent after an act, and what may be done next."""
    write_agent(view, access)
    say(_next_step(view))


def _next_step(view: AgentView) -> str:
    match view.status:
        case "draining" if view.drain is not None and view.drain.mode == "pause":
            return f"It is given nothing new and pauses when it holds nothing. {look(view)} {take_back(view)}"
        case "draining":
            ending = "When it holds nothing its process ends, and is started again on its machine only."
            return f"It is given nothing new. {ending} {look(view)} {take_back(view)}"
        case "paused":
            return f"It is connected and idle. `{_command('resume', view)}` gives it work again."
        case "stopped":
            return "It has left in good order. Nothing starts it from here: start its process on its machine."
        case "disabled":
            state = f"It ends {attempts(view.live)}, then it is sent away." if view.live else "It is not let in."
            return f"{state} `{_command('enable', view)}` switches it on again."
        case "active":
            return "It is given work."
        case "awaiting_setup":
            return "It has never connected: start its process on its machine."
        case _:
            back = "If its process runs, it is back by itself within a minute; else start it on its machine."
            return f"It is not connected. {back} {look(view)}"


def look(view: AgentView) -> str:
    """What to do to see how far it is."""
    return f"`{_command('get', view)}` shows how far it is."


def take_back(view: AgentView) -> str:
    """What to do to take a drain back."""
    return f"`{_command('cancel-drain', view)}` takes it back."


def _command(verb: str, view: AgentView) -> str:
    where = "" if view.group == GROUP else f" --group {view.group}"
    return f"mesh agents {verb} {view.agent}{where}"


def attempts(number: int) -> str:
    """`1 attempt`, `2 attempts`."""
    return counted(number, "attempt")


def busy(view: AgentView) -> str:
    """Attempts that it holds, of those that it can run at the same time; `-` while it is not connected."""
    return f"{view.live}/{view.slots}" if view.slots else "-"


def heard(view: AgentView) -> str:
    """How long ago; an agent that was here before the broker was started has not said anything to it yet."""
    return age(view.last_heard_at) or (NOT_SINCE if view.status in BEEN_HERE else "")


def _drain(drain: DrainView) -> str:
    """`to stop since 2026-01-01 12:00:00, 3 attempts left; requeue at 12:30:00; by operator: new disk`."""
    facts = [f"to {drain.mode} since {local_time(drain.started_at)}, {attempts(drain.remaining)} left"]
    if drain.deadline is not None:
        facts.append(f"{drain.then} at {local_time(drain.deadline)}")
    facts.append(f"by {drain.operator}" + (f": {drain.reason}" if drain.reason else ""))
    return "; ".join(facts)


def _machine(view: AgentView) -> dict[str, str]:
    """What it said of its machine: `-` for what an older agent leaves out, nothing before its first connection."""
    if view.last_heard_at is None:
        return {}
    told = {
        "Version": view.version,
        "Host": view.host,
        "Process": str(view.pid or ""),
        "User": view.user,
        "System": view.os,
        "Time zone": view.time_zone,
        "Address": joined(dict.fromkeys(filter(None, (view.ip, view.peer)))),
        "Uptime": age(view.started_at) if view.connected_at is not None else "",
    }
    return {name: fact or "-" for name, fact in told.items()}


def write_agent(view: AgentView, access: Access) -> None:
    """An agent as a sheet of what is known of it."""
    facts = {
        "Agent": view.agent,
        "Name": view.display_name,
        "Description": view.description,
        "Group": view.group,
        "Status": view.status,
        "Elsewhere called": joined(dict.fromkeys(view.status_synonyms)),
        "Drain": _drain(view.drain) if view.drain is not None else "",
        "Disabled": view.disabled_reason,
        "Busy": busy(view),
        "Rank": str(view.rank),
        "Operations": joined(view.operations),
        "Labels": pairs(view.labels),
        "Given labels": pairs(view.operator_labels),
        "Stuck": f"{counted(view.stuck, 'handler')} told to stop and running on" if view.stuck else "",
        **_machine(view),
        "Connected": local_time(view.connected_at),
        "Heard": local_time(view.last_heard_at) or heard(view),
        "Created": local_time(view.created_at),
    }
    write_one(view, facts, is_json=access.is_json)
