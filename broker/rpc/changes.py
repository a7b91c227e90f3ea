"""What an update wants changed: `update_mask` and `etag` of a request, as values that use-cases take.

AIP-134: without a mask the fields that are set; `*`: all, so that what is not set is cleared.
"""

from collections.abc import Callable, Collection
from hashlib import blake2b
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from broker.control.acts import AgentChange
from broker.control.edits import EnvironmentChange, GroupChange, OrganisationChange
from broker.control.requests import ANONYMOUS, CHECK_ONLY, Asked
from broker.errors import ChangedError, MalformedError
from broker.rpc.admin_convert import (
    INACTIVE_WORDS,
    MODE_WORDS,
    POLICY_FIELDS,
    group_in,
    labels_in,
    logs_centrally,
    policy_values,
)
from protos.mesh.v1 import admin_service_pb2 as pb

RowT = TypeVar("RowT")

_ALL: Final = "*"
DIGEST_BYTES: Final = 16


def organisation_change(request: pb.UpdateOrganizationRequest) -> OrganisationChange:
    """Which words of an organisation are to be others."""
    return OrganisationChange(**_texts(request, request.organization, OrganisationChange._fields))


def group_change(request: pb.UpdateGroupRequest) -> GroupChange:
    """What of a group is to be otherwise."""
    wanted = request.group
    names = _names(request, wanted, GroupChange._fields)
    values = policy_values(wanted.policy)
    return GroupChange(
        display_name=wanted.display_name if "display_name" in names else None,
        description=wanted.description if "description" in names else None,
        central_logging=logs_centrally(wanted) if "central_logging" in names else None,
        mode=MODE_WORDS[wanted.mode] or "balanced" if "mode" in names else None,
        inactive_jobs=INACTIVE_WORDS[wanted.inactive_jobs] if "inactive_jobs" in names else None,
        **{name: values[name] for name in _policy_names(request)},
    )


def _policy_names(request: pb.UpdateGroupRequest) -> list[str]:
    """Which values of a group's policy are to be others: named one by one (`policy.placing`), all of them, or set."""
    paths = set(request.update_mask.paths)
    fields = POLICY_FIELDS
    if paths & {_ALL, "policy"}:
        return list(fields.values())
    named = {path.removeprefix("policy.") for path in paths if path.startswith("policy.")}
    unknown = sorted(named - fields.keys())
    if unknown:
        text = f"update_mask: `policy.{unknown[0]}` is no field of a group's policy"
        raise MalformedError(text, reason="INVALID_MESSAGE", field="update_mask")
    given = {field.name for field, _ in request.group.policy.ListFields()} if not paths else set()
    return [fields[name] for name in fields if name in given | named]


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
    names = _names(request, wanted, (*AgentChange._fields, "operator_labels"))
    return AgentChange(
        display_name=wanted.display_name if "display_name" in names else None,
        description=wanted.description if "description" in names else None,
        rank=wanted.rank if "rank" in names else None,
        labels=labels_in(wanted.operator_labels) if "operator_labels" in names else None,
    )


def asked_of(request: Any) -> Asked:
    """Under which id a request asks to make something, and what it says; or that it only asks whether it could."""
    if not request.request_id:
        return CHECK_ONLY if request.validate_only else ANONYMOUS
    content = type(request)()
    content.CopyFrom(request)
    content.ClearField("request_id")
    content.ClearField("validate_only")
    digest = blake2b(type(request).__name__.encode(), digest_size=DIGEST_BYTES)
    digest.update(content.SerializeToString(deterministic=True))
    return Asked(request.request_id.lower(), digest.digest(), request.validate_only)


def unchanged(name: str, etag: str, of: Callable[[RowT], Any]) -> Callable[[RowT], None]:
    """A check that raises ChangedError unless what is there has this etag; `of` makes a message of it."""

    def check(row: RowT) -> None:
        if etag and etag != of(row).etag:
            raise ChangedError(f"{name} has changed since it was read; look again", resource=name)

    return check


def _texts(request: Any, wanted: Message, known: Collection[str]) -> dict[str, str]:
    return {name: getattr(wanted, name) for name in _names(request, wanted, known)}


def _names(request: Any, wanted: Message, known: Collection[str]) -> set[str]:
    paths = set(request.update_mask.paths) or {field.name for field, _ in wanted.ListFields()}
    return set(known) if _ALL in paths else paths & set(known)
