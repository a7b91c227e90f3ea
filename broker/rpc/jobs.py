"""The job service: submitting, reading, following and steering jobs.

Submissions are converted, handed to the engine and answered after the commit; nothing here waits a job at a time.
A stream of batches is read ahead of its answers only so far (`STREAM_BATCHES_MAX`, and jobs and payloads of all streams
together within half of the engine's mailbox): beyond that it is not read, and gRPC's flow control holds the submitter.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

import grpc.aio
from google.rpc import status_pb2

from broker.control.acts import ACTOR
from broker.control.directory import Directory, Target
from broker.control.names import split_job, split_parent
from broker.control.policies import Policies
from broker.dispatch import reasons
from broker.dispatch.explain import explain_final, explain_job
from broker.dispatch.messages import (
    CancelRequested,
    HeldDecision,
    HeldResolved,
    JobAccepted,
    JobSubmitted,
    Reply,
    RequestRefused,
)
from broker.dispatch.model import FINAL_STATES, NO_JOB, GroupNo, JobKey, JobState
from broker.engine import Engine
from broker.errors import (
    MalformedError,
    MeshError,
    NotFoundError,
    StoppingError,
    StoreBusyError,
    WrongStateError,
)
from broker.rpc.job_bulk import REPEATABLE, JobBulk
from broker.rpc.job_convert import COMMENT, job_of, put_history, repeat_of, submission_of, uuid_text
from broker.rpc.job_query import JobFilters, continued, token_of
from broker.rpc.pages import PAGE_SIZE_DEFAULT
from broker.rpc.room import Room
from broker.rpc.status import InvalidMessageError, error_of, status_of
from broker.rpc.turns import FUTILE, Turns, slices
from broker.rpc.watch import JobFeed, Watcher
from broker.settings import Settings
from broker.store.base import JobRecord, Store, SubmissionLookup
from protos.mesh.v1 import job_pb2, job_service_pb2_grpc
from protos.mesh.v1 import job_service_pb2 as pb

STREAM_BATCHES_MAX: Final = 16
"""Batches of one submit stream that are under way at the same time."""
WATCH_JOBS_MAX: Final = 500
"""Jobs in one message of a watch."""
LOOKUPS_MAX: Final = 1_000
NO_GROUP: Final = GroupNo(0)
DECISIONS: Final = {
    pb.HELD_RESOLUTION_RETRY: HeldDecision.RETRY,
    pb.HELD_RESOLUTION_FAIL: HeldDecision.FAIL,
    pb.HELD_RESOLUTION_SUCCEED: HeldDecision.SUCCEED,
}

Context = grpc.aio.ServicerContext[Any, Any]


class Names:
    """Numbers of a record to the names that people know."""

    def __init__(self, directory: Directory) -> None:
        self.group_name = directory.group_name
        self.environment_name = directory.environment_name
        self.agent_id = directory.agent_id


class JobService(job_service_pb2_grpc.JobServiceServicer):
    """Serves `mesh.v1.JobService` on the API port."""

    def __init__(
        self, engine: Engine, directory: Directory, store: Store, feed: JobFeed, settings: Settings, turns: Turns
    ) -> None:
        self._engine = engine
        self._directory = directory
        self._store = store
        self._feed = feed
        self._limits = settings.limits
        self._turns = turns
        self._policies = Policies(engine, settings, directory.group_row)
        self._names = Names(directory)
        limits = settings.limits
        self._room = Room(limits.mailbox_submissions // 2, limits.mailbox_bytes_max // 2)
        self._filters = JobFilters(directory)
        self._bulk = JobBulk(engine, store, self._filters, self._policies, self._room)
        self.refused: Counter[tuple[GroupNo, str]] = Counter()
        """Jobs that were not accepted, by group (0: it is not known which was meant) and reason."""
        self._is_stopping = False

    def stop_accepting(self) -> None:
        """Refuse submissions from now on; all else goes on."""
        self._is_stopping = True

    # --- submitting -------------------------------------------------------------------------------------------------

    async def SubmitJobs(self, request: pb.SubmitJobsRequest, context: Context) -> pb.SubmitJobsResponse:
        """Accept a batch; answered after its commit."""
        response = pb.SubmitJobsResponse()
        await self._submit(request, response.results, context.peer(), asyncio.Lock())
        return response

    async def SubmitStream(
        self, request_iterator: AsyncIterator[pb.SubmitStreamRequest], context: Context
    ) -> AsyncIterator[pb.SubmitStreamResponse]:
        """Batches as they come, accepted in their order, each answered after its commit, whichever is first."""
        answers: asyncio.Queue[pb.SubmitStreamResponse | Exception | None] = asyncio.Queue()
        window = asyncio.Semaphore(STREAM_BATCHES_MAX)
        reader = asyncio.create_task(
            self._read_batches(request_iterator, answers, window, context.peer()), name="submit-stream"
        )
        try:
            while (answer := await answers.get()) is not None:
                if isinstance(answer, Exception):
                    raise answer
                yield answer
                # Only when it is written: a submitter that does not read its answers is not read either.
                window.release()
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader

    async def _read_batches(
        self,
        requests: AsyncIterator[pb.SubmitStreamRequest],
        answers: "asyncio.Queue[pb.SubmitStreamResponse | Exception | None]",
        window: asyncio.Semaphore,
        source: str,
    ) -> None:
        """Read until the submitter has said all or an error ends the stream; leave when all is answered."""
        try:
            failure = await self._pump(requests, answers, window, source)
        except Exception as error:  # noqa: BLE001 - raised again where the call is answered
            failure = error
        answers.put_nowait(failure)

    async def _pump(
        self,
        requests: AsyncIterator[pb.SubmitStreamRequest],
        answers: "asyncio.Queue[pb.SubmitStreamResponse | Exception | None]",
        window: asyncio.Semaphore,
        source: str,
    ) -> Exception | None:
        failure: Exception | None = None
        order = asyncio.Lock()
        async with asyncio.TaskGroup() as batches:
            while True:
                await window.acquire()
                try:
                    request = await anext(requests)
                except StopAsyncIteration:
                    break
                except InvalidMessageError as error:
                    if not isinstance(error.message, pb.SubmitStreamRequest):
                        failure = error  # it has no number that an answer could name
                        break
                    self.count_invalid(error)
                    refused = pb.SubmitStreamResponse(batch_seq=error.message.batch_seq, error=status_of(error))
                    answers.put_nowait(refused)
                    continue
                jobs = len(request.batch.jobs)
                size = sum([len(job.payload) for job in request.batch.jobs])
                await self._room.enter(jobs, size)
                answering = batches.create_task(self._answer(request, answers, source, order))
                # Not in the task: one that is cancelled before its first step never runs.
                answering.add_done_callback(partial(self._leave, jobs, size))
        return failure

    def _leave(self, jobs: int, size: int, _: "asyncio.Task[None]") -> None:
        self._room.leave(jobs, size)

    async def _answer(
        self,
        request: pb.SubmitStreamRequest,
        answers: "asyncio.Queue[pb.SubmitStreamResponse | Exception | None]",
        source: str,
        order: asyncio.Lock,
    ) -> None:
        response = pb.SubmitStreamResponse(batch_seq=request.batch_seq)
        try:
            await self._submit(request.batch, response.results, source, order)
        except Exception as error:  # noqa: BLE001 - one batch must not end the others
            response.ClearField("results")
            response.error.CopyFrom(status_of(error))
        answers.put_nowait(response)

    def count_invalid(self, error: InvalidMessageError) -> None:
        """Jobs of a message that breaks the rules of the contract are refused before anybody looks at them."""
        message = error.message
        if isinstance(message, pb.SubmitStreamRequest):
            message = message.batch
        if isinstance(message, pb.SubmitJobsRequest):
            self.refused[NO_GROUP, error.reason] += len(message.jobs)

    async def _submit(self, request: pb.SubmitJobsRequest, results: Any, source: str, order: asyncio.Lock) -> None:
        """Add one result a job, in order; sources are served in turns.

        Those that share `order` are offered to the engine in the order in which they came for it (promise P9).
        Raises MeshError if the batch as a whole is refused.
        """
        group = NO_GROUP
        try:
            target = self._directory.target(request.parent)
            group = target.group_no
            await self._submit_to(target, request, results, source, order)
        except MeshError as error:
            self.refused[group, error.reason] += len(request.jobs)
            raise

    async def _submit_to(
        self, target: Target, request: pb.SubmitJobsRequest, results: Any, source: str, order: asyncio.Lock
    ) -> None:
        self._refuse_when_away()
        group = target.group_no
        events: list[JobSubmitted | MalformedError] = []
        async with order:  # else a batch of few slices would overtake those before it
            for specs in slices(request.jobs):
                await self._turns.take(source, len(specs))
                events += self._events_of(specs, target)
        # The next one goes on only when this one waits, and it does not before it has offered its jobs.
        good = [event for event in events if type(event) is JobSubmitted]
        if request.validate_only:
            replies: list[Reply] = [JobAccepted(0, JobKey(0)) for _ in good]
        else:
            replies = await self._engine.submit(group, good, source) if good else []
        reply_of, earlier = iter(replies), list[tuple[pb.SubmitResult, JobKey]]()
        dear = FUTILE * sum(type(reply) is RequestRefused for reply in replies)
        for answered in slices(zip(request.jobs, events, strict=True)):
            await self._turns.take(source, len(answered) + dear)
            dear = 0
            earlier += self._put_results(group, answered, reply_of, results)
        if earlier:
            await self._name_earlier(earlier)

    def _events_of(self, specs: Iterable[pb.JobSpec], target: Target) -> list[JobSubmitted | MalformedError]:
        """What is to be submitted, or what is wrong with it."""
        policies = self._policies.in_group(target.group_no)
        now_us = self._engine.clock.now_us()
        payload_bytes_max = self._limits.payload_bytes_max
        environment_no, ticket = target.environment_no, self._engine.ticket
        events: list[JobSubmitted | MalformedError] = []
        for spec in specs:
            try:
                policy = policies.of(spec.operation)
                events.append(submission_of(spec, ticket(), policy, environment_no, now_us, payload_bytes_max))
            except MalformedError as error:
                events.append(error)
        return events

    def _put_results(
        self,
        group: GroupNo,
        answered: Iterable[tuple[pb.JobSpec, JobSubmitted | MalformedError]],
        reply_of: Iterator[Reply],
        results: Any,
    ) -> Iterator[tuple[pb.SubmitResult, JobKey]]:
        """Add one each; gives those that were accepted earlier under a business key."""
        refusals: dict[tuple[str, str], status_pb2.Status] = {}  # a queue that is full refuses all in the same words
        for spec, event in answered:
            if isinstance(event, MalformedError):
                results.add(job_id=spec.job_id, error=self._refuse(group, event))
                continue
            reply = next(reply_of)
            if type(reply) is JobAccepted:
                result = results.add(job_id=event.job_id, job_key=reply.job_key, duplicate=reply.duplicate)
                if reply.duplicate and event.idempotency_key:
                    yield result, reply.job_key
            else:
                assert isinstance(reply, RequestRefused)
                said = reply.reason, reply.text
                if said not in refusals:
                    refusals[said] = status_of(error_of(reply))
                self.refused[group, reply.reason] += 1
                results.add(job_id=event.job_id, error=refusals[said])

    def _refuse(self, group: GroupNo, error: MeshError) -> status_pb2.Status:
        """The status of one job that is refused; counted."""
        self.refused[group, error.reason] += 1
        return status_of(error)

    async def _name_earlier(self, earlier: Sequence[tuple[pb.SubmitResult, JobKey]]) -> None:
        """A job found by its business key keeps the id under which it was accepted first."""
        found = await self._store.records([key for _, key in earlier])
        ids = {record.row.job_key: record.row.job_id for record in found}
        for result, key in earlier:
            result.job_id = ids.get(key, result.job_id)

    def _refuse_when_away(self) -> None:
        if self._is_stopping:
            raise StoppingError("this broker is stopping and takes no more jobs; submit again in a moment")
        if self._engine.is_stalled:
            text = "the store takes nothing at present; submit again in a moment"
            raise StoreBusyError(text, reason="STORE_UNAVAILABLE")

    # --- reading ----------------------------------------------------------------------------------------------------

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> job_pb2.Job:
        """One job; in the full view with its result and all that happened to it."""
        record = await self._find(request.name)
        if request.view == pb.JOB_VIEW_BASIC:
            return await self._shown(JobRecord(record.row, record.idempotency_key, record.labels))
        job = await self._shown(record)
        put_history(job, record, self._names)
        return job

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        """A page of an organisation's jobs."""
        said = request.parent, request.filter, request.order_by
        query = continued(self._filters.query(*said), request.page_token, *said)
        page = await self._store.jobs(replace(query, limit=request.page_size or PAGE_SIZE_DEFAULT))
        jobs = await self._all_shown(page.records)
        return pb.ListJobsResponse(jobs=jobs, next_page_token=token_of(query, page.next, *said))

    async def _find(self, name: str) -> JobRecord:
        organisation, job_id = split_job(name)
        record = await self._store.job(self._directory.groups_of(organisation), job_id)
        if record is None:
            raise NotFoundError(f"there is no job {uuid_text(job_id)}", reason="JOB_NOT_FOUND", resource=name)
        return record

    async def _shown(self, record: JobRecord) -> job_pb2.Job:
        return (await self._all_shown([record]))[0]

    async def _all_shown(self, records: Sequence[JobRecord]) -> list[job_pb2.Job]:
        """Jobs for readers, each with the id of the one that it repeats, as far as that is kept."""
        jobs = [job_of(record, self._names) for record in records]
        repeated = {record.row.requeued_from for record in records} - {NO_JOB}
        if repeated:
            found = await self._store.records(sorted(repeated))
            ids = {one.row.job_key: uuid_text(one.row.job_id) for one in found}
            for job, record in zip(jobs, records, strict=True):
                job.requeued_from = ids.get(record.row.requeued_from, "")
        return jobs

    # --- following --------------------------------------------------------------------------------------------------

    async def WatchJobs(self, request: pb.WatchJobsRequest, context: Context) -> AsyncIterator[pb.WatchJobsResponse]:
        """Each change after its commit. First come the states of `job_ids` now, or else where the watch begins."""
        groups = self._watched_groups(request.parent)
        wanted = frozenset(request.job_ids)
        watcher = await self._feed.watch(frozenset(groups), self._limits.watch_queue_max, request.resume_token)
        try:
            await context.send_initial_metadata(())
            known: set[JobKey] = set()
            if wanted:
                known = await self._keys_of(groups, wanted)
                watcher.narrow(known, wants_new=len(known) < len(wanted))
                async for response in self._present(sorted(known), watcher):
                    yield response
            elif not request.resume_token:  # whoever stops before anything changes can go on from here
                yield self._told((), watcher, is_gap=False)
            while True:
                keys, is_gap = await watcher.take(WATCH_JOBS_MAX)
                records = await self._changed(keys, wanted, known, watcher)
                if records or is_gap:
                    yield self._told(records, watcher, is_gap=is_gap)
        finally:
            self._feed.leave(watcher)

    def _watched_groups(self, parent: str) -> tuple[GroupNo, ...]:
        organisation, kind, name = split_parent(parent)
        if kind == "environments":
            text = f"{parent!r} cannot be watched: give an organization or a group"
            raise MalformedError(text, reason="MALFORMED_NAME", field="parent")
        if kind:
            return (self._directory.group(organisation, name).group_no,)
        return self._directory.groups_of(organisation)

    async def _keys_of(self, groups: Iterable[GroupNo], job_ids: Iterable[bytes]) -> set[JobKey]:
        lookups = [SubmissionLookup(group, job_id, "") for group in groups for job_id in job_ids]
        found: set[JobKey] = set()
        for start in range(0, len(lookups), LOOKUPS_MAX):
            known = await self._store.find_submissions(lookups[start : start + LOOKUPS_MAX])
            found.update(one.job_key for one in known if one is not None)
        return found

    async def _present(self, keys: Sequence[JobKey], watcher: Watcher) -> AsyncIterator[pb.WatchJobsResponse]:
        """At least one message, also when there is no such job yet."""
        for start in range(0, max(1, len(keys)), WATCH_JOBS_MAX):
            records = await self._store.records(keys[start : start + WATCH_JOBS_MAX])
            yield self._told(records, watcher, is_gap=False)

    async def _changed(
        self, keys: Sequence[JobKey], wanted: frozenset[bytes], known: set[JobKey], watcher: Watcher
    ) -> list[JobRecord]:
        records = await self._store.records(keys) if keys else []
        if not wanted or not watcher.wants_new:
            return records
        records = [record for record in records if record.row.job_id in wanted]
        known.update(record.row.job_key for record in records)
        watcher.narrow(known, wants_new=len(known) < len(wanted))
        return records

    def _told(self, records: Iterable[JobRecord], watcher: Watcher, *, is_gap: bool) -> pb.WatchJobsResponse:
        jobs = [job_of(record, self._names) for record in records]
        return pb.WatchJobsResponse(jobs=jobs, resume_token=str(watcher.taken_seq), gap=is_gap)

    # --- steering ---------------------------------------------------------------------------------------------------

    async def CancelJob(self, request: pb.CancelJobRequest, context: Context) -> pb.CancelJobResponse:
        """Cancel a job that is not final. Cancelling what is cancelled already is no error."""
        record = await self._find(request.name)
        row = record.row
        is_done = False
        if row.state not in FINAL_STATES:
            reply = await self._engine.ask(row.group_no, lambda ticket: CancelRequested(ticket, row.job_key, ACTOR))
            is_done = not isinstance(reply, RequestRefused)
            record = await self._find(request.name)
        if not is_done and record.row.state != JobState.CANCELLED:
            text = f"job {uuid_text(row.job_id)} is {record.row.state}; what is final stays as it is"
            raise WrongStateError(text, reason=reasons.JOB_FINAL, resource=request.name, state=record.row.state)
        return pb.CancelJobResponse(job=await self._shown(record))

    async def CancelJobs(self, request: pb.CancelJobsRequest, context: Context) -> pb.CancelJobsResponse:
        """Cancel the next slice of many jobs."""
        return await self._bulk.cancel(request)

    async def RequeueJobs(self, request: pb.RequeueJobsRequest, context: Context) -> pb.RequeueJobsResponse:
        """Repeat the next slice of many jobs."""
        if not request.validate_only:
            self._refuse_when_away()
        return await self._bulk.requeue(request)

    async def RequeueJob(self, request: pb.RequeueJobRequest, context: Context) -> job_pb2.Job:
        """Make a new job from one that did not succeed; it goes to the group that had it."""
        record = await self._find(request.name)
        group_no, state = record.row.group_no, record.row.state
        if state not in REPEATABLE:
            text = f"job {uuid_text(record.row.job_id)} is {state}; only what is failed, dead or cancelled is requeued"
            raise WrongStateError(text, reason="JOB_NOT_REQUEUABLE", resource=request.name, state=state)
        self._refuse_when_away()
        policy = self._policies.in_group(group_no).of(record.row.operation)
        repeat = repeat_of(record, self._engine.ticket(), policy)
        (reply,) = await self._engine.submit(group_no, [repeat])
        if isinstance(reply, RequestRefused):
            raise error_of(reply)
        organisation, _ = split_job(request.name)
        return await self._shown(await self._find(f"organizations/{organisation}/jobs/{uuid_text(repeat.job_id)}"))

    async def ResolveHeldJob(self, request: pb.ResolveHeldJobRequest, context: Context) -> job_pb2.Job:
        """Carry out what a person decides about a held job. The comment stays with who decided, and with the job."""
        row = (await self._find(request.name)).row
        decision = DECISIONS[request.resolution]
        actor = f"{ACTOR}{COMMENT}{request.comment}" if request.comment else ACTOR
        reply = await self._engine.ask(
            row.group_no, lambda ticket: HeldResolved(ticket, row.job_key, decision, actor, request.comment)
        )
        record = await self._find(request.name)
        if isinstance(reply, RequestRefused):
            text = f"job {uuid_text(row.job_id)} is {record.row.state}; only about a held job something is to decide"
            raise WrongStateError(text, reason=reply.reason, resource=request.name, state=record.row.state)
        return await self._shown(record)

    async def ExplainJob(self, request: pb.ExplainJobRequest, context: Context) -> pb.ExplainJobResponse:
        """Why the job is where it is, by the books that decide about it."""
        row = (await self._find(request.name)).row
        said = None
        if row.state not in FINAL_STATES:
            said = explain_job(self._engine.dispatcher(row.group_no).ledger, row.job_key)
        if said is None:  # final since it was read, if not before
            said = explain_final((await self._find(request.name)).row)
        response = pb.ExplainJobResponse(summary=said.summary, next_step=said.next_step)
        for verdict in said.verdicts:
            agent = self._directory.agent_id(row.group_no, verdict.agent)
            response.agents.add(agent=agent, eligible=verdict.can_take, reason=verdict.why)
        return response
