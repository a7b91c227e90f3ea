"""A job that was submitted, as a value that can be awaited.

    job = await mesh.submit("files.csv_to_sql", json={"source": "orders.csv"})
    result = await job

A future asks for nothing until somebody waits for it. Futures of one client that are waited for share few streams
(`mesh_client.outcomes`), and outlive a broker that is restarted.
"""

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterable
from typing import TYPE_CHECKING, Final

from mesh_client.errors import JobCancelledError, JobDeadError, JobFailedError, MeshTimeoutError
from mesh_client.jobs import JobResult, JobState, JobView, SubmittedJob
from mesh_client.outcomes import Outcomes

if TYPE_CHECKING:
    from mesh_client.client import MeshClient

ERRORS: Final = {JobState.DEAD: JobDeadError, JobState.CANCELLED: JobCancelledError}


def error_of_job(view: JobView) -> JobFailedError | None:
    """Why a final job has no result, None if it succeeded."""
    if view.state is JobState.SUCCEEDED:
        return None
    kind = ERRORS.get(view.state, JobFailedError)
    if view.failure is None:
        return kind(view.job_id, view.operation, view.state)
    failure = view.failure
    return kind(
        view.job_id,
        view.operation,
        view.state,
        code=failure.code,
        message=failure.message,
        retryable=failure.retryable,
    )


def result_of_job(view: JobView) -> JobResult:
    """What a final job produced, empty if nothing. Raises JobFailedError if it did not succeed."""
    error = error_of_job(view)
    if error is not None:
        raise error
    return view.result or JobResult(b"")


class JobFuture:
    """One job. `await` gives its result, or raises JobFailedError if it did not succeed.

    `job_id`, `job_key` and `duplicate` are those of the submission. Giving up waiting (a time limit, a cancelled task)
    leaves the job alone; `cancel` is what stops it.
    """

    __slots__ = ("_client", "_outcomes", "_view", "duplicate", "job_id", "job_key")

    def __init__(self, client: "MeshClient", outcomes: Outcomes, submitted: SubmittedJob) -> None:
        self._client = client
        self._outcomes = outcomes
        self._view: JobView | None = None
        self.job_id = submitted.job_id
        self.job_key = submitted.job_key
        self.duplicate = submitted.duplicate

    def __repr__(self) -> str:
        return f"<JobFuture {self.job_id} {self._view.state if self._view is not None else 'pending'}>"

    def __await__(self) -> Generator[object, object, JobResult]:
        return self.result().__await__()

    @property
    def done(self) -> bool:
        """Whether it is known here that the job is final; only waiting finds that out."""
        return self._view is not None

    async def result(self, timeout_s: float | None = None) -> JobResult:
        """What the job produced. Raises JobFailedError, MeshTimeoutError, MeshClientError."""
        return result_of_job(await self.outcome(timeout_s))

    async def outcome(self, timeout_s: float | None = None) -> JobView:
        """The job when it is final, however it ended. Raises MeshTimeoutError, MeshClientError."""
        if self._view is not None:
            return self._view
        try:
            async with asyncio.timeout(timeout_s):
                self._view = await self._final()
        except TimeoutError as error:
            text = f"job {self.job_id} is not final after {timeout_s:g} s"
            raise MeshTimeoutError(text, details={"pending": self.job_id}) from error
        return self._view

    async def status(self) -> JobView:
        """The job as it is now."""
        return self._view or await self._client.get(self.job_id)

    async def cancel(self) -> JobView:
        """Cancel the job. Raises WrongStateError if it has ended otherwise."""
        return await self._client.cancel(self.job_id)

    async def _final(self) -> JobView:
        if not self.job_key:
            # Somebody else's word that there is such a job: an unknown one would never end.
            view = await self._client.get(self.job_id)
            self.job_key = view.job_key
            if view.is_final:
                return view
        return await self._outcomes.final(self.job_id)


async def as_completed(jobs: Iterable[JobFuture]) -> AsyncGenerator[JobFuture, None]:
    """The jobs in the order in which they end, each done. Raises MeshClientError when no broker answers."""
    ended: asyncio.Queue[asyncio.Task[JobFuture]] = asyncio.Queue()

    async def end(job: JobFuture) -> JobFuture:
        await job.outcome()
        return job

    tasks = [asyncio.create_task(end(job), name="as-completed") for job in jobs]
    try:
        for task in tasks:
            task.add_done_callback(ended.put_nowait)
        for _ in tasks:
            yield (await ended.get()).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
