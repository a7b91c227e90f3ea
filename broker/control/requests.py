"""Requests that make something, made once: the same request id again is answered with what it made (AIP-155).

An id is the caller's, unique in its organisation (of organisations: in the mesh). What it made is written in the
transaction that makes it, so a caller who lost the answer, or whose broker died, asks again and learns the truth. It is
remembered as long as keys of jobs are, and of the newest requests only (`REQUESTS_MAX` of an organisation).
"""

from typing import Final, NamedTuple

from broker.dispatch.model import GroupNo
from broker.dispatch.rows import RequestRow
from broker.engine import Engine
from broker.errors import ConflictError, NotFoundError
from broker.store.base import Store

NO_GROUP: Final = GroupNo(0)
NO_NUMBER: Final = 0


class Asked(NamedTuple):
    """The id that a caller gave to a request ("": none), a digest of what it says, and whether that is only checked."""

    request_id: str = ""
    digest: bytes = b""
    validate_only: bool = False


ANONYMOUS: Final = Asked()
CHECK_ONLY: Final = Asked(validate_only=True)


class Requests:
    """What requests have made. Ask and make in one turn."""

    def __init__(self, store: Store, engine: Engine) -> None:
        self._store = store
        self._engine = engine

    async def known(self, org_no: int, asked: Asked) -> RequestRow | None:
        """What this request has made already. Raises ConflictError if the id was another request's."""
        if not asked.request_id:
            return None
        found = await self._store.find_request(org_no, asked.request_id, self._engine.clock.now_us())
        if found is not None and found.digest != asked.digest:
            text = f"request id {asked.request_id} was used for another request; choose a new one"
            raise ConflictError(text, reason="REQUEST_ID_REUSED", request_id=asked.request_id)
        return found

    def row(self, org_no: int, asked: Asked, kind: str, group_no: GroupNo = NO_GROUP) -> RequestRow | None:
        """What to remember of a request that makes something of this kind; the number is put in when there is one."""
        if not asked.request_id:
            return None
        expires_us = self._engine.clock.now_us() + self._engine.policy.keys_us
        return RequestRow(org_no, asked.request_id, asked.digest, kind, group_no, NO_NUMBER, expires_us)


def gone(asked: Asked) -> NotFoundError:
    """The error for a request whose work was removed since: to make it again unasked would be a surprise."""
    text = f"what request {asked.request_id} has made was removed since; choose a new request id to make it again"
    return NotFoundError(text, request_id=asked.request_id)
