"""One operation over many inputs, of which only so many are in the mesh at a time.

An input takes a place when it is read and gives it back when its outcome is taken: the source may be endless, and
whoever takes the outcomes slowly slows it down. Submissions are pipelined on one stream; what is refused because
something is full is tried again as long as other jobs get on.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sized
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar, cast

from mesh_client.errors import FullError, MalformedError, MeshClientError
from mesh_client.futures import JobFuture, error_of_job, result_of_job
from mesh_client.jobs import JobResult, JobSpec, JobView, SpecOptions, SubmittedJob
from mesh_client.outcomes import Outcomes

if TYPE_CHECKING:
    from mesh_client.client import MeshClient

ItemT = TypeVar("ItemT")
CONCURRENCY: Final = 256


@dataclass(slots=True, frozen=True)
class Mapped(Generic[ItemT]):
    """What became of one input. `job` is None if it was refused; `error` says why there is no result."""

    index: int
    item: ItemT
    job_id: str
    job: JobView | None
    error: MeshClientError | None

    @property
    def result(self) -> JobResult:
        """What the job produced. Raises `error`."""
        if self.job is None:
            assert self.error is not None
            raise self.error
        return result_of_job(self.job)


class Progress(NamedTuple):
    """How far a map is; `total` is None if the source has no length."""

    total: int | None
    submitted: int = 0
    succeeded: int = 0
    failed: int = 0

    @property
    def done(self) -> int:
        """Inputs whose outcome is known."""
        return self.succeeded + self.failed


Tell = Callable[[Progress], None]


class _Sent(NamedTuple, Generic[ItemT]):
    number: int
    item: ItemT
    spec: JobSpec


class Mapping(Generic[ItemT]):
    """One run over `items`: bytes are payloads, a JobSpec is sent as it is, all else is encoded as JSON."""

    def __init__(
        self,
        client: "MeshClient",
        outcomes: Outcomes,
        operation: str,
        items: Iterable[ItemT] | AsyncIterable[ItemT],
        options: SpecOptions,
        *,
        concurrency: int,
        ordered: bool,
        tell: Tell,
    ) -> None:
        if "json" in options or "job_id" in options:
            raise MalformedError("give inputs as items; a JobSpec as an item may have a job id", reason="MAP_OPTIONS")
        if concurrency < 1:
            raise MalformedError(f"concurrency = {concurrency}: give 1 or more", reason="MAP_OPTIONS")
        self._client = client
        self._outcomes = outcomes
        self._items = items
        self._base = JobSpec(operation, **options)
        self._is_ordered = ordered
        self._tell = tell
        self._progress = Progress(len(items) if isinstance(items, Sized) else None)
        self._room = asyncio.Semaphore(concurrency)
        self._sent: deque[_Sent[ItemT]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready: dict[int, Mapped[ItemT]] = {}
        self._next_index = 0
        self._is_submitted = False
        self._failure: Exception | None = None
        self._source_failure: Exception | None = None
        self._news = asyncio.Event()

    async def outcomes(self) -> AsyncGenerator[Mapped[ItemT], None]:
        """Each outcome once. What was read before the source failed is waited for first."""
        submitting = asyncio.create_task(self._submit(), name="map-submit")
        try:
            while (mapped := await self._next()) is not None:
                self._room.release()
                yield mapped
        finally:
            tasks = [submitting, *self._tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _next(self) -> Mapped[ItemT] | None:
        while True:
            if self._failure is not None:
                raise self._failure
            index = self._next_index if self._is_ordered else next(iter(self._ready), -1)
            if index in self._ready:
                self._next_index += 1
                return self._ready.pop(index)
            if self._is_submitted and not self._tasks:
                if self._source_failure is not None:
                    raise self._source_failure
                return None
            self._news.clear()
            await self._news.wait()

    # --- submitting -------------------------------------------------------------------------------------------------

    async def _submit(self) -> None:
        stream = cast("AsyncGenerator[SubmittedJob, None]", self._client.submit_stream(self._specs()))
        try:
            async with aclosing(stream) as answers:
                async for answer in answers:
                    self._go_on(submitted=self._progress.submitted + 1)
                    task = asyncio.create_task(self._end(self._sent.popleft(), answer), name="map-outcome")
                    self._tasks.add(task)
                    task.add_done_callback(self._left)
        except Exception as error:  # noqa: BLE001 - whoever takes the outcomes gets it, after them
            self._source_failure = error
        finally:
            self._is_submitted = True
            self._news.set()

    async def _specs(self) -> AsyncGenerator[JobSpec, None]:
        async with aclosing(_each(self._items)) as items:
            for index in range(1 << 62):
                await self._room.acquire()
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    return
                sent = _Sent(index, item, self._spec(item))
                self._sent.append(sent)
                yield sent.spec

    def _spec(self, item: ItemT) -> JobSpec:
        if isinstance(item, JobSpec):
            return item
        if isinstance(item, bytes):
            return replace(self._base, payload=item)
        if item is None:
            return replace(self._base, payload=b"null", content_type=self._base.content_type or "application/json")
        return replace(self._base, json=item)

    # --- outcomes ---------------------------------------------------------------------------------------------------

    async def _end(self, sent: _Sent[ItemT], answer: SubmittedJob) -> None:
        """Wait until the job is final. A refusal is an outcome; a broker that stays away ends the map."""
        try:
            answer = await self._accepted(sent.spec, answer)
            job, error = None, answer.error
            if error is None:
                job = await JobFuture(self._client, self._outcomes, answer).outcome()
                error = error_of_job(job)
        except Exception as failure:  # noqa: BLE001 - whoever takes the outcomes gets it
            self._failure = failure
            return
        self._ready[sent.number] = Mapped(sent.number, sent.item, answer.job_id, job, error)
        if error is None:
            self._go_on(succeeded=self._progress.succeeded + 1)
        else:
            self._go_on(failed=self._progress.failed + 1)

    async def _accepted(self, spec: JobSpec, answer: SubmittedJob) -> SubmittedJob:
        """Submit again what was refused because something is full, for as long as other jobs of this map end."""
        retry = self._outcomes.connection.retry()
        done = self._progress.done
        while isinstance(answer.error, FullError):
            if self._progress.done != done:
                retry.restart()
                done = self._progress.done
            try:
                await retry.wait(answer.error)
            except FullError:
                break
            [answer] = await self._client.submit_many([replace(spec, job_id=answer.job_id)])
        return answer

    def _left(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._news.set()

    def _go_on(self, **changed: int) -> None:
        self._progress = self._progress._replace(**changed)
        self._tell(self._progress)


async def _each(items: Iterable[ItemT] | AsyncIterable[ItemT]) -> AsyncGenerator[ItemT, None]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
