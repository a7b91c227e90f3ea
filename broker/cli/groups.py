"""`mesh groups`: making, seeing, changing and removing groups of agents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import App, Parameter, Token
from cyclopts.validators import Number

from broker.cli.access import ORGANIZATION_DEFAULT, Access, Flag, Words
from broker.cli.confirm import confirm, counted, losses
from broker.cli.durations import SecondsOrNone
from broker.cli.listing import LISTING, Listing, show_list
from broker.cli.output import joined, local_time, say, write_json, write_one

if TYPE_CHECKING:
    from mesh_client import GroupPolicy, GroupView
    from mesh_client.resources import PolicyValues

ACCESS: Final = Access()
NO_ENVIRONMENT: Final = "(none: jobs sent to it are refused)"

Text = Annotated[str | None, Parameter(show_default=False)]
Mode = Literal["balanced", "ordered", "spill"]
InactiveJobs = Literal["wait", "refuse"]
Placing = Literal["default", "least-loaded", "round-robin", "random", "power-of-d"]

Count = Annotated[int | None, Parameter(validator=Number(gte=0), show_default=False)]


def _prefetch_of(_kind: type, tokens: Sequence[Token]) -> float | Literal["default"]:
    text = tokens[0].value
    if text == "default":
        return "default"
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f'"{text}" is no number: give one from 0 to 16, or default') from error


Prefetch = Annotated[
    float | Literal["default"] | None, Parameter(converter=_prefetch_of, n_tokens=1, show_default=False)
]


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Policy:
    """How a group treats its jobs. Of an operation that the broker's settings name they are said there."""

    mode: Mode | None = None
    """How it spreads work: evenly, to the lowest rank that works, or to the lowest rank that has room."""
    inactive_jobs: InactiveJobs | None = None
    """What becomes of jobs that are sent to it while none of its agents is active; a new group lets them wait."""
    placing: Annotated[Placing | None, Parameter(show_default=False)] = None
    """Which agent with room gets a job: the least loaded, each in turn, any, or the best of a few that are drawn."""
    placing_choices: Count = None
    """Of how many agents power-of-d takes the best. 0, here and below: as the broker's settings say."""
    attempts_max: Count = None
    """Retryable failures after which a job is dead."""
    backoff_first: SecondsOrNone = None
    """How long before the first retry: seconds, or `500ms`, `2m`. It doubles with each."""
    backoff_max: SecondsOrNone = None
    """How long before a retry, at most."""
    cancel_grace: SecondsOrNone = None
    """How long a cancelled handler may take to stop."""
    queue_jobs_max: Count = None
    """Jobs that may wait and run; what is above is refused."""
    queue_bytes_max: Count = None
    """Bytes of their payloads."""
    prefetch: Prefetch = None
    """Jobs given ahead for each slot of an agent, 0 to 16, or `default`: as each agent says itself. They start without
    a round trip, but wait while another agent may be idle."""

    @property
    def values(self) -> PolicyValues:
        """As the client takes it, mode and waiting aside."""
        return {
            "placing": None if self.placing is None else self.placing.replace("-", "_"),
            "placing_choices": self.placing_choices,
            "attempts_max": self.attempts_max,
            "backoff_first_s": self.backoff_first,
            "backoff_max_s": self.backoff_max,
            "cancel_grace_s": self.cancel_grace,
            "queue_jobs_max": self.queue_jobs_max,
            "queue_bytes_max": self.queue_bytes_max,
            "prefetch": self.prefetch,
        }


POLICY: Final = Policy()

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
            "PLACING": lambda view: _placing(view.policy),
            "KIND": lambda view: view.kind,
            "LOGGING": lambda view: "planned" if view.central_logging else "off",
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
    policy: Policy = POLICY,
    access: Access = ACCESS,
) -> None:
    """Make a group. Agents may connect at once; jobs may be sent to it when an environment names it.

    Parameters
    ----------
    group
        Its id for ever: small letters, digits and hyphens.
    display_name
        What people read; by default the id.
    description
        For people.
    central_logging
        Whether the log of its agents is to be collected: by default yes. It is noted; nothing is collected yet.
    """
    with access.connected() as mesh:
        view = mesh.create_group(
            group,
            display_name=display_name,
            description=description,
            central_logging=central_logging,
            mode=policy.mode,
            inactive_jobs=policy.inactive_jobs,
            **policy.values,
        )
    _write_group(view, access)
    if not view.environments:
        owner = "" if access.organization == ORGANIZATION_DEFAULT else f" --organization {access.organization}"
        say(f"It takes no jobs yet. Next: mesh environments create {group} --group {group}{owner}")


@app.command(name="update")
def update_group(
    group: str,
    /,
    *,
    display_name: Text = None,
    description: Text = None,
    central_logging: bool | None = None,
    policy: Policy = POLICY,
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
        Whether the log of its agents is to be collected. It is noted for later; nothing is collected yet.
    etag
        Only if it is still as it was when this was read.
    """
    with access.connected() as mesh:
        view = mesh.update_group(
            group,
            display_name=display_name,
            description=description,
            central_logging=central_logging,
            mode=policy.mode,
            inactive_jobs=policy.inactive_jobs,
            **policy.values,
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


def _placing(policy: GroupPolicy) -> str:
    """How it places, in the words of the option."""
    if policy.placing == "power_of_d":
        return f"power-of-d ({policy.placing_choices or 'default'})"
    return (policy.placing or "default").replace("_", "-")


def _limits(policy: GroupPolicy) -> str:
    """What else of its policy is its own: `attempts-max 5, backoff-first 2 s`."""
    facts = {
        "attempts-max": policy.attempts_max,
        "backoff-first": policy.backoff_first_s and f"{policy.backoff_first_s:g} s",
        "backoff-max": policy.backoff_max_s and f"{policy.backoff_max_s:g} s",
        "cancel-grace": policy.cancel_grace_s and f"{policy.cancel_grace_s:g} s",
        "queue-jobs-max": policy.queue_jobs_max,
        "queue-bytes-max": policy.queue_bytes_max,
        "prefetch": None if policy.prefetch is None else f"{policy.prefetch:g}",
    }
    return joined(f"{name} {value}" for name, value in facts.items() if value)


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
        "Placing": _placing(view.policy),
        "Policy": _limits(view.policy),
        "While inactive": "jobs wait" if view.inactive_jobs == "wait" else "jobs are refused",
        "Central logging": "on (planned: nothing is collected yet)" if view.central_logging else "off",
        "Environments": joined(view.environments) or NO_ENVIRONMENT,
        "Created": local_time(view.created_at),
        **{f"Warning {number}": text for number, (_, text) in enumerate(view.warnings, 1)},
    }
    write_one(view, facts, is_json=access.is_json)
