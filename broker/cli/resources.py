"""`mesh groups`, `environments` and `organizations`: what operators set up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cyclopts import App

from broker.cli.access import Access, Several, Words
from broker.cli.output import joined, local_time, write_list, write_one

if TYPE_CHECKING:
    from mesh_client import EnvironmentView, GroupView, OrganizationView

ACCESS: Final = Access()

groups = App(name="groups", help="Groups of agents that share one queue.")
environments = App(name="environments", help="Where jobs are sent without naming groups.")
organizations = App(name="organizations", help="Who owns groups, environments, jobs.")


# --- groups ---------------------------------------------------------------------------------------------------------


@groups.command(name="list")
def list_groups(*, access: Access = ACCESS) -> None:
    """Show the groups of the organization."""
    with access.connected() as mesh:
        found = list(mesh.list_groups())
    heads = ("GROUP", "STATUS", "AGENTS", "KIND", "NAME")
    rows = [
        (view.group, view.status, f"{view.agents_active}/{view.agents_total}", view.kind, view.display_name)
        for view in found
    ]
    write_list("groups", found, heads, rows, is_json=access.is_json)


@groups.command(name="get")
def get_group(group: str, /, *, access: Access = ACCESS) -> None:
    """Show a group.

    Parameters
    ----------
    group
        Its id.
    """
    with access.connected() as mesh:
        _write_group(mesh.get_group(group), access)


@groups.command(name="create")
def create_group(
    group: str,
    /,
    *,
    display_name: Words = "",
    description: Words = "",
    central_logging: bool | None = None,
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
    """
    with access.connected() as mesh:
        view = mesh.create_group(
            group, display_name=display_name, description=description, central_logging=central_logging
        )
    _write_group(view, access)


def _write_group(view: GroupView, access: Access) -> None:
    facts = {
        "Group": view.group,
        "Name": view.display_name,
        "Description": view.description,
        "Status": view.status,
        "Agents": f"{view.agents_active} active of {view.agents_total}",
        "Kind": view.kind,
        "Central logging": "on" if view.central_logging else "off",
        "Environments": joined(view.environments),
        "Created": local_time(view.created_at),
    }
    write_one(view, facts, is_json=access.is_json)


# --- environments ---------------------------------------------------------------------------------------------------


@environments.command(name="list")
def list_environments(*, access: Access = ACCESS) -> None:
    """Show the environments of the organization."""
    with access.connected() as mesh:
        found = list(mesh.list_environments())
    rows = [(view.environment, view.target_group, joined(view.groups), view.display_name) for view in found]
    write_list("environments", found, ("ENVIRONMENT", "RUNS IN", "GROUPS", "NAME"), rows, is_json=access.is_json)


@environments.command(name="get")
def get_environment(environment: str, /, *, access: Access = ACCESS) -> None:
    """Show an environment.

    Parameters
    ----------
    environment
        Its id.
    """
    with access.connected() as mesh:
        _write_environment(mesh.get_environment(environment), access)


@environments.command(name="create")
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


# --- organizations --------------------------------------------------------------------------------------------------


@organizations.command(name="list")
def list_organizations(*, access: Access = ACCESS) -> None:
    """Show the organizations."""
    with access.connected() as mesh:
        found = list(mesh.list_organizations())
    rows = [(view.organization, view.display_name, local_time(view.created_at)) for view in found]
    write_list("organizations", found, ("ORGANIZATION", "NAME", "CREATED"), rows, is_json=access.is_json)


@organizations.command(name="get")
def get_organization(organization: str, /, *, access: Access = ACCESS) -> None:
    """Show an organization.

    Parameters
    ----------
    organization
        Its id.
    """
    with access.connected() as mesh:
        _write_organization(mesh.get_organization(organization), access)


@organizations.command(name="create")
def create_organization(organization: str, /, *, display_name: Words = "", access: Access = ACCESS) -> None:
    """Make an organization.

    Parameters
    ----------
    organization
        Its id for ever: small letters, digits and hyphens.
    display_name
        What people read; by default the id.
    """
    with access.connected() as mesh:
        _write_organization(mesh.create_organization(organization, display_name=display_name), access)


def _write_organization(view: OrganizationView, access: Access) -> None:
    facts = {
        "Organization": view.organization,
        "Name": view.display_name,
        "Description": view.description,
        "Created": local_time(view.created_at),
    }
    write_one(view, facts, is_json=access.is_json)
