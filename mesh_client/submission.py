"""How jobs get into the mesh: in batches, each tried with the same job ids until it is answered.

Trying again is safe because a job id is its own idempotency key: a broker that had accepted the job before its answer
was lost says so, and makes no second one.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import grpc
import grpc.aio

from mesh_client.connection import Connection
from mesh_client.convert import spec_message, submitted_job
from mesh_client.errors import (
    REASON_LOST,
    InternalError,
    MalformedError,
    MeshClientError,
    UnavailableError,
    error_of_call,
    error_of_status,
)
from mesh_client.jobs import JobSpec, SubmittedJob
from mesh_client.names import id_text
from mesh_client.retry import Retry
from protos.mesh.v1 import job_service_pb2 as pb

BATCH_JOBS_MAX: Final = 1_024
BATCH_BYTES_MAX: Final = 3 << 20
"""Below the broker's limit of 4 MiB a message, which would end the whole stream."""
LISTEN_FIRST_S: Final = 0.2
"""After a stream whose end nobody could explain: how long the next one may say why before it is written to."""

StreamCall = grpc.aio.StreamStreamCall[pb.SubmitStreamRequest, pb.SubmitStreamResponse]


class Prepared(NamedTuple):
    """A submission, encoded, with its size in bytes on the wire."""

    message: pb.JobSpec
    is_own_id: bool
    size: int


def prepared(spec: JobSpec) -> Prepared:
    """Encode one submission. Raises MalformedError if it cannot be sent."""
    try:
        message = spec_message(spec)
    except (TypeError, ValueError, OverflowError) as error:
        raise MalformedError(f"job {spec.operation!r} cannot be encoded: {error}") from error
    # Tag and length of a repeated field.
    size = message.ByteSize() + 6
    if size > BATCH_BYTES_MAX:
        text = (
            f"job {spec.operation!r} has {size} bytes, more than the {BATCH_BYTES_MAX} of a request; pass a reference"
        )
        raise MalformedError(text, reason="PAYLOAD_TOO_LARGE")
    return Prepared(message, spec.job_id is None, size)


class Batch:
    """Jobs of one request: what is answered, and what has to be sent (again)."""

    def __init__(self, jobs: Sequence[Prepared]) -> None:
        self._jobs = jobs
        self._answers: list[SubmittedJob | None] = [None] * len(jobs)
        self._pending: Sequence[int] = range(len(jobs))

    @property
    def is_answered(self) -> bool:
        """Whether nothing has to be sent again."""
        return not self._pending

    @property
    def answers(self) -> list[SubmittedJob]:
        """One for each job, in order; those without an answer are left out."""
        return [answer for answer in self._answers if answer is not None]

    def request(self, parent: str) -> pb.SubmitJobsRequest:
        """What is not answered yet."""
        return pb.SubmitJobsRequest(parent=parent, jobs=[self._jobs[index].message for index in self._pending])

    def settle(self, results: Sequence[pb.SubmitResult]) -> UnavailableError | None:
        """Take the answer to `request`; the error if some jobs have to be sent again."""
        if len(results) != len(self._pending):
            raise InternalError(f"{len(results)} answers came for {len(self._pending)} jobs; report this as a bug")
        again: list[int] = []
        unavailable = None
        for index, result in zip(self._pending, results, strict=True):
            message, is_own_id, _ = self._jobs[index]
            answer = submitted_job(result, message, is_own_id)
            self._answers[index] = answer
            if isinstance(answer.error, UnavailableError):
                again.append(index)
                unavailable = answer.error
        self._pending = again
        return unavailable

    def refuse(self, error: MeshClientError) -> None:
        """The whole request was refused."""
        for index in self._pending:
            self._answers[index] = SubmittedJob(id_text(self._jobs[index].message.job_id), error=error)
        self._pending = []


def batches(jobs: Iterable[Prepared]) -> Iterator[Batch]:
    """Cut into requests of at most 1,024 jobs and 3 MiB."""
    waiting: list[Prepared] = []
    size = 0
    for job in jobs:
        if waiting and (len(waiting) == BATCH_JOBS_MAX or size + job.size > BATCH_BYTES_MAX):
            yield Batch(waiting)
            waiting, size = [], 0
        waiting.append(job)
        size += job.size
    if waiting:
        yield Batch(waiting)


async def submit_batch(connection: Connection, parent: str, batch: Batch) -> list[SubmittedJob]:
    """Submit one batch. A job that no broker could take until the deadline has the error in its answer.

    Raises MeshClientError if the batch as a whole was refused or no broker answered.
    """
    retry = connection.retry()
    while True:
        response = await connection.call(connection.jobs.SubmitJobs, batch.request(parent), retry=retry)
        unavailable = batch.settle(response.results)
        if unavailable is None:
            return batch.answers
        try:
            await retry.wait(unavailable)
        except UnavailableError:
            return batch.answers


