"""Names that people choose: ids in resource names (slugs), display names, and what they refuse.

A display name of a group, environment or connection refuses 22 characters that some vendor, shell or address gives a
meaning; an agent may bear its host's name, so this rule is not for agents.
"""

import re
import unicodedata
from typing import Final
from uuid import UUID

from broker.errors import MalformedError

SLUG: Final = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
SLUG_LENGTH_MAX: Final = 63
FORBIDDEN: Final = "<>#%{}|\\/^~[];,:?@=&.`"
"""The 22 characters that a display name refuses."""

_PARENT: Final = re.compile(r"organizations/([^/]+)(?:/(groups|environments)/([^/]+))?")
_AGENT: Final = re.compile(r"organizations/([^/]+)/groups/([^/]+)/agents/([^/]+)")
_JOB: Final = re.compile(r"organizations/([^/]+)/jobs/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


def check_display_name(name: str, field: str) -> None:
    """Refuse a name with a forbidden character, naming the first one and its position (from 1)."""
    for position, character in enumerate(name, start=1):
        if character in FORBIDDEN:
            raise MalformedError(
                f"{field} {name!r} has {character!r} at position {position}; names are without {' '.join(FORBIDDEN)}",
                reason="FORBIDDEN_CHARACTER",
                field=field,
                character=character,
                position=str(position),
            )


def check_slug(slug: str, field: str) -> str:
    """The id itself, if it is one. Raises MalformedError."""
    if not SLUG.fullmatch(slug):
        raise MalformedError(
            f"{field} {slug!r} is not an id: 1 to 63 of a-z, 0-9 and -, a letter first, no - at the end",
            reason="MALFORMED_ID",
            field=field,
        )
    return slug


def slug_of(display_name: str, field: str) -> str:
    """An id from a display name: "Größe Süd 2" gives `groe-sud-2`. Raises MalformedError if nothing is left."""
    letters = unicodedata.normalize("NFKD", display_name).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", letters).lstrip("0123456789-")
    slug = words[:SLUG_LENGTH_MAX].rstrip("-")
    if not slug:
        raise MalformedError(
            f"no id can be made from {display_name!r}: give one in {field}", reason="MALFORMED_ID", field=field
        )
    return slug


def chosen_slug(slug: str, display_name: str, field: str) -> str:
    """The id that somebody chose, or one from the display name."""
    return check_slug(slug, field) if slug else slug_of(display_name, field)


def split_parent(parent: str) -> tuple[str, str, str]:
    """(organisation, "groups" or "environments" or "", id) of a resource name. Raises MalformedError."""
    found = _PARENT.fullmatch(parent)
    if found is None:
        raise MalformedError(
            f"{parent!r} is not `organizations/ID`, `organizations/ID/groups/ID` or `organizations/ID/environments/ID`",
            reason="MALFORMED_NAME",
            field="parent",
        )
    organisation, kind, name = found.groups()
    return organisation, kind or "", name or ""


def split_agent(name: str) -> tuple[str, str, str]:
    """(organisation, group, agent) of an agent's resource name. Raises MalformedError."""
    found = _AGENT.fullmatch(name)
    if found is None:
        raise MalformedError(
            f"{name!r} is not `organizations/ID/groups/ID/agents/ID`", reason="MALFORMED_NAME", field="name"
        )
    return found[1], found[2], found[3]


def split_job(name: str) -> tuple[str, bytes]:
    """(organisation, the 16 bytes of the job id) of a job's resource name. Raises MalformedError."""
    found = _JOB.fullmatch(name)
    if found is None:
        raise MalformedError(
            f"{name!r} is not `organizations/ID/jobs/UUID` with a UUID of 36 characters",
            reason="MALFORMED_NAME",
            field="name",
        )
    return found[1], UUID(found[2]).bytes
