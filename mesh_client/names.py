"""Resource names and job ids, between their forms."""

from uuid import UUID

from uuid_utils import uuid7

from mesh_client.errors import MalformedError


def organization_name(organization: str) -> str:
    """`organizations/{organization}`."""
    return f"organizations/{organization}"


def group_name(organization: str, group: str) -> str:
    """`organizations/{organization}/groups/{group}`."""
    return f"organizations/{organization}/groups/{group}"


def environment_name(organization: str, environment: str) -> str:
    """`organizations/{organization}/environments/{environment}`."""
    return f"organizations/{organization}/environments/{environment}"


def agent_name(organization: str, group: str, agent: str) -> str:
    """`organizations/{organization}/groups/{group}/agents/{agent}`."""
    return f"organizations/{organization}/groups/{group}/agents/{agent}"


def job_name(organization: str, job_id: str | bytes) -> str:
    """`organizations/{organization}/jobs/{job_id}`. Raises MalformedError if the id is no UUID."""
    return f"organizations/{organization}/jobs/{id_text(id_bytes(job_id))}"


def part_after(name: str, collection: str) -> str:
    """The id that follows `collection` in a resource name, or "": `a` for `agents` in `.../agents/a`."""
    parts = name.split("/")
    return next((after for before, after in zip(parts[::2], parts[1::2], strict=False) if before == collection), "")


def quoted(value: str) -> str:
    """A value as a filter takes it, whatever is in it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def new_id() -> bytes:
    """A job id that nobody else has, ordered by time (UUID version 7)."""
    return uuid7().bytes


def id_bytes(job_id: str | bytes) -> bytes:
    """The 16 bytes of a job id. Raises MalformedError."""
    try:
        return UUID(bytes=job_id).bytes if isinstance(job_id, bytes) else UUID(job_id).bytes
    except ValueError as error:
        raise MalformedError(f"{job_id!r} is not a job id; job ids are UUIDs", reason="JOB_ID") from error


def id_text(job_id: bytes) -> str:
    """The usual text of 16 bytes, without the cost of a UUID object: it is made once for each submitted job."""
    digits = job_id.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
