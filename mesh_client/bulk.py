"""Finding jobs, and acting on many of them: what operators do after something went wrong."""

from collections.abc import AsyncIterator, Iterable
from typing import Literal, Unpack

from mesh_client.connection import Connection
from mesh_client.convert import cancelled_slice, choice_filter, job_view, requeued_slice
from mesh_client.jobs import BulkSlice, JobChoice, JobView
from mesh_client.names import organization_name
from mesh_client.pages import paged
from protos.mesh.v1 import job_service_pb2 as pb

JobOrder = Literal["accepted_at", "accepted_at desc", "finished_at", "finished_at desc"]


class BulkCalls:
    """Calls about many jobs of one organization. All raise MeshClientError."""

    _connection: Connection
    organization: str

    def list(
        self, *, order_by: JobOrder | None = None, limit: int | None = None, **choice: Unpack[JobChoice]
    ) -> AsyncIterator[JobView]:
        """Jobs of the organization, newest first if nothing else is said, all pages, without results.

        A search among very many jobs goes on for as long as it takes: each request looks at a bounded number.
        """
        filter_text = choice_filter(choice)

        async def page(token: str, size: int) -> tuple[Iterable[JobView], str]:
            request = pb.ListJobsRequest(
                parent=organization_name(self.organization),
                page_size=size,
                page_token=token,
                filter=filter_text,
                order_by=order_by or "",
            )
            response = await self._connection.call(self._connection.jobs.ListJobs, request)
            return map(job_view, response.jobs), response.next_page_token

        return paged(page, limit)

    async def cancel_jobs(
        self, *, validate_only: bool = False, resume_token: str = "", **choice: Unpack[JobChoice]
    ) -> AsyncIterator[BulkSlice]:
        """Cancel all jobs that are chosen and not final, slice by slice; `validate_only` counts them.

        Each slice is durable when it is told, and is tried again after a lost answer. Whoever stops reads no more
        slices; what is done stays done, and `resume_token` of the last one goes on.
        """
        stub = self._connection.jobs
        request = pb.CancelJobsRequest(
            parent=organization_name(self.organization),
            filter=choice_filter(choice),
            validate_only=validate_only,
            page_token=resume_token,
        )
        while True:
            done = cancelled_slice(await self._connection.call(stub.CancelJobs, request))
            yield done
            request.page_token = done.resume_token
            if not done.resume_token:
                return

    async def requeue_jobs(
        self, *, validate_only: bool = False, resume_token: str = "", **choice: Unpack[JobChoice]
    ) -> AsyncIterator[BulkSlice]:
        """Make a new job of each that is chosen and dead (or of the `state` failed or cancelled), slice by slice.

        One that was requeued before is passed over, so the same call may be made again. As `cancel_jobs` otherwise.
        """
        stub = self._connection.jobs
        request = pb.RequeueJobsRequest(
            parent=organization_name(self.organization),
            filter=choice_filter(choice),
            validate_only=validate_only,
            page_token=resume_token,
        )
        while True:
            done = requeued_slice(await self._connection.call(stub.RequeueJobs, request))
            yield done
            request.page_token = done.resume_token
            if not done.resume_token:
                return
