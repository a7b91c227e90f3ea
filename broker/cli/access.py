"""Which broker a command talks to, and how its errors become words and an exit code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from broker.cli.exits import CommandError, UsageError
from broker.cli.output import choose

if TYPE_CHECKING:
    from mesh_client import MeshClientError, SyncMeshClient

API_DEFAULT: Final = "127.0.0.1:7402"
COLLECTIONS: Final = ("organizations", "environments", "groups", "agents", "jobs")

Format = Literal["table", "json", "yaml"]
Flag = Annotated[bool, Parameter(negative="", show_default=False)]
Seconds = Annotated[float | None, Parameter(validator=Number(gt=0))]
Words = Annotated[str, Parameter(show_default=False)]
Several = Annotated[Sequence[str], Parameter(negative="", show_default=False)]


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Access:
    """Options of every command that asks a broker."""

    api: Annotated[str, Parameter(env_var="MESH_API")] = API_DEFAULT
    """HOST:PORT of the broker's API."""
    organization: Annotated[str, Parameter(env_var="MESH_ORGANIZATION")] = "default"
    """Whose groups and jobs."""
    api_timeout: Annotated[float, Parameter(validator=Number(gt=0))] = 5.0
    """Seconds to try until the broker answers."""
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


def words_of(error: MeshClientError) -> str:
    """What went wrong, its machine name, and a next step where there is one."""
    from mesh_client import FullError, MeshTimeoutError, NotFoundError, WrongStateError

    words = f"{error.text} ({error.reason})"
    if isinstance(error, FullError) and error.retry_after_s is not None:
        words += f"\nTry again in {error.retry_after_s:g} s."
    parts = error.details.get("resource", "").split("/")
    if len(parts) > 1 and parts[-2] in COLLECTIONS:
        if isinstance(error, NotFoundError):
            words += f"\nTry: mesh {parts[-2]} list"
        elif isinstance(error, WrongStateError):
            group = f" --group {parts[3]}" if parts[-2] == "agents" else ""
            words += f"\nTry: mesh {parts[-2]} get {parts[-1]}{group}"
    if isinstance(error, MeshTimeoutError) and (pending := error.details.get("pending")):
        words += f"\nTry: mesh jobs get {pending.partition(',')[0]}"
    return words
