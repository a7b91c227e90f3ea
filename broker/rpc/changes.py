"""What an update wants changed: `update_mask` and `etag` of a request, as values that use-cases take.

AIP-134: without a mask the fields that are set; `*`: all, so that what is not set is cleared.
"""

from collections.abc import Callable, Collection
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from broker.control.acts import AgentChange
from broker.control.edits import EnvironmentChange, GroupChange, OrganisationChange
from broker.errors import ChangedError, NotBuiltError
from broker.rpc.admin_convert import INACTIVE_WORDS, MODE_WORDS, group_in, logs_centrally
from protos.mesh.v1 import admin_service_pb2 as pb

RowT = TypeVar("RowT")

_ALL: Final = "*"


def organisation_change(request: pb.UpdateOrganizationRequest) -> OrganisationChange:
    """Which words of an organisation are to be others."""
    return OrganisationChange(**_texts(request, request.organization, OrganisationChange._fields))


def group_change(request: pb.UpdateGroupRequest) -> GroupChange:
    """What of a group is to be otherwise."""
    wanted = request.group
    refuse_unkept("group", wanted, "policy")
    names = _names(request, wanted, GroupChange._fields)
    return GroupChange(
        display_name=wanted.display_name if "display_name" in names else None,
        description=wanted.description if "description" in names else None,
        central_logging=logs_centrally(wanted) if "central_logging" in names else None,
        mode=MODE_WORDS[wanted.mode] or "balanced" if "mode" in names else None,
        inactive_jobs=INACTIVE_WORDS[wanted.inactive_jobs] if "inactive_jobs" in names else None,
    )


def environment_change(request: pb.UpdateEnvironmentRequest, organisation: str) -> EnvironmentChange:
    """What of an environment is to be otherwise. Raises NotFoundError for groups of another organisation."""
    wanted = request.environment
    names = _names(request, wanted, ("display_name", "description", "target_group", "groups"))
    target = group_in(organisation, wanted.target_group) if wanted.target_group else ""
    return EnvironmentChange(
        display_name=wanted.display_name if "display_name" in names else None,
        description=wanted.description if "description" in names else None,
        target=target if "target_group" in names else None,
        groups=[group_in(organisation, group) for group in wanted.groups] if "groups" in names else None,
    )


def agent_change(request: pb.UpdateAgentRequest) -> AgentChange:
    """What of an agent is to be otherwise."""
    wanted = request.agent
    refuse_unkept("agent", wanted, "operator_labels")
    names = _names(request, wanted, AgentChange._fields)
    return AgentChange(
        display_name=wanted.display_name if "display_name" in names else None,
        description=wanted.description if "description" in names else None,
        rank=wanted.rank if "rank" in names else None,
    )


def unchanged(name: str, etag: str, of: Callable[[RowT], Any]) -> Callable[[RowT], None]:
    """A check that raises ChangedError unless what is there has this etag; `of` makes a message of it."""

    def check(row: RowT) -> None:
        if etag and etag != of(row).etag:
            raise ChangedError(f"{name} has changed since it was read; look again", resource=name)

    return check


def refuse_unkept(what: str, message: Any, *names: str) -> None:
    """Raise NotBuiltError for a field that cannot be kept: a value that is silently dropped is worse than an error."""
    set_names = {field.name for field, _ in message.ListFields()}
    for name in names:
        if name in set_names:
            raise NotBuiltError(f"{what}.{name} cannot be kept by this version; leave it out")


def _texts(request: Any, wanted: Message, known: Collection[str]) -> dict[str, str]:
    return {name: getattr(wanted, name) for name in _names(request, wanted, known)}


def _names(request: Any, wanted: Message, known: Collection[str]) -> set[str]:
    paths = set(request.update_mask.paths) or {field.name for field, _ in wanted.ListFields()}
    return set(known) if _ALL in paths else paths & set(known)
