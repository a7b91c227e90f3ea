"""`mesh agents`: adding, seeing, changing, draining, disabling and removing what runs jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from broker.cli.access import Access, Flag, Several, Words, key_values
from broker.cli.agent_views import GROUP, attempts, busy, heard, look, take_back, tell, write_agent
from broker.cli.confirm import confirm
from broker.cli.durations import Seconds
from broker.cli.exits import EXIT_FAILED, EXIT_OK, UsageError
from broker.cli.listing import LISTING, Listing, show_list
from broker.cli.output import say, telling, write_json, write_one

if TYPE_CHECKING:
    from mesh_client import AgentView, DrainView, SyncMeshClient

ACCESS: Final = Access()
DRAINED: Final = {"stop": "stopped", "pause": "paused"}
"""Where a drain of each mode ends."""

Text = Annotated[str | None, Parameter(show_default=False)]
Rank = Annotated[int | None, Parameter(validator=Number(gte=0), show_default=False)]
Mode = Literal["stop", "pause"]
Then = Literal["finish", "requeue", "kill"]


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Labels:
    """What operators say of an agent."""

    label: Several = ()
    """KEY=VALUE, once or more, in the place of all labels that it was given: they win over what it says itself."""
    no_labels: Flag = False
    """Take back all labels that it was given."""

    @property
    def given(self) -> dict[str, str] | None:
        """The new labels; None: they stay. Raises UsageError."""
        if self.label and self.no_labels:
            raise UsageError("give --label or --no-labels, not both")
        return key_values("--label", self.label) if self.label or self.no_labels else None


LABELS: Final = Labels()
COLUMNS: Final = {"agent": "name", "busy": "live", "heard": "last_heard_at"}
"""Fields behind heads of the table that have another name."""

app = App(name="agents", help="Programs that run jobs: add, see, drain, disable, remove.")


# --- see ------------------------------------------------------------------------------------------------------------


@app.command(name="list")
def list_agents(*, group: str | None = None, listing: Listing = LISTING, access: Access = ACCESS) -> None:
    """Show agents, of all private groups or of one.

    Parameters
    ----------
    group
        Only its agents.
    """
    show_list(
        access,
        listing,
        "agents",
        lambda mesh: mesh.list_agents(group, where=listing.where, order_by=listing.ordered(COLUMNS)),
        {
            "AGENT": lambda view: view.agent,
            "STATUS": lambda view: view.status,
            "GROUP": lambda view: view.group,
            "BUSY": busy,
            "HEARD": heard,
            "VERSION": lambda view: view.version,
            "HOST": lambda view: view.host,
            "IP": lambda view: view.ip,
            "OS": lambda view: view.os,
        },
    )


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
        write_agent(mesh.get_agent(group, agent), access)


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


# --- add, change ----------------------------------------------------------------------------------------------------


@app.command(name=["add", "create"])
def add(
    agent: str,
    /,
    *,
    group: str = GROUP,
    display_name: Words = "",
    description: Words = "",
    rank: Rank = None,
    label: Several = (),
    access: Access = ACCESS,
) -> None:
    """Announce an agent. It gets no work before its process has connected for the first time.

    Parameters
    ----------
    agent
        Its id for ever: small letters, digits and hyphens.
    group
        Its group.
    display_name
        What people read; by default the id.
    description
        For people.
    rank
        Its place where the mode of the group goes by rank: lower is earlier.
    label
        KEY=VALUE, once or more: it counts whatever the agent itself says of this key.
    """
    labels = key_values("--label", label)
    with access.connected() as mesh:
        view = mesh.create_agent(
            group, agent, display_name=display_name, description=description, rank=rank or 0, labels=labels
        )
    tell(view, access)


@app.command
def update(
    agent: str,
    /,
    *,
    group: str = GROUP,
    display_name: Text = None,
    description: Text = None,
    rank: Rank = None,
    labels: Labels = LABELS,
    etag: Words = "",
    access: Access = ACCESS,
) -> None:
    """Change an agent: its words while it does not run, the rest at any time. What is not given stays as it is.

    Parameters
    ----------
    agent
        Its id.
    group
        Its group.
    display_name
        What people read.
    description
        For people.
    rank
        Its place where the mode of the group goes by rank: lower is earlier.
    etag
        Only if it is still as it was when this was read.
    """
    given = labels.given
    with access.connected() as mesh:
        view = mesh.update_agent(
            group, agent, display_name=display_name, description=description, rank=rank, labels=given, etag=etag
        )
    write_agent(view, access)


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
        From now: seconds, or `5m`, `2h`.
    reason
        Why; shown with the agent.
    wait
        Show how far it is until it is done. Ctrl-C ends the waiting, not the drain.
    group
        Its group.
    """
    if then != "finish" and deadline is None:
        raise UsageError(f"--then {then} happens at a deadline: give --deadline, for example 5m")
    with access.connected() as mesh:
        view = mesh.drain_agent(group, agent, mode, then=then, deadline_s=deadline, reason=reason)
        code = EXIT_OK
        if wait:
            view = _wait(mesh, view, mode)
            code = EXIT_OK if view.status == DRAINED[mode] else EXIT_FAILED
    if code:
        say(f"It is not {DRAINED[mode]}: the drain was taken back, or something else came after it.")
    tell(view, access)
    return code


@app.command
def pause(
    agent: str,
    /,
    *,
    deadline: Seconds = None,
    reason: Words = "",
    wait: Flag = False,
    group: str = GROUP,
    access: Access = ACCESS,
) -> int:
    """Give an agent nothing new, let it finish and stay connected until it is resumed: `drain --mode pause`.

    Parameters
    ----------
    agent
        Its id.
    deadline
        From now: seconds, or `5m`, `2h`. What still runs then finishes all the same.
    reason
        Why; shown with the agent.
    wait
        Show how far it is until it is done. Ctrl-C ends the waiting, not the pause.
    group
        Its group.
    """
    return drain(agent, mode="pause", deadline=deadline, reason=reason, wait=wait, group=group, access=access)


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
    tell(view, access)


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
    tell(view, access)


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
        say(f"Nobody waits any more; the drain goes on. {look(view)} {take_back(view)}")
        raise
    return view


def _progress(view: AgentView, drain: DrainView) -> str:
    away = "" if view.status == "draining" else f" It is {view.status}."
    return f"Draining {view.agent}: {attempts(drain.remaining)} left.{away}"


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
    tell(view, access)


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
    tell(view, access)


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
        confirm(f"Remove agent {agent} of group {group} for good? It holds {attempts(held)}.", is_sure=yes)
        held = mesh.remove_agent(group, agent)
    if access.is_json:
        write_json({"agent": agent, "group": group, "attempts": held})
    say(f"Agent {agent} of group {group} is removed; {attempts(held)} of it will run elsewhere.")
    say("A process that still has its name is refused and ends. A new agent may have the name.")
