"""The mesh as a submitter and an operator see it, for programs with an event loop."""

import asyncio
import builtins
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence, Sized
from contextlib import AbstractContextManager, aclosing, nullcontext
from types import TracebackType
from typing import Final, Literal, Self, TypeVar, Unpack

from mesh_client.admin import AdminCalls
from mesh_client.bulk import BulkCalls
from mesh_client.connection import Connection
from mesh_client.convert import explanation, job_view
from mesh_client.errors import MalformedError, MeshTimeoutError
from mesh_client.futures import JobFuture, as_completed
from mesh_client.jobs import Explanation, JobChange, JobSpec, JobView, SpecOptions, SubmittedJob
from mesh_client.mapping import CONCURRENCY, Mapped, Mapping, Tell
from mesh_client.names import environment_name, group_name, id_bytes, id_text, job_name, organization_name
from mesh_client.outcomes import Outcomes
from mesh_client.progress import bar
from mesh_client.submission import SubmissionStream, batches, prepared, submit_batch
from mesh_client.watching import Following, Watch, read_job
from protos.mesh.v1 import job_service_pb2 as pb

ItemT = TypeVar("ItemT")

DEFAULT_TARGET: Final = "127.0.0.1:7402"
RETRY_FOR_S: Final = 30.0

RESOLUTIONS: Final = {
    "retry": pb.HELD_RESOLUTION_RETRY,
    "fail": pb.HELD_RESOLUTION_FAIL,
    "succeed": pb.HELD_RESOLUTION_SUCCEED,
}


