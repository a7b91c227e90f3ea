"""Which broker a command talks to, and how its errors become words and an exit code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import Parameter

from broker.cli.durations import Duration
from broker.cli.exits import CommandError, UsageError
from broker.cli.output import choose

if TYPE_CHECKING:
    from mesh_client import MeshClientError, SyncMeshClient

API_DEFAULT: Final = "127.0.0.1:7402"
ORGANIZATION_DEFAULT: Final = "default"
GROUP_DEFAULT: Final = "default"
FIELD_OF_BATCH: Final = re.compile(r"\bbatch\.jobs\[\d+\]\.")
"""A command submits jobs of one kind: which of a batch is wrong says nothing."""
FIELD_OF_ID: Final = re.compile(r"^(\w+)_id: ")
OPTIONS: Final = {"labels": "label", "groups": "group"}
"""Options whose name is not that of the field."""
_ID: Final = r"([\w.-]*[\w-])"
RESOURCE: Final = re.compile(rf"\borganizations/{_ID}(?:/(groups|environments|jobs)/{_ID}(?:/agents/{_ID})?)?")
"""Names of the API, as its errors say them."""
NO_NAME: Final = re.compile(r"must be a name like [\w/-]*/([\w-]+)")
COLLECTIONS: Final = ("organizations", "environments", "groups", "agents", "jobs")

Format = Literal["table", "json", "yaml"]
Flag = Annotated[bool, Parameter(negative="", show_default=False)]
Words = Annotated[str, Parameter(show_default=False)]
Several = Annotated[Sequence[str], Parameter(negative="", show_default=False)]


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Access:
    """Options of every command that asks a broker."""

    api: Annotated[str, Parameter(env_var="MESH_API")] = API_DEFAULT
    """HOST:PORT of the broker's API."""
    organization: Annotated[str, Parameter(env_var="MESH_ORGANIZATION")] = ORGANIZATION_DEFAULT
    """Whose groups and jobs."""
    api_timeout: Duration = 5.0
    """How long to try until the broker answers: seconds, or `30s`, `2m`."""
    output: Annotated[Format, Parameter(name=["--output", "-o"])] = "table"
    """For people, or for programs."""

    def __post_init__(self) -> None:
        if self.output != "table":
            choose(self.output)

    @property
    def is_json(self) -> bool:
        """Whether a program reads the output, in the form that was chosen."""
        return self.output != "table"

    @contextmanager
    def connected(self, *, group: str | None = None, environment: str | None = None) -> Iterator[SyncMeshClient]:
        """A client; jobs go to `group` or `environment`. Raises CommandError for all that the client raises."""
        from mesh_client import MeshClientError, SyncMeshClient

        if ":" not in self.api:
            said = f"{self.api}: is no HOST:PORT" if self.api else "is empty"
            raise UsageError(f"--api, or MESH_API, {said}; give one like {API_DEFAULT}")
        try:
            with SyncMeshClient(
                self.api,
                organization=self.organization,
                group=group,
                environment=environment,
                retry_for_s=self.api_timeout,
            ) as client:
                yield client
        except MeshClientError as error:
            raise CommandError(words_of(error), error.exit_code) from error


def key_values(option: str, texts: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE` texts of an option as pairs. Raises UsageError."""
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UsageError(f"{option} {text}: give it as KEY=VALUE")
        found[key] = value
    return found


def words_of(error: MeshClientError) -> str:
    """What went wrong, its machine name, and a next step where there is one."""
    from mesh_client import FullError, MeshTimeoutError, NotFoundError, WrongStateError

    words = f"{_text(error)} ({error.reason})"
    if isinstance(error, FullError) and error.retry_after_s is not None:
        words += f"\nTry again in {error.retry_after_s:g} s."
    parts = error.details.get("resource", "").split("/")
    if len(parts) > 1 and parts[-2] in COLLECTIONS:
        if isinstance(error, NotFoundError):
            words += f"\nTry: mesh {parts[-2]} list{_owner(parts)}"
        elif isinstance(error, WrongStateError):
            words += f"\nTry: {_next(error.reason, parts)}{_owner(parts)}"
    if isinstance(error, MeshTimeoutError) and (pending := error.details.get("pending")):
        words += f"\nTry: mesh jobs get {pending.partition(',')[0]}"
    return words


def _next(reason: str, parts: Sequence[str]) -> str:
    """The command that lets a resource out of its state, or shows it."""
    if reason == "GROUP_WITHOUT_ENVIRONMENT":
        return f"mesh environments create {parts[-1]} --group {parts[-1]}"
    group = f" --group {parts[3]}" if parts[-2] == "agents" and parts[3] != GROUP_DEFAULT else ""
    return f"mesh {parts[-2]} get {parts[-1]}{group}"


def _owner(parts: Sequence[str]) -> str:
    """The option that says whose a resource is, where it is not the one that is meant without."""
    is_own = len(parts) > 2 and parts[0] == "organizations" and parts[1] != ORGANIZATION_DEFAULT
    return f" --organization {parts[1]}" if is_own else ""


def _text(error: MeshClientError) -> str:
    """The text of the error, with options in the place of fields of the API."""
    if error.reason == "NOTHING_TO_CHANGE":
        facts, of, names = error.text.partition("give one of ")
        return facts + of + ", ".join(f"--{_option(name)}" for name in names.split(", "))
    no_name = NO_NAME.search(error.text)
    if no_name:
        return f"an id is 1 to 63 of a-z, 0-9 and -, a letter first, no - at the end, like {no_name[1]}"
    return RESOURCE.sub(_called, FIELD_OF_ID.sub(r"\1: ", FIELD_OF_BATCH.sub("", error.text)))


def _called(found: re.Match[str]) -> str:
    """What people call a resource: `agent a1 of group east`, and whose it is if not whose is meant without."""
    organization, collection, name, agent = found.groups()
    if collection is None:
        return f"organization {organization}"
    called = f"agent {agent} of group {name}" if agent else f"{collection.removesuffix('s')} {name}"
    return called if organization == ORGANIZATION_DEFAULT else f"{called} of organization {organization}"


def _option(field: str) -> str:
    name = field.removeprefix("policy.")
    return OPTIONS.get(name, name.removesuffix("_s").replace("_", "-"))
