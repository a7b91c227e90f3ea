"""Cancelling and requeuing many jobs: a slice a call, each durable when it is answered.

The caller goes on with the token of the answer. What a slice did is told once and as a whole; one whose answer was lost
may be asked for again: a job is not cancelled twice, and its repetition has an id that follows from its own, so that
there is one of them only. Jobs that came after the first slice are left alone: a requeued job that fails again at once
would otherwise be met again, for ever.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any, Final

from broker.control.acts import ACTOR
from broker.control.policies import Policies
from broker.dispatch.messages import CancelRequested, JobAccepted, JobSubmitted, RequestDone, RequestRefused
from broker.dispatch.model import FINAL_STATES, GroupNo, JobState
from broker.engine import Engine
from broker.errors import MalformedError, NotFoundError
from broker.rpc.job_convert import repeat_of, uuid_text
from broker.rpc.job_query import JobFilters, continued, token_of
from broker.rpc.room import Room
from broker.rpc.status import error_of, status_of
from broker.store.base import JobQuery, JobRecord, Place, Store
from protos.mesh.v1 import job_service_pb2 as pb

SLICE_JOBS: Final = 200
SLICE_BYTES: Final = 8 << 20
"""Payloads of the jobs that one slice requeues, more only if a single one is larger."""
COUNTED_ROWS: Final = 200_000
"""Rows that one slice of a count looks at."""
LIVE: Final = tuple(state for state in JobState if state not in FINAL_STATES)
REPEATABLE: Final = (JobState.DEAD, JobState.FAILED, JobState.CANCELLED)


class JobBulk:
    """Serves CancelJobs and RequeueJobs."""

    def __init__(self, engine: Engine, store: Store, filters: JobFilters, policies: Policies, room: Room) -> None:
        self._engine = engine
        self._store = store
        self._filters = filters
        self._policies = policies
        self._room = room

    async def cancel(self, request: pb.CancelJobsRequest) -> pb.CancelJobsResponse:
        """Cancel the next jobs that are not final."""
        query = self._query(request, LIVE, LIVE)
        if request.validate_only:
            matched, token = await self._counted(query, request)
            return pb.CancelJobsResponse(matched=matched, next_page_token=token)
        page = await self._store.jobs(query)
        done: list[RequestDone] = []
        replies = await asyncio.gather(*(self._cancel(record) for record in page.records))
        done = [reply for reply in replies if isinstance(reply, RequestDone)]
        cancelled = sum(reply.state == JobState.CANCELLED for reply in done)
        return pb.CancelJobsResponse(
            matched=len(replies),
            cancelled=cancelled,
            stopping=len(done) - cancelled,
            passed_over=len(replies) - len(done),
            next_page_token=_token(query, page.next, request),
        )

    async def _cancel(self, record: JobRecord) -> object:
        row = record.row
        return await self._engine.ask(row.group_no, lambda ticket: CancelRequested(ticket, row.job_key, ACTOR))

    async def requeue(self, request: pb.RequeueJobsRequest) -> pb.RequeueJobsResponse:
        """Make new jobs of the next ones that have gone wrong, each once."""
        query = self._query(request, REPEATABLE, REPEATABLE[:1])
        if request.validate_only:
            matched, token = await self._counted(query, request)
            return pb.RequeueJobsResponse(matched=matched, next_page_token=token)
        page = await self._store.jobs(query)
        records, rest = _cut(page.records)
        next_place = page.next if rest is None else Place(rest.row.accepted_us, rest.row.job_key)
        response = pb.RequeueJobsResponse(matched=len(records), next_page_token=_token(query, next_place, request))
        repeated = await self._store.repeated([record.row.job_key for record in records])
        response.passed_over = len(repeated)
        wanted = [record for record in records if record.row.job_key not in repeated]
        for group_no in sorted({record.row.group_no for record in wanted}):
            of_group = [record for record in wanted if record.row.group_no == group_no]
            await self._requeue(group_no, of_group, response)
        return response

    async def _requeue(self, group_no: GroupNo, records: Sequence[JobRecord], response: pb.RequeueJobsResponse) -> None:
        size = sum(record.row.payload_bytes for record in records)
        # The same room as the submit streams: a slice waits instead of being refused because of others.
        await self._room.enter(len(records), size)
        try:
            repeats = await self._repeats(group_no, records)
            replies = await self._engine.submit(group_no, repeats)
        except NotFoundError as error:  # their group is gone; the others go on
            for record in records:
                response.refused.add(job_id=uuid_text(record.row.job_id), error=status_of(error))
            return
        finally:
            self._room.leave(len(records), size)
        for record, reply in zip(records, replies, strict=True):
            if isinstance(reply, RequestRefused):
                refused = response.refused.add(job_id=uuid_text(record.row.job_id))
                refused.error.CopyFrom(status_of(error_of(reply)))
            elif isinstance(reply, JobAccepted) and reply.duplicate:
                response.passed_over += 1
            else:
                response.requeued += 1

    async def _repeats(self, group_no: GroupNo, records: Sequence[JobRecord]) -> list[JobSubmitted]:
        bodies = await self._store.payloads([record.row.job_key for record in records])
        policies = self._policies.in_group(group_no)
        return [
            repeat_of(
                record._replace(payload=bodies.get(record.row.job_key)),
                self._engine.ticket(),
                policies.of(record.row.operation),
                repeated_id(record.row.job_id),
            )
            for record in records
        ]

    def _query(self, request: Any, may: Sequence[JobState], default: Sequence[JobState]) -> JobQuery:
        """Which jobs, oldest first, of those that were there at the first slice."""
        query = self._filters.query(request.parent, request.filter)
        if not set(query.states) <= set(may):
            text = f"{request.filter!r}: the state must be one of {', '.join(may)}"
            raise MalformedError(text, reason="MALFORMED_FILTER", field="filter", position="1")
        until_us = min(query.accepted.until_us, self._engine.clock.now_us() + 1)
        query = replace(
            query,
            states=query.states or tuple(default),
            accepted=query.accepted._replace(until_us=until_us),
            is_by_finish=False,
            is_ascending=True,
            limit=SLICE_JOBS,
        )
        return continued(query, request.page_token, *_said(request))

    async def _counted(self, query: JobQuery, request: Any) -> tuple[int, str]:
        count = await self._store.count_jobs(replace(query, rows_max=COUNTED_ROWS))
        return count.jobs, _token(query, count.next, request)


def repeated_id(job_id: bytes) -> bytes:
    """The id of the one job that a bulk call makes of this one: a UUID of version 8 that follows from it."""
    made = bytearray(blake2b(b"requeue\0" + job_id, digest_size=16).digest())
    made[6] = made[6] & 0x0F | 0x80
    made[8] = made[8] & 0x3F | 0x80
    return bytes(made)


def _said(request: Any) -> tuple[str, ...]:
    """What a token is bound to: a count's leads nowhere but into the count."""
    return type(request).__name__, str(request.validate_only), request.parent, request.filter


def _token(query: JobQuery, next_place: Place | None, request: Any) -> str:
    return token_of(query, next_place, *_said(request))


def _cut(records: Iterable[JobRecord]) -> tuple[list[JobRecord], JobRecord | None]:
    """As many as a slice may carry, at least one; and the first one that it may not."""
    fitting: list[JobRecord] = []
    size = 0
    for record in records:
        size += record.row.payload_bytes
        if fitting and size > SLICE_BYTES:
            return fitting, record
        fitting.append(record)
    return fitting, None
