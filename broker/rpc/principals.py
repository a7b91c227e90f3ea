"""Who calls on the mesh port: the one function that knows, so that certificates can take the place of what is here.

Until they do there is only `--dev`: call metadata, believed as it is, which is why such a broker listens on loopback
only (`broker.settings`) and no other broker starts (`broker.app`).
"""

from typing import Any, Final, NamedTuple

import grpc.aio

from broker.control.names import SLUG
from broker.errors import DeniedError

IDENTITY_KEY: Final = "mesh-dev-identity"


class AgentPrincipal(NamedTuple):
    """An agent that is who it says: the ids of its organisation, its group and itself."""

    organisation: str
    group: str
    agent: str


def principal_of(context: grpc.aio.ServicerContext[Any, Any]) -> AgentPrincipal:
    """The agent that calls. Raises DeniedError, reason UNAUTHENTICATED."""
    metadata = context.invocation_metadata() or ()
    identities = [value for key, value in metadata if key == IDENTITY_KEY]
    if len(identities) != 1 or not isinstance(identities[0], str):
        raise _denied(f"call metadata must hold {IDENTITY_KEY}: <organisation>/<group>/<agent> once")
    parts = identities[0].split("/")
    if len(parts) != 3 or not all(SLUG.fullmatch(part) for part in parts):
        raise _denied(f"{IDENTITY_KEY} {identities[0]!r} is not <organisation>/<group>/<agent>, each an id")
    return AgentPrincipal(*parts)


def _denied(text: str) -> DeniedError:
    return DeniedError(text, reason="UNAUTHENTICATED")
