"""The job service: submitting, reading, following and cancelling jobs.

Submissions are converted, handed to the engine and answered after the commit; nothing here waits a job at a time.
A stream of batches is read ahead of its answers only so far (`STREAM_BATCHES_MAX`, and jobs of all streams together
within the engine's mailbox): beyond that it is not read, and gRPC's flow control holds the submitter.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

import grpc.aio

from broker.control.directory import Directory
from broker.control.filters import conditions_of, once, wrong_value
from broker.control.names import split_job, split_parent
from broker.dispatch.messages import CancelRequested, JobAccepted, JobSubmitted, Reply, RequestRefused
from broker.dispatch.model import AgentNo, GroupNo, JobKey, JobState, OperationPolicy
from broker.engine import Engine
from broker.errors import (
    MalformedError,
    MeshError,
    NotBuiltError,
    NotFoundError,
    StoppingError,
    StoreBusyError,
    WrongStateError,
)
from broker.rpc import pages
from broker.rpc.job_convert import job_of, submission_of, uuid_text
from broker.rpc.status import InvalidMessageError, error_of, status_of
from broker.rpc.watch import JobFeed, Watcher
from broker.settings import Settings
from broker.store.base import JobQuery, JobRecord, Store, SubmissionLookup
from protos.mesh.v1 import job_pb2, job_service_pb2_grpc
from protos.mesh.v1 import job_service_pb2 as pb

STREAM_BATCHES_MAX: Final = 16
"""Batches of one submit stream that are under way at the same time."""
WATCH_JOBS_MAX: Final = 500
"""Jobs in one message of a watch."""
LOOKUPS_MAX: Final = 1_000
FILTER_FIELDS: Final = ("state", "group", "operation", "agent")

Context = grpc.aio.ServicerContext[Any, Any]


class Names:
    """Numbers of a record to the names that people know."""

    def __init__(self, directory: Directory, engine: Engine) -> None:
        self._engine = engine
        self.group_name = directory.group_name
        self.environment_name = directory.environment_name
        self.agent_id = directory.agent_id

    def labels(self, group_no: GroupNo, labels_no: int) -> frozenset[str]:
        """Labels of a numbered set, as `key=value` texts."""
        return self._engine.dispatcher(group_no).ledger.queue.by_no[labels_no].labels


class Room:
    """A number of jobs that may be under way; who comes first gets room first."""

    def __init__(self, jobs_max: int) -> None:
        self._jobs_max = jobs_max
        self._used = 0
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    async def enter(self, jobs: int) -> None:
        """Wait until so many fit. More than there can ever be fit when nothing else is under way."""
        async with self._turn:
            while self._used and self._used + jobs > self._jobs_max:
                self._freed.clear()
                await self._freed.wait()
            self._used += jobs

    def leave(self, jobs: int) -> None:
        """They are answered."""
        self._used -= jobs
        self._freed.set()


class JobService(job_service_pb2_grpc.JobServiceServicer):
    """Serves `mesh.v1.JobService` on the API port."""

    def __init__(self, engine: Engine, directory: Directory, store: Store, feed: JobFeed, settings: Settings) -> None:
        self._engine = engine
        self._directory = directory
        self._store = store
        self._feed = feed
        self._limits = settings.limits
        self._wanted_policy = settings.dispatch.operation_policy()
        self._policies: dict[GroupNo, OperationPolicy] = {}
        self._names = Names(directory, engine)
        self._room = Room(settings.limits.mailbox_submissions // 2)
        self._is_stopping = False

    def stop_accepting(self) -> None:
        """Refuse submissions from now on; all else goes on."""
        self._is_stopping = True

    # --- submitting -------------------------------------------------------------------------------------------------

    async def SubmitJobs(self, request: pb.SubmitJobsRequest, context: Context) -> pb.SubmitJobsResponse:
        """Accept a batch; answered after its commit."""
        response = pb.SubmitJobsResponse()
        await self._submit(request, response.results)
        return response

    async def SubmitStream(
        self, request_iterator: AsyncIterator[pb.SubmitStreamRequest], context: Context
    ) -> AsyncIterator[pb.SubmitStreamResponse]:
        """Batches as they come, each answered after its commit, whichever is first."""
        answers: asyncio.Queue[pb.SubmitStreamResponse | Exception | None] = asyncio.Queue()
        window = asyncio.Semaphore(STREAM_BATCHES_MAX)
        reader = asyncio.create_task(self._read_batches(request_iterator, answers, window), name="submit-stream")
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
    ) -> None:
        """Read until the submitter has said all or an error ends the stream; leave when all is answered."""
        try:
            failure = await self._pump(requests, answers, window)
        except Exception as error:  # noqa: BLE001 - raised again where the call is answered
            failure = error
        answers.put_nowait(failure)

    async def _pump(
        self,
        requests: AsyncIterator[pb.SubmitStreamRequest],
        answers: "asyncio.Queue[pb.SubmitStreamResponse | Exception | None]",
        window: asyncio.Semaphore,
    ) -> Exception | None:
        failure: Exception | None = None
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
                    refused = pb.SubmitStreamResponse(batch_seq=error.message.batch_seq, error=status_of(error))
                    answers.put_nowait(refused)
                    continue
                jobs = len(request.batch.jobs)
                await self._room.enter(jobs)
                answering = batches.create_task(self._answer(request, answers))
                # Not in the task: one that is cancelled before its first step never runs.
                answering.add_done_callback(partial(self._leave, jobs))
        return failure

    def _leave(self, jobs: int, _: "asyncio.Task[None]") -> None:
        self._room.leave(jobs)

    async def _answer(
        self,
        request: pb.SubmitStreamRequest,
        answers: "asyncio.Queue[pb.SubmitStreamResponse | Exception | None]",
    ) -> None:
        response = pb.SubmitStreamResponse(batch_seq=request.batch_seq)
        try:
            await self._submit(request.batch, response.results)
        except Exception as error:  # noqa: BLE001 - one batch must not end the others
            response.ClearField("results")
            response.error.CopyFrom(status_of(error))
        answers.put_nowait(response)

    async def _submit(self, request: pb.SubmitJobsRequest, results: Any) -> None:
        """Add one result a job, in order. Raises MeshError if the batch as a whole is refused."""
        target = self._directory.target(request.parent)
        self._refuse_when_away()
        policy = self._policy(target.group_no)
        now_us = self._engine.clock.now_us()
        payload_bytes_max = self._limits.payload_bytes_max
        events: list[JobSubmitted | MalformedError] = []
        for spec in request.jobs:
            try:
                events.append(submission_of(spec, policy, target.environment_no, now_us, payload_bytes_max))
            except MalformedError as error:
                events.append(error)
        good = [event for event in events if type(event) is JobSubmitted]
        if request.validate_only:
            replies: list[Reply] = [JobAccepted(0, JobKey(0)) for _ in good]
        else:
            replies = await self._engine.submit(target.group_no, good) if good else []
        await self._put_results(request.jobs, events, replies, results)

    async def _put_results(
        self,
        specs: Sequence[pb.JobSpec],
        events: Sequence[JobSubmitted | MalformedError],
        replies: Iterable[Reply],
        results: Any,
    ) -> None:
        reply_of = iter(replies)
        earlier: list[tuple[pb.SubmitResult, JobKey]] = []
        for spec, event in zip(specs, events, strict=True):
            if isinstance(event, MalformedError):
                results.add(job_id=spec.job_id).error.CopyFrom(status_of(event))
                continue
            reply = next(reply_of)
            if type(reply) is JobAccepted:
                result = results.add(job_id=event.job_id, job_key=reply.job_key, duplicate=reply.duplicate)
                if reply.duplicate and event.idempotency_key:
                    earlier.append((result, reply.job_key))
            else:
                assert isinstance(reply, RequestRefused)
                results.add(job_id=event.job_id).error.CopyFrom(status_of(error_of(reply)))
        if earlier:
            await self._name_earlier(earlier)

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

    def _policy(self, group_no: GroupNo) -> OperationPolicy:
        """The policy of every operation now, under the number that the group's store knows it by."""
        found = self._policies.get(group_no)
        if found is None:
            stored = self._engine.dispatcher(group_no).ledger.policies
            wanted = self._wanted_policy
            same = (policy for policy in stored.values() if replace(policy, no=wanted.no) == wanted)
            found = next(same, None) or replace(wanted, no=max(stored, default=0) + 1)
            self._policies[group_no] = found
        return found

    # --- reading ----------------------------------------------------------------------------------------------------

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> job_pb2.Job:
        """One job, with its result."""
        return job_of(await self._find(request.name), self._names)

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        """A page of an organisation's jobs, newest first."""
        before = pages.keys_of(request.page_token, request.parent, request.filter)
        size = request.page_size or pages.PAGE_SIZE_DEFAULT
        query = self._query(request, before, size + 1)
        records = await self._store.jobs(query) if query.groups else []
        response = pb.ListJobsResponse(jobs=[job_of(record, self._names) for record in records[:size]])
        if len(records) > size:
            for record in records[:size]:
                before[record.row.group_no] = record.row.job_key
            response.next_page_token = pages.keys_token(before, request.parent, request.filter)
        return response

    def _query(self, request: pb.ListJobsRequest, before: Mapping[GroupNo, JobKey], limit: int) -> JobQuery:
        organisation, kind, _ = split_parent(request.parent)
        if kind:
            text = f"jobs are listed for an organization: give `organizations/{organisation}` and filter by group"
            raise MalformedError(text, reason="MALFORMED_NAME", field="parent")
        groups = self._directory.groups_of(organisation)
        conditions = once(request.filter, conditions_of(request.filter, FILTER_FIELDS))
        if group := conditions.get("group"):
            groups = (self._directory.group(organisation, group.value.rpartition("/")[2]).group_no,)
        states: tuple[str, ...] = ()
        if state := conditions.get("state"):
            if state.value not in JobState.__members__.values():
                raise wrong_value(request.filter, state, f"no state {state.value!r}; states: {', '.join(JobState)}")
            states = (state.value,)
        agent_no: AgentNo | None = None
        if agent := conditions.get("agent"):
            named = [found for no in groups if (found := self._directory.agent(no, agent.value)) is not None]
            if len(named) > 1:
                in_groups = ", ".join(self._directory.group_name(found.group_no) for found in named)
                text = f"agent {agent.value!r} is in several groups: add one of them ({in_groups})"
                raise wrong_value(request.filter, agent, text)
            groups, agent_no = tuple(found.group_no for found in named), named[0].agent_no if named else None
        operation = conditions["operation"].value if "operation" in conditions else ""
        return JobQuery(groups, states, operation, agent_no, before, limit)

    async def _find(self, name: str) -> JobRecord:
        organisation, job_id = split_job(name)
        record = await self._store.job(self._directory.groups_of(organisation), job_id)
        if record is None:
            raise NotFoundError(f"there is no job {uuid_text(job_id)}", reason="JOB_NOT_FOUND", resource=name)
        return record

    # --- following --------------------------------------------------------------------------------------------------

    async def WatchJobs(self, request: pb.WatchJobsRequest, context: Context) -> AsyncIterator[pb.WatchJobsResponse]:
        """Each change after its commit. With job ids, their states now come first, so that nothing is missed."""
        groups = self._watched_groups(request.parent)
        wanted = frozenset(request.job_ids)
        watcher = self._feed.watch(frozenset(groups), self._limits.watch_queue_max, request.resume_token)
        try:
            await context.send_initial_metadata(())
            known: set[JobKey] = set()
            if wanted:
                known = await self._keys_of(groups, wanted)
                watcher.narrow(known, wants_new=len(known) < len(wanted))
                async for response in self._present(sorted(known), watcher):
                    yield response
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
        reply = await self._engine.ask(row.group_no, lambda ticket: CancelRequested(ticket, row.job_key))
        record = await self._find(request.name)
        if isinstance(reply, RequestRefused) and record.row.state != JobState.CANCELLED:
            text = f"job {uuid_text(row.job_id)} is {record.row.state}; what is final stays as it is"
            raise WrongStateError(text, reason=reply.reason, resource=request.name, state=record.row.state)
        return pb.CancelJobResponse(job=job_of(record, self._names))

    async def RequeueJob(self, request: pb.RequeueJobRequest, context: Context) -> job_pb2.Job:
        """Not built yet."""
        raise _not_built("RequeueJob", "submit the job again under a new id")

    async def ResolveHeldJob(self, request: pb.ResolveHeldJobRequest, context: Context) -> job_pb2.Job:
        """Not built yet."""
        raise _not_built("ResolveHeldJob", "cancel the held job and submit it again under a new id")

    async def ExplainJob(self, request: pb.ExplainJobRequest, context: Context) -> pb.ExplainJobResponse:
        """Not built yet."""
        raise _not_built("ExplainJob", "GetJob shows state, agent and failure")


def _not_built(method: str, instead: str) -> MeshError:
    return NotBuiltError(f"{method} is not served by this version; {instead} (docs/roadmap.md says what comes)")
