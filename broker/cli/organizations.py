"""`mesh organizations`: making, seeing, changing and removing organizations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter

from broker.cli.access import Access, Flag, Words
from broker.cli.confirm import confirm, counted, losses
from broker.cli.listing import LISTING, Listing, show_list
from broker.cli.output import local_time, say, write_json, write_one

if TYPE_CHECKING:
    from mesh_client import OrganizationView

ACCESS: Final = Access()

Text = Annotated[str | None, Parameter(show_default=False)]

app = App(name="organizations", help="Who owns groups, environments, jobs.")


@app.command(name="list")
def list_organizations(*, listing: Listing = LISTING, access: Access = ACCESS) -> None:
    """Show the organizations."""
    show_list(
        access,
        listing,
        "organizations",
        lambda mesh: mesh.list_organizations(where=listing.where, order_by=listing.order_by),
        {
            "ORGANIZATION": lambda view: view.organization,
            "GROUPS": lambda view: f"{view.groups_total} of {view.groups_max}",
            "AGENTS": lambda view: f"{view.agents_total} of {view.agents_max}",
            "NAME": lambda view: view.display_name,
            "CREATED": lambda view: local_time(view.created_at),
        },
    )


@app.command(name="get")
def get_organization(organization: str, /, *, access: Access = ACCESS) -> None:
    """Show an organization.

    Parameters
    ----------
    organization
        Its id.
    """
    with access.connected() as mesh:
        _write_organization(mesh.get_organization(organization), access)


@app.command(name="create")
def create_organization(
    organization: str, /, *, display_name: Words = "", description: Words = "", access: Access = ACCESS
) -> None:
    """Make an organization.

    Parameters
    ----------
    organization
        Its id for ever: small letters, digits and hyphens.
    display_name
        What people read; by default the id.
    description
        For people.
    """
    with access.connected() as mesh:
        view = mesh.create_organization(organization, display_name=display_name, description=description)
    _write_organization(view, access)
    mine = f"--organization {organization}"
    say(
        f"It takes no jobs yet. Next: mesh groups create GROUP {mine}, "
        f"then mesh environments create ENVIRONMENT --group GROUP {mine}"
    )


@app.command(name="update")
def update_organization(
    organization: str,
    /,
    *,
    display_name: Text = None,
    description: Text = None,
    etag: Words = "",
    access: Access = ACCESS,
) -> None:
    """Change what people read of an organization. What is not given stays as it is.

    Parameters
    ----------
    organization
        Its id.
    display_name
        What people read.
    description
        For people.
    etag
        Only if it is still as it was when this was read.
    """
    with access.connected() as mesh:
        view = mesh.update_organization(organization, display_name=display_name, description=description, etag=etag)
    _write_organization(view, access)


@app.command(name="remove")
def remove_organization(organization: str, /, *, yes: Flag = False, access: Access = ACCESS) -> None:
    """Remove an organization with all that it has. Its live jobs are cancelled.

    Parameters
    ----------
    organization
        Its id.
    yes
        Do not ask.
    """
    with access.connected() as mesh:
        would = mesh.remove_organization(organization, force=True, validate_only=True)
        confirm(f"Remove organization {organization} for good? {losses(would)}", is_sure=yes)
        gone = mesh.remove_organization(organization, force=True)
    if access.is_json:
        write_json(gone)
    say(f"Organization {organization} is removed; {counted(gone.jobs, 'live job')} cancelled.")


def _write_organization(view: OrganizationView, access: Access) -> None:
    facts = {
        "Organization": view.organization,
        "Name": view.display_name,
        "Description": view.description,
        "Private groups": f"{view.groups_total} of {view.groups_max}",
        "Their agents": f"{view.agents_total} of {view.agents_max}",
        "For more ask": view.contact,
        "Created": local_time(view.created_at),
    }
    write_one(view, facts, is_json=access.is_json)
