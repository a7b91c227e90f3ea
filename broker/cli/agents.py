"""`mesh agents`: seeing, draining, disabling and removing what runs jobs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, Literal

from cyclopts import App

from broker.cli.access import Access, Flag, Seconds, Words
from broker.cli.exits import EXIT_FAILED, EXIT_OK, CommandError, UsageError
from broker.cli.output import (
    age,
    joined,
    local_time,
    pairs,
    say,
    shown,
    telling,
    write_json,
    write_list,
    write_one,
)

if TYPE_CHECKING:
    from mesh_client import AgentView, DrainView, SyncMeshClient

ACCESS: Final = Access()
GROUP: Final = "default"
DRAINED: Final = {"stop": "stopped", "pause": "paused"}
"""Where a drain of each mode ends."""

Mode = Literal["stop", "pause"]
Then = Literal["finish", "requeue", "kill"]

app = App(name="agents", help="Programs that run jobs: see, drain, disable, remove.")


# --- see ------------------------------------------------------------------------------------------------------------


@app.command(name="list")
def list_agents(*, group: str | None = None, access: Access = ACCESS) -> None:
    """Show agents, of all groups or of one.

    Parameters
    ----------
    group
        Only its agents.
    """
    with access.connected() as mesh:
        found = list(mesh.list_agents(group))
    heads = ("AGENT", "STATUS", "GROUP", "BUSY", "HEARD", "VERSION", "HOST")
    rows = [
        (view.agent, view.status, view.group, _busy(view), age(view.last_heard_at), view.version, view.host)
        for view in found
    ]
    write_list("agents", found, heads, rows, is_json=access.is_json)


@app.command
def get(agent: str, /, *, group: str = GROUP, access: Access = ACCESS) -> None:
    """Show an agent as it was last heard.

    Parameters
    ----------
    agent
        Its id.
    group
        Its group.
    """
    with access.connected() as mesh:
        _write_agent(mesh.get_agent(group, agent), access)


@app.command
def explain(agent: str, /, *, group: str = GROUP, access: Access = ACCESS) -> None:
    """Say why an agent is given work or not, and what would change that.

    Parameters
    ----------
    agent
        Its id.
    group
        Its group.
    """
    with access.connected() as mesh:
        said = mesh.explain_agent(group, agent)
    facts = {"Now": said.summary, "Until": said.next_step}
    facts |= {f"Reason {number}": text for number, (_, text) in enumerate(said.obstacles, 1)}
    write_one(said, facts, is_json=access.is_json)


# --- drain ----------------------------------------------------------------------------------------------------------


@app.command
def drain(
    agent: str,
    /,
    *,
    mode: Mode = "stop",
    then: Then = "finish",
    deadline: Seconds = None,
    reason: Words = "",
    wait: Flag = False,
    group: str = GROUP,
    access: Access = ACCESS,
) -> int:
    """Give an agent nothing new and let it finish. Nothing is lost, and nothing starts a stopped agent from here.

    Parameters
    ----------
    agent
        Its id.
    mode
        stop: its process ends. pause: it stays connected and idle until it is resumed.
    then
        What happens at the deadline to what still runs: it finishes all the same, runs elsewhere, or fails.
    deadline
        Seconds from now.
    reason
        Why; shown with the agent.
    wait
        Show how far it is until it is done. Ctrl-C ends the waiting, not the drain.
    group
        Its group.
    """
    with access.connected() as mesh:
        view = mesh.drain_agent(group, agent, mode, then=then, deadline_s=deadline, reason=reason)
        code = EXIT_OK
        if wait:
            view = _wait(mesh, view, mode)
            code = EXIT_OK if view.status == DRAINED[mode] else EXIT_FAILED
    if code:
        say(f"It is not {DRAINED[mode]}: the drain was taken back, or something else came after it.")
    _tell(view, access)
    return code


@app.command
def cancel_drain(agent: str, /, *, group: str = GROUP, access: Access = ACCESS) -> None:
    """Take back a drain that is not finished. What its deadline stopped already stays stopped.

    Parameters
    ----------
    agent
        Its id.
    group
        Its group.
    """
    with access.connected() as mesh:
        view = mesh.cancel_drain(group, agent)
    _tell(view, access)


@app.command
def resume(agent: str, /, *, group: str = GROUP, access: Access = ACCESS) -> None:
    """End the pause of an agent: it is given work again.

    Parameters
    ----------
    agent
        Its id.
    group
        Its group.
    """
    with access.connected() as mesh:
        view = mesh.resume_agent(group, agent)
    _tell(view, access)


def _wait(mesh: SyncMeshClient, view: AgentView, mode: Mode) -> AgentView:
    """The agent when its drain is over, however that came; tells of each step."""
    from mesh_client import MeshTimeoutError, UnavailableError

    told = ""
    try:
        with telling() as tell:
            for now in mesh.follow_agent(view.group, view.agent):
                view = now
                if view.drain is None or view.status == DRAINED[mode]:
                    break
                if (words := _progress(view, view.drain)) != told:
                    tell(words)
                    told = words
    except (KeyboardInterrupt, UnavailableError, MeshTimeoutError):
        say(f"Nobody waits any more; the drain goes on. {_look(view)} {_take_back(view)}")
        raise
    return view


def _progress(view: AgentView, drain: DrainView) -> str:
    away = "" if view.status == "draining" else f" It is {view.status}."
    return f"Draining {view.agent}: {_attempts(drain.remaining)} left.{away}"


# --- switch off, take out -------------------------------------------------------------------------------------------


@app.command
def disable(
    agent: str, /, *, now: Flag = False, reason: Words = "", group: str = GROUP, access: Access = ACCESS
) -> None:
    """Switch an agent off: nothing new is given to it, and when it is idle its stream ends.

    Parameters
    ----------
    agent
        Its id.
    now
        Stop what it runs; its stream ends within a second, and its work starts elsewhere.
    reason
        Why; shown with the agent.
    group
        Its group.
    """
    with access.connected() as mesh:
        view = mesh.disable_agent(group, agent, now=now, reason=reason)
    _tell(view, access)


@app.command
def enable(agent: str, /, *, group: str = GROUP, access: Access = ACCESS) -> None:
    """Switch an agent on again. It comes back by itself if its process runs.

    Parameters
    ----------
    agent
        Its id.
    group
        Its group.
    """
    with access.connected() as mesh:
        view = mesh.enable_agent(group, agent)
    _tell(view, access)


@app.command
def remove(agent: str, /, *, yes: Flag = False, group: str = GROUP, access: Access = ACCESS) -> None:
    """Remove an agent that does not run from its group for good. Its work starts elsewhere, its name is free.

    Parameters
    ----------
    agent
        Its id.
    yes
        Do not ask.
    group
        Its group.
    """
    with access.connected() as mesh:
        held = mesh.remove_agent(group, agent, validate_only=True)
        if not yes:
            _confirm(f"Remove agent {agent} of group {group} for good? It holds {_attempts(held)}.")
        held = mesh.remove_agent(group, agent)
    if access.is_json:
        write_json({"agent": agent, "group": group, "attempts": held})
    say(f"Agent {agent} of group {group} is removed; {_attempts(held)} of it will run elsewhere.")
    say("A process that still has its name is refused and ends. A new agent may have the name.")


def _confirm(question: str) -> None:
    """Go on only if the person says so. Raises UsageError where there is nobody to ask, CommandError for a no."""
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Say so with --yes.")
    print(f"{shown(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError("Nothing was removed.", EXIT_FAILED)


# --- words ----------------------------------------------------------------------------------------------------------


def _tell(view: AgentView, access: Access) -> None:
    """The agent after an act, and what may be done next."""
    _write_agent(view, access)
    say(_next_step(view))


def _next_step(view: AgentView) -> str:
    match view.status:
        case "draining" if view.drain is not None and view.drain.mode == "pause":
            return f"It is given nothing new and pauses when it holds nothing. {_look(view)} {_take_back(view)}"
        case "draining":
            ending = "When it holds nothing its process ends, and is started again on its machine only."
            return f"It is given nothing new. {ending} {_look(view)} {_take_back(view)}"
        case "paused":
            return f"It is connected and idle. `{_command('resume', view)}` gives it work again."
        case "stopped":
            return "It has left in good order. Nothing starts it from here: start its process on its machine."
        case "disabled":
            state = f"It ends {_attempts(view.live)}, then it is sent away." if view.live else "It is not let in."
            return f"{state} `{_command('enable', view)}` switches it on again."
        case "active":
            return "It is given work."
        case "awaiting_setup":
            return "It has never connected: start its process on its machine."
        case _:
            return f"It is not connected: it counts when it is back. {_look(view)}"


def _look(view: AgentView) -> str:
    return f"`{_command('get', view)}` shows how far it is."


def _take_back(view: AgentView) -> str:
    return f"`{_command('cancel-drain', view)}` takes it back."


def _command(verb: str, view: AgentView) -> str:
    where = "" if view.group == GROUP else f" --group {view.group}"
    return f"mesh agents {verb} {view.agent}{where}"


def _attempts(number: int) -> str:
    return "1 attempt" if number == 1 else f"{number} attempts"


def _busy(view: AgentView) -> str:
    """Attempts that it holds, of those that it can run at the same time."""
    return f"{view.live}/{view.slots}"


def _drain(drain: DrainView) -> str:
    """`to stop since 2026-01-01 12:00:00, 3 attempts left; requeue at 12:30:00; by operator: new disk`."""
    facts = [f"to {drain.mode} since {local_time(drain.started_at)}, {_attempts(drain.remaining)} left"]
    if drain.deadline is not None:
        facts.append(f"{drain.then} at {local_time(drain.deadline)}")
    facts.append(f"by {drain.operator}" + (f": {drain.reason}" if drain.reason else ""))
    return "; ".join(facts)


def _write_agent(view: AgentView, access: Access) -> None:
    facts = {
        "Agent": view.agent,
        "Name": view.display_name,
        "Group": view.group,
        "Status": view.status,
        "Drain": _drain(view.drain) if view.drain is not None else "",
        "Disabled": view.disabled_reason,
        "Busy": _busy(view),
        "Operations": joined(view.operations),
        "Labels": pairs(view.labels),
        "Version": view.version,
        "Process": f"{view.pid} of {view.user} on {view.host}" if view.pid else "",
        "System": view.os,
        "Address": joined(dict.fromkeys(filter(None, (view.ip, view.peer)))),
        "Connected": local_time(view.connected_at),
        "Heard": local_time(view.last_heard_at),
        "Created": local_time(view.created_at),
    }
    write_one(view, facts, is_json=access.is_json)
