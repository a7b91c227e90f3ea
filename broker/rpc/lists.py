"""Lists of what operators set up: by which fields they are filtered, searched and ordered, and their pages.

The fields are part of the contract: their names stand in the comments of the list requests.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeVar

from google.protobuf.message import Message

from broker.control.filters import FilterValue, Order, address_key, select, version_key
from broker.control.resources import AgentView
from broker.rpc import pages
from protos.mesh.v1 import admin_service_pb2 as pb

ItemT = TypeVar("ItemT")
Field = Callable[[Any], Any]


class ListedAgent(NamedTuple):
    """An agent in a list, before it is a message: of many thousands only a page becomes messages."""

    name: str
    view: AgentView

    @property
    def display_name(self) -> str:
        """What people read."""
        return self.view.words.display_name

    @property
    def description(self) -> str:
        """What they say of it."""
        return self.view.words.description


SEARCHED: Final[Sequence[Callable[[Any], str]]] = (
    lambda item: str(item.name.rpartition("/")[2]),
    attrgetter("display_name"),
    attrgetter("description"),
)
"""Where a word alone is looked for: the id, what people read, and what they say of it."""


def _plain(*names: str) -> dict[str, Field]:
    """Fields as they are. Empty texts are empty values, numbers never are."""
    return {name: attrgetter(name) for name in names}


def _words(enum: Any, prefix: str, name: str) -> dict[str, Field]:
    return {name: lambda item: enum.Name(getattr(item, name)).removeprefix(prefix).lower()}


def _flag(name: str) -> dict[str, Field]:
    return {name: lambda item: str(getattr(item, name)).lower()}


def _times(*names: str) -> dict[str, Field]:
    def of(name: str) -> Field:
        return lambda item: getattr(item, name).ToMicroseconds() if item.HasField(name) else None

    return {name: of(name) for name in names}


def _placing(placing: pb.GroupPlacing.ValueType) -> str:
    """How a group places; empty if it is the broker's setting."""
    return pb.GroupPlacing.Name(placing).removeprefix("GROUP_PLACING_").lower() if placing else ""


_GROUP_WORDS: Final[Mapping[str, Field]] = {
    **_words(pb.GroupKind, "GROUP_KIND_", "kind"),
    **_words(pb.GroupStatus, "GROUP_STATUS_", "status"),
    **_words(pb.GroupMode, "GROUP_MODE_", "mode"),
    **_flag("central_logging"),
    "placing": lambda group: _placing(group.policy.placing),
}
_DESCRIBED: Final = _plain("name", "display_name", "description")
_STATUS: Final[Mapping[str, Field]] = {"status": lambda item: str(item.view.status)}
_MACHINE: Final[Mapping[str, Field]] = {
    name: attrgetter(f"view.machine.{name}") for name in ("version", "host", "ip", "peer", "os", "user")
}


def _present(name: str) -> Field:
    """A number that is known while the agent is connected."""
    return lambda item: getattr(item.view.agent, name) or None if item.view.agent.is_present else None


FILTERS: Final[Mapping[type[Message], Mapping[str, Callable[[Any], FilterValue]]]] = {
    pb.Organization: _DESCRIBED,
    pb.Environment: {**_DESCRIBED, **_plain("target_group", "groups")},
    pb.Group: {
        **_DESCRIBED,
        **_GROUP_WORDS,
        **_words(pb.InactiveJobs, "INACTIVE_JOBS_", "inactive_jobs"),
        **_plain("environments"),
        "warnings": lambda group: [warning.code for warning in group.warnings],
    },
    pb.Agent: {
        **_DESCRIBED,
        **_STATUS,
        **_MACHINE,
        "operations": attrgetter("view.agent.operations"),
        "labels": attrgetter("view.agent.labels"),
    },
}
ORDERS: Final[Mapping[type[Message], Mapping[str, Field]]] = {
    pb.Organization: {**_DESCRIBED, **_plain("groups_total", "agents_total"), **_times("created_at")},
    pb.Environment: {**_DESCRIBED, **_plain("target_group"), **_times("created_at")},
    pb.Group: {
        **_DESCRIBED,
        **_GROUP_WORDS,
        **_plain("agents_active", "agents_total", "jobs_waiting", "jobs_running"),
        **_times("created_at"),
    },
    pb.Agent: {
        **_DESCRIBED,
        **_STATUS,
        **_MACHINE,
        "rank": attrgetter("view.agent.rank"),
        "live": lambda item: item.view.agent.held if item.view.agent.is_present else 0,
        "version": lambda item: version_key(item.view.machine.version),
        "ip": lambda item: address_key(item.view.machine.ip),
        "peer": lambda item: address_key(item.view.machine.peer),
        "pid": lambda item: item.view.machine.pid or None,
        "slots": _present("slots"),
        "capacity": _present("capacity"),
        "connected_at": _present("connected_us"),
        "started_at": lambda item: item.view.machine.started_us or None,
        "last_heard_at": lambda item: item.view.agent.heard_us or None,
        "created_at": lambda item: item.view.agent.created_us or None,
    },
}


def page_of(found: Sequence[ItemT], kind: type[Message], request: Any, parent: str) -> tuple[Sequence[ItemT], str, int]:
    """What of a list is asked for: filtered, ordered (by name if nothing else is said), a page of it.

    The items are messages of this kind, or `ListedAgent`s. Answers the page, the token of the next one, and how many
    items there are on all pages. Raises MalformedError.
    """
    order = Order[ItemT](request.order_by, ORDERS[kind], "name")
    chosen = order.sort(select(found, request.filter, FILTERS[kind], SEARCHED))
    query = (parent, request.filter, request.order_by)
    page, token = pages.page_of(chosen, order, request.page_size, request.page_token, *query)
    return page, token, len(chosen)
