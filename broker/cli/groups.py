"""`mesh groups`: making, seeing, changing and removing groups of agents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import App, Parameter

from broker.cli.access import Access, Flag, Words
from broker.cli.confirm import confirm, counted, losses
from broker.cli.listing import LISTING, Listing, show_list
from broker.cli.output import joined, local_time, say, write_json, write_one

if TYPE_CHECKING:
    from mesh_client import GroupView

ACCESS: Final = Access()
NO_ENVIRONMENT: Final = "(none: jobs sent to it are refused)"

Text = Annotated[str | None, Parameter(show_default=False)]
Mode = Literal["balanced", "ordered", "spill"]
InactiveJobs = Literal["wait", "refuse"]

app = App(name="groups", help="Groups of agents that share one queue.")


@app.command(name="list")
def list_groups(*, listing: Listing = LISTING, access: Access = ACCESS) -> None:
    """Show the groups of the organization."""
    show_list(
        access,
        listing,
        "groups",
        lambda mesh: mesh.list_groups(where=listing.where, order_by=listing.order_by),
        {
            "GROUP": lambda view: view.group,
            "STATUS": lambda view: view.status,
            "AGENTS": lambda view: f"{view.agents_active}/{view.agents_total}",
            "WAITING": lambda view: str(view.jobs_waiting),
            "RUNNING": lambda view: str(view.jobs_running),
            "KIND": lambda view: view.kind,
            "LOGGING": lambda view: "on" if view.central_logging else "off",
            "ENVIRONMENTS": lambda view: joined(view.environments) or "(none)",
            "NAME": lambda view: view.display_name,
            "DESCRIPTION": lambda view: view.description,
        },
    )


@app.command(name="get")
def get_group(group: str, /, *, access: Access = ACCESS) -> None:
    """Show a group.

    Parameters
    ----------
    group
        Its id.
    """
    with access.connected() as mesh:
        _write_group(mesh.get_group(group), access)


@app.command(name="create")
def create_group(
    group: str,
    /,
    *,
    display_name: Words = "",
    description: Words = "",
    central_logging: bool | None = None,
    mode: Mode | None = None,
    inactive_jobs: InactiveJobs | None = None,
    access: Access = ACCESS,
) -> None:
    """Make a group. Agents may connect and jobs may be sent to it at once.

    Parameters
    ----------
    group
        Its id for ever: small letters, digits and hyphens.
    display_name
        What people read; by default the id.
    description
        For people.
    central_logging
        Whether the broker collects the log of its agents; by default it does.
    mode
        How it spreads work: evenly, to the lowest rank that works, or to the lowest rank that has room.
    inactive_jobs
        What becomes of jobs that are sent to it while none of its agents is active; by default they wait.
    """
    with access.connected() as mesh:
        view = mesh.create_group(
            group,
            display_name=display_name,
            description=description,
            central_logging=central_logging,
            mode=mode,
            inactive_jobs=inactive_jobs,
        )
    _write_group(view, access)


@app.command(name="update")
def update_group(
    group: str,
    /,
    *,
    display_name: Text = None,
    description: Text = None,
    central_logging: bool | None = None,
    mode: Mode | None = None,
    inactive_jobs: InactiveJobs | None = None,
    etag: Words = "",
    access: Access = ACCESS,
) -> None:
    """Change a private group. What is not given stays as it is.

    Parameters
    ----------
    group
        Its id.
    display_name
        What people read.
    description
        For people.
    central_logging
        Whether the broker collects the log of its agents.
    mode
        How it spreads work: evenly, to the lowest rank that works, or to the lowest rank that has room.
    inactive_jobs
        What becomes of jobs that are sent to it while none of its agents is active.
    etag
        Only if it is still as it was when this was read.
    """
    with access.connected() as mesh:
        view = mesh.update_group(
            group,
            display_name=display_name,
            description=description,
            central_logging=central_logging,
            mode=mode,
            inactive_jobs=inactive_jobs,
            etag=etag,
        )
    _write_group(view, access)


@app.command(name="remove")
def remove_group(group: str, /, *, yes: Flag = False, access: Access = ACCESS) -> None:
    """Remove a private group with its agents. Its live jobs are cancelled, environments go on without it.

    Parameters
    ----------
    group
        Its id.
    yes
        Do not ask.
    """
    with access.connected() as mesh:
        would = mesh.remove_group(group, force=True, validate_only=True)
        lose = f" Environments that lose it: {joined(would.environments)}." if would.environments else ""
        what = losses(type(would)(agents=would.agents, jobs=would.jobs))
        confirm(f"Remove group {group} for good? {what}{lose}", is_sure=yes)
        gone = mesh.remove_group(group, force=True)
    if access.is_json:
        write_json(gone)
    said = f"{counted(len(gone.agents), 'agent')} went with it, {counted(gone.jobs, 'live job')} cancelled"
    say(f"Group {group} is removed; {said}.")


def _write_group(view: GroupView, access: Access) -> None:
    facts = {
        "Group": view.group,
        "Name": view.display_name,
        "Description": view.description,
        "Status": view.status,
        "Agents": f"{view.agents_active} active of {view.agents_total}",
        "Jobs": f"{view.jobs_waiting} waiting, {view.jobs_running} running",
        "Kind": view.kind,
        "Mode": view.mode,
        "While inactive": "jobs wait" if view.inactive_jobs == "wait" else "jobs are refused",
        "Central logging": "on" if view.central_logging else "off",
        "Environments": joined(view.environments) or NO_ENVIRONMENT,
        "Created": local_time(view.created_at),
        **{f"Warning {number}": text for number, (_, text) in enumerate(view.warnings, 1)},
    }
    write_one(view, facts, is_json=access.is_json)
