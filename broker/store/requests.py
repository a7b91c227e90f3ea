"""What was made by a request, so that the same request again makes nothing: kept for a while, and of few.

A request is remembered in the transaction that makes what it asks for. The batches of the engine and the changes of
administration write it alike, each by its own way to the database.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, select

from broker.dispatch.rows import RequestRow
from broker.store import schema, statements
from broker.store.base import REQUESTS_MAX

_REQUEST = schema.request

Execute = Callable[[str, tuple[object, ...]], Any]


def find(connection: Connection, org_no: int, request_id: str, now_us: int) -> RequestRow | None:
    """What this request of the organisation has made, unless that is forgotten."""
    here = (_REQUEST.c.org_no == org_no) & (_REQUEST.c.request_id == request_id) & (_REQUEST.c.expires_us > now_us)
    found = connection.execute(select(*(_REQUEST.c[name] for name in RequestRow._fields)).where(here)).first()
    return None if found is None else RequestRow._make(found)


def put(execute: Execute, row: RequestRow, at_us: int) -> None:
    """Remember what a request has made; forget those that are past their time, and the oldest of too many."""
    execute(statements.PAST_REQUESTS, (at_us,))
    execute(statements.PUT_REQUEST, row)
    execute(statements.OLD_REQUESTS, (row.org_no, row.org_no, REQUESTS_MAX))
