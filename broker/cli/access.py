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
FIELD_OF_BATCH: Final = re.compile(r"\bbatch\.jobs\[\d+\]\.")
"""A command submits jobs of one kind: which of a batch is wrong says nothing."""
OPTIONS: Final = {"labels": "label", "groups": "group"}
"""Options whose name is not that of the field."""
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

        if not self.api:
            raise UsageError("--api, or MESH_API, is empty: give HOST:PORT")
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
            group = f" --group {parts[3]}" if parts[-2] == "agents" else ""
            words += f"\nTry: mesh {parts[-2]} get {parts[-1]}{group}{_owner(parts)}"
    if isinstance(error, MeshTimeoutError) and (pending := error.details.get("pending")):
        words += f"\nTry: mesh jobs get {pending.partition(',')[0]}"
    return words


def _owner(parts: Sequence[str]) -> str:
    """The option that says whose a resource is, where it is not the one that is meant without."""
    is_own = len(parts) > 2 and parts[0] == "organizations" and parts[1] != ORGANIZATION_DEFAULT
    return f" --organization {parts[1]}" if is_own else ""


def _text(error: MeshClientError) -> str:
    """The text of the error, with options in the place of fields of the API."""
    if error.reason == "NOTHING_TO_CHANGE":
        facts, of, names = error.text.partition("give one of ")
        return facts + of + ", ".join(f"--{_option(name)}" for name in names.split(", "))
    return FIELD_OF_BATCH.sub("", error.text)


def _option(field: str) -> str:
    return OPTIONS.get(field, field.removesuffix("_s").replace("_", "-"))