class MeshClient(AdminCalls, BulkCalls):
    """A client of one broker's API at `target` (`host:port`, or what gRPC takes as a name).

    Jobs go to a `group`, or to an `environment`, which leads to one; without either to the group `default`. While no
    broker answers, what may be repeated is tried for `retry_for_s`; submissions keep their job ids, so that none is
    made twice. All methods raise MeshClientError.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        organization: str = "default",
        group: str | None = None,
        environment: str | None = None,
        retry_for_s: float = RETRY_FOR_S,
    ) -> None:
        if group is not None and environment is not None:
            raise MalformedError("jobs go to a group or to an environment, not to both", reason="TARGET")
        self.organization = organization
        if environment is not None:
            self._parent = environment_name(organization, environment)
        else:
            self._parent = group_name(organization, group or "default")
        self._connection = Connection(target, retry_for_s)
        everywhere = organization_name(organization)
        self._anywhere = Outcomes(self._connection, organization, everywhere)
        # An environment leads to a group that this client does not know.
        self.outcomes = self._anywhere if environment else Outcomes(self._connection, organization, self._parent)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection. Whoever waits for a job is told; the jobs go on. May be called twice."""
        for outcomes in (self.outcomes, self._anywhere):
            await outcomes.close()
        await self._connection.close()

    async def submit(self, operation: str, payload: bytes = b"", **options: Unpack[SpecOptions]) -> JobFuture:
        """Submit one job; it is durable when this returns, and `await` on what is returned gives its result.

        Raises the error if it is refused.
        """
        [submitted] = await self.submit_many([JobSpec(operation, payload, **options)])
        return JobFuture(self, self.outcomes, submitted.accepted())

    def future(self, job_id: str | bytes) -> JobFuture:
        """A job that was submitted before, by whomever. Waiting raises NotFoundError if there is none."""
        return JobFuture(self, self._anywhere, SubmittedJob(id_text(id_bytes(job_id))))

    async def submit_many(self, specs: Iterable[JobSpec]) -> builtins.list[SubmittedJob]:
        """Submit some jobs, at most 1,024 or 3 MiB a request. One answer for each, in order, refused ones with `error`.

        Raises if a request as a whole is refused or no broker answers: requests before it are durable. With job ids
        of your own the same call may then be made again.
        """
        answers: builtins.list[SubmittedJob] = []
        for batch in batches(map(prepared, specs)):
            answers += await submit_batch(self._connection, self._parent, batch)
        return answers

    async def submit_stream(
        self, specs: AsyncIterable[JobSpec] | Iterable[JobSpec], *, window: int = 16, batch_jobs: int = 256
    ) -> AsyncIterator[SubmittedJob]:
        """Submit many jobs with up to `window` batches of `batch_jobs` under way; answers in order, as they come.

        The source is read no faster than the broker accepts and than the answers are taken.
        """
        stream = SubmissionStream(self._connection, self._parent, window=window, batch_jobs=batch_jobs)
        async with aclosing(stream.answers(specs)) as answered:
            async for answers in answered:
                for answer in answers:
                    yield answer

    async def map(
        self,
        operation: str,
        items: Iterable[ItemT] | AsyncIterable[ItemT],
        *,
        concurrency: int = CONCURRENCY,
        ordered: bool = True,
        failures: Literal["raise", "yield"] = "raise",
        progress: bool | Tell = False,
        **options: Unpack[SpecOptions],
    ) -> AsyncIterator[Mapped[ItemT]]:
        """Run an operation over many inputs: bytes are payloads, a JobSpec is sent as it is, all else becomes JSON.

        At most `concurrency` inputs are read ahead of the outcomes that were taken, so `items` may be endless. Outcomes
        come in the order of the inputs, or (`ordered=False`) as they end. A job that fails or is refused raises its
        error, or (`failures="yield"`) is given like the others, with `error`. `progress` True: a bar on a terminal;
        or a function that is called with each Progress.

        Whoever leaves early stops submitting; what is submitted goes on. Raises MeshClientError.
        """
        with _shown(progress, operation, len(items) if isinstance(items, Sized) else None) as tell:
            mapping = Mapping(
                self,
                self.outcomes,
                operation,
                items,
                options,
                concurrency=concurrency,
                ordered=ordered,
                tell=tell,
            )
            async with aclosing(mapping.outcomes()) as outcomes:
                async for mapped in outcomes:
                    if mapped.error is not None and failures == "raise":
                        raise mapped.error
                    yield mapped

    async def as_completed(self, jobs: Iterable[JobFuture], timeout_s: float | None = None) -> AsyncIterator[JobFuture]:
        """The jobs in the order in which they end, each done. Raises MeshTimeoutError if that takes too long."""
        wanted = builtins.list(jobs)
        ends_s = asyncio.get_running_loop().time() + timeout_s if timeout_s is not None else None
        async with aclosing(as_completed(wanted)) as ended:
            while True:
                try:
                    async with asyncio.timeout_at(ends_s):
                        job = await anext(ended)
                except StopAsyncIteration:
                    return
                except TimeoutError as error:
                    late = [job.job_id for job in wanted if not job.done]
                    text = f"{len(late)} of {len(wanted)} jobs are not final after {timeout_s:g} s"
                    raise MeshTimeoutError(text, details={"pending": ",".join(late[:100])}) from error
                yield job

    async def get(self, job_id: str | bytes) -> JobView:
        """One job, with its result when it has one."""
        return await read_job(self._connection, self.organization, job_id)

    async def wait(self, job_ids: Iterable[str | bytes], timeout_s: float | None = None) -> builtins.list[JobView]:
        """The jobs in the order given, when all are final. Raises MeshTimeoutError if that takes too long."""
        wanted = list(job_ids)
        following = Following(self._connection, self.organization, wanted)
        final: dict[bytes, JobView] = {}
        try:
            async with asyncio.timeout(timeout_s), aclosing(following.views()) as views:
                async for view in views:
                    final[id_bytes(view.job_id)] = view
        except TimeoutError as error:
            late = following.pending
            if not late:
                return [final[id_bytes(job_id)] for job_id in wanted]
            which = f"job {late[0]} is" if len(wanted) == 1 else f"{len(late)} of {len(wanted)} jobs are"
            text = f"{which} not final after {timeout_s:g} s"
            raise MeshTimeoutError(text, details={"pending": ",".join(late[:100])}) from error
        return [final[id_bytes(job_id)] for job_id in wanted]

    def follow(self, job_ids: Iterable[str | bytes]) -> AsyncIterator[JobView]:
        """The jobs as they are now and whenever they change, until all are final."""
        return Following(self._connection, self.organization, list(job_ids)).views()

    def watch(
        self, job_ids: Sequence[str | bytes] = (), *, group: str | None = None, resume_token: str = ""
    ) -> AsyncIterator[JobChange]:
        """Changes from now on (or after `resume_token`), for ever: of these jobs, of a group, or of all.

        Goes on by itself when the stream breaks. At most 10,000 job ids. The first change has the jobs as they are, or
        without ids and token no job: its own token says where the watch begins.
        """
        parent = organization_name(self.organization) if group is None else group_name(self.organization, group)
        ids = [id_bytes(job_id) for job_id in job_ids]
        return Watch(self._connection, parent, ids, resume_token).changes()

    async def cancel(self, job_id: str | bytes) -> JobView:
        """Cancel a job: `cancelled` at once, or `cancel_requested` while its agent stops it.

        Raises WrongStateError if it has ended otherwise.
        """
        request = pb.CancelJobRequest(name=job_name(self.organization, job_id))
        return job_view((await self._connection.call(self._connection.jobs.CancelJob, request)).job)

    async def requeue(self, job_id: str | bytes) -> JobView:
        """A new job that repeats one that is failed, dead or cancelled. Raises WrongStateError for any other."""
        request = pb.RequeueJobRequest(name=job_name(self.organization, job_id))
        return job_view(await self._connection.call(self._connection.jobs.RequeueJob, request, is_repeatable=False))

    async def resolve_held(
        self, job_id: str | bytes, resolution: Literal["retry", "fail", "succeed"], comment: str = ""
    ) -> JobView:
        """Decide about a job that is held. Raises WrongStateError if it is not."""
        request = pb.ResolveHeldJobRequest(
            name=job_name(self.organization, job_id), resolution=RESOLUTIONS[resolution], comment=comment
        )
        stub = self._connection.jobs
        return job_view(await self._connection.call(stub.ResolveHeldJob, request, is_repeatable=False))

    async def explain(self, job_id: str | bytes) -> Explanation:
        """Why a job is where it is, and what would move it."""
        request = pb.ExplainJobRequest(name=job_name(self.organization, job_id))
        return explanation(await self._connection.call(self._connection.jobs.ExplainJob, request))


def _shown(progress: bool | Tell, label: str, total: int | None) -> AbstractContextManager[Tell]:
    if callable(progress):
        return nullcontext(progress)
    return bar(label, total) if progress else nullcontext(lambda _: None)
