"""`mesh environments`: making, seeing, changing and removing environments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter

from broker.cli.access import Access, Flag, Several, Words
from broker.cli.confirm import confirm
from broker.cli.listing import LISTING, Listing, show_list
from broker.cli.output import joined, local_time, say, write_json, write_one

if TYPE_CHECKING:
    from mesh_client import EnvironmentView

ACCESS: Final = Access()

Text = Annotated[str | None, Parameter(show_default=False)]

app = App(name="environments", help="Where jobs are sent without naming groups.")


@app.command(name="list")
def list_environments(*, listing: Listing = LISTING, access: Access = ACCESS) -> None:
    """Show the environments of the organization."""
    show_list(
        access,
        listing,
        "environments",
        lambda mesh: mesh.list_environments(where=listing.where, order_by=listing.order_by),
        {
            "ENVIRONMENT": lambda view: view.environment,
            "RUNS IN": lambda view: view.target_group or "(none)",
            "GROUPS": lambda view: joined(view.groups),
            "NAME": lambda view: view.display_name,
            "DESCRIPTION": lambda view: view.description,
        },
    )


@app.command(name="get")
def get_environment(environment: str, /, *, access: Access = ACCESS) -> None:
    """Show an environment.

    Parameters
    ----------
    environment
        Its id.
    """
    with access.connected() as mesh:
        _write_environment(mesh.get_environment(environment), access)


@app.command(name="create")
def create_environment(
    environment: str,
    /,
    *,
    group: Several = (),
    target_group: Words = "",
    display_name: Words = "",
    description: Words = "",
    access: Access = ACCESS,
) -> None:
    """Make an environment.

    Parameters
    ----------
    environment
        Its id for ever: small letters, digits and hyphens.
    group
        A group that belongs to it; may be given several times.
    target_group
        The group that runs what is sent to it; by default the first one.
    display_name
        What people read; by default the id.
    description
        For people.
    """
    with access.connected() as mesh:
        view = mesh.create_environment(
            environment,
            groups=group,
            target_group=target_group,
            display_name=display_name,
            description=description,
        )
    _write_environment(view, access)


@app.command(name="update")
def update_environment(
    environment: str,
    /,
    *,
    group: Several = (),
    no_groups: Flag = False,
    target_group: Text = None,
    display_name: Text = None,
    description: Text = None,
    etag: Words = "",
    access: Access = ACCESS,
) -> None:
    """Change an environment. What is not given stays as it is; accepted jobs stay in the group that has them.

    Parameters
    ----------
    environment
        Its id.
    group
        A group that belongs to it from now on, in the place of those that did; may be given several times.
    no_groups
        No group belongs to it from now on: jobs sent to it are refused.
    target_group
        The group that runs what is sent to it; where there is none yet, by default the first of the groups.
    display_name
        What people read.
    description
        For people.
    etag
        Only if it is still as it was when this was read.
    """
    with access.connected() as mesh:
        if group and target_group is None and not mesh.get_environment(environment).target_group:
            target_group = group[0]  # as of a new one
        view = mesh.update_environment(
            environment,
            groups=group if group or no_groups else None,
            target_group="" if no_groups and target_group is None else target_group,
            display_name=display_name,
            description=description,
            etag=etag,
        )
    _write_environment(view, access)


@app.command(name="remove")
def remove_environment(environment: str, /, *, yes: Flag = False, access: Access = ACCESS) -> None:
    """Remove an environment. Accepted jobs run on, new ones sent to it are refused.

    Parameters
    ----------
    environment
        Its id.
    yes
        Do not ask.
    """
    with access.connected() as mesh:
        would = mesh.remove_environment(environment, validate_only=True)
        lonely = f" Groups that no other one names: {joined(would.groups)}." if would.groups else ""
        confirm(f"Remove environment {environment} for good?{lonely}", is_sure=yes)
        gone = mesh.remove_environment(environment)
    if access.is_json:
        write_json(gone)
    say(f"Environment {environment} is removed.{lonely}")


def _write_environment(view: EnvironmentView, access: Access) -> None:
    facts = {
        "Environment": view.environment,
        "Name": view.display_name,
        "Description": view.description,
        "Runs in": view.target_group or "(no group: jobs sent to it are refused)",
        "Groups": joined(view.groups),
        "Created": local_time(view.created_at),
    }
    write_one(view, facts, is_json=access.is_json)