class SubmissionStream:
    """Batches pipelined on one SubmitStream, their answers in the order of submission.

    At most `window` batches are under way, counted until their answers were taken: a slow broker or a slow reader
    slows the source down. While one batch is being written the next one gathers, so a trickle has no delay and a flood
    has full batches. When the stream breaks, what is not answered is sent again on the next.
    """

    def __init__(self, connection: Connection, parent: str, *, window: int, batch_jobs: int) -> None:
        self._connection = connection
        self._parent = parent
        self._window = window
        self._batch_jobs = min(batch_jobs, BATCH_JOBS_MAX)
        self._waiting: deque[Prepared] = deque()
        self._under_way: dict[int, Batch] = {}
        self._sent_seq = 0
        self._listen_first_s = 0.0
        self._source_ended = False
        self._source_failure: Exception | None = None
        self._stream_failure: Exception | None = None
        self._source_may_go = asyncio.Event()
        self._writer_may_go = asyncio.Event()
        self._answered = asyncio.Event()

    async def answers(
        self, specs: AsyncIterable[JobSpec] | Iterable[JobSpec]
    ) -> AsyncGenerator[list[SubmittedJob], None]:
        """The answers, a batch at a time. What the source had given before it failed is answered first."""
        tasks = [
            asyncio.create_task(self._gather(specs), name="submission-source"),
            asyncio.create_task(self._converse_until_done(), name="submission-stream"),
        ]
        try:
            while batch := await self._next_answered():
                yield batch.answers
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _next_answered(self) -> Batch | None:
        while True:
            self._answered.clear()
            seq, oldest = next(iter(self._under_way.items()), (0, None))
            if oldest is not None and oldest.is_answered:
                del self._under_way[seq]
                self._writer_may_go.set()
                return oldest
            if self._stream_failure is not None:
                raise self._stream_failure
            if self._is_written and oldest is None:
                if self._source_failure is not None:
                    raise self._source_failure
                return None
            await self._answered.wait()

    @property
    def _is_written(self) -> bool:
        return self._source_ended and not self._waiting

    async def _gather(self, specs: AsyncIterable[JobSpec] | Iterable[JobSpec]) -> None:
        try:
            if isinstance(specs, AsyncIterable):
                async for spec in specs:
                    await self._put(prepared(spec))
            else:
                for spec in specs:
                    await self._put(prepared(spec))
        except Exception as error:  # noqa: BLE001 - whatever the source raises is raised to the reader
            self._source_failure = error
        finally:
            self._source_ended = True
            self._writer_may_go.set()
            self._answered.set()

    async def _put(self, job: Prepared) -> None:
        self._waiting.append(job)
        self._writer_may_go.set()
        while len(self._waiting) >= 2 * self._batch_jobs:
            self._source_may_go.clear()
            await self._source_may_go.wait()

    async def _converse_until_done(self) -> None:
        retry = self._connection.retry()
        try:
            while True:
                try:
                    return await self._converse(retry)
                except UnavailableError as error:
                    self._listen_first_s = LISTEN_FIRST_S if error.reason == REASON_LOST else 0.0
                    self._extend_when_idle(retry)
                    await retry.wait(error)
        except Exception as error:  # noqa: BLE001 - the reader of the answers gets it
            self._stream_failure = error
            self._answered.set()

    async def _converse(self, retry: Retry) -> None:
        """One stream, from its opening until all is answered. Raises MeshClientError."""
        call = self._connection.jobs.SubmitStream()
        writer = asyncio.create_task(self._write(call, retry), name="submission-writer")
        reader = asyncio.create_task(self._read(call, retry), name="submission-reader")
        try:
            await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_EXCEPTION)
            if not reader.done():
                # The writer failed; why the stream ended is what the reader is about to hear.
                await asyncio.wait({reader}, timeout=1.0)
            for task in (reader, writer):
                if task.done():
                    task.result()
        except grpc.aio.AioRpcError as error:
            raise error_of_call(error, self._connection.target) from error
        except asyncio.InvalidStateError as error:
            raise UnavailableError("the stream ended while a batch was written") from error
        finally:
            writer.cancel()
            reader.cancel()
            call.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)

    async def _write(self, call: StreamCall, retry: Retry) -> None:
        await asyncio.sleep(self._listen_first_s)
        for seq, batch in list(self._under_way.items()):
            if not batch.is_answered:
                await self._send(call, seq, batch)
        while await self._may_write():
            self._extend_when_idle(retry)
            batch = self._cut()
            self._sent_seq += 1
            self._under_way[self._sent_seq] = batch
            await self._send(call, self._sent_seq, batch)
        await call.done_writing()

    def _extend_when_idle(self, retry: Retry) -> None:
        """A source may be silent for longer than a broker may stay away: only what waits for an answer counts."""
        if all(batch.is_answered for batch in self._under_way.values()):
            retry.extend()

    async def _send(self, call: StreamCall, seq: int, batch: Batch) -> None:
        await call.write(pb.SubmitStreamRequest(batch_seq=seq, batch=batch.request(self._parent)))

    async def _may_write(self) -> bool:
        """Wait until there is something to send and room for it; False when all is sent."""
        while not self._is_written:
            self._writer_may_go.clear()
            if self._waiting and len(self._under_way) < self._window:
                return True
            await self._writer_may_go.wait()
        return False

    def _cut(self) -> Batch:
        jobs: list[Prepared] = []
        size = 0
        while self._waiting and len(jobs) < self._batch_jobs and size + self._waiting[0].size <= BATCH_BYTES_MAX:
            size += self._waiting[0].size
            jobs.append(self._waiting.popleft())
        self._source_may_go.set()
        return Batch(jobs)

    async def _read(self, call: StreamCall, retry: Retry) -> None:
        async for response in call:
            batch = self._under_way.get(response.batch_seq)
            if batch is None or batch.is_answered:
                continue
            self._take(batch, response)
            self._answered.set()
            retry.restart()
        if not (self._is_written and all(batch.is_answered for batch in self._under_way.values())):
            raise UnavailableError("the broker ended the stream before all was answered")

    def _take(self, batch: Batch, response: pb.SubmitStreamResponse) -> None:
        if response.HasField("error"):
            error = error_of_status(response.error)
            if isinstance(error, UnavailableError):
                raise error
            batch.refuse(error)
        elif (unavailable := batch.settle(response.results)) is not None:
            raise unavailable
