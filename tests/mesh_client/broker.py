"""A broker that keeps jobs in a dict, over real gRPC: honest where a client depends on it, and it can break on request.

`fail_next` makes the next calls of a method fail; `hold` keeps answers back; `restart` drops every connection and comes
back on the same port with what it knew.
"""

# ruff: noqa: N802 - methods have the names of the contract

from __future__ import annotations

import asyncio
import threading
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import UUID

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from protos.mesh.v1 import admin_service_pb2 as admin
from protos.mesh.v1 import admin_service_pb2_grpc, agent_service_pb2, job_pb2, job_service_pb2_grpc
from protos.mesh.v1 import job_service_pb2 as pb

WAIT_S = 10.0

Context = grpc.aio.ServicerContext[Any, Any]

DECIDED = {
    pb.HELD_RESOLUTION_RETRY: job_pb2.JOB_STATE_QUEUED,
    pb.HELD_RESOLUTION_FAIL: job_pb2.JOB_STATE_FAILED,
    pb.HELD_RESOLUTION_SUCCEED: job_pb2.JOB_STATE_SUCCEEDED,
}
FINAL = (job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED, job_pb2.JOB_STATE_DEAD)


def status(code: int, text: str, reason: str, *details: Message, **metadata: str) -> status_pb2.Status:
    """A status as the real broker makes it."""
    made = status_pb2.Status(code=code, message=text)
    for detail in (error_details_pb2.ErrorInfo(reason=reason, domain="mesh", metadata=metadata), *details):
        made.details.add().Pack(detail)
    return made


def away(text: str = "this broker is stopping", retry_after_s: float = 0.01) -> status_pb2.Status:
    """UNAVAILABLE, with when to try again."""
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromNanoseconds(round(retry_after_s * 1e9))
    return status(code_pb2.UNAVAILABLE, text, "BROKER_STOPPING", retry)


def full(retry_after_s: float = 0.01) -> status_pb2.Status:
    """RESOURCE_EXHAUSTED, with when to try again."""
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromNanoseconds(round(retry_after_s * 1e9))
    return status(code_pb2.RESOURCE_EXHAUSTED, "the queue is full", "QUEUE_FULL", retry)


def unknown(name: str) -> status_pb2.Status:
    return status(code_pb2.NOT_FOUND, f"there is no {name}", "NOT_FOUND", resource=name)


async def abort(context: Context, made: status_pb2.Status) -> None:
    code = next(code for code in grpc.StatusCode if code.value[0] == made.code)
    await context.abort(code, made.message, (("grpc-status-details-bin", made.SerializeToString()),))


class MemoryBroker(job_service_pb2_grpc.JobServiceServicer, admin_service_pb2_grpc.AdminServiceServicer):
    """Groups `default` and `loaders` of the organization `default`; environment `prod` leads to `loaders`.

    A job stays queued until the test calls `move`, except operation `done`, which has succeeded when it is accepted
    and gives its payload back, and `failing`, which has failed. Operation `refused` is refused with FULL.
    """

    def __init__(self) -> None:
        self.jobs: dict[bytes, job_pb2.Job] = {}
        self.specs: dict[bytes, pb.JobSpec] = {}
        self.calls: Counter[str] = Counter()
        self.batches: list[pb.SubmitJobsRequest] = []
        self.orders: list[str] = []
        """The orders in which lists were asked for."""
        self.open_batches = 0
        self.open_batches_most = 0
        self.groups = {name: _group(name) for name in ("default", "loaders")}
        self.environments = {"prod": _environment("prod", "loaders")}
        self.organizations = {"default": _organization("default")}
        self.agents = [_agent("loaders", "a1"), _agent("default", "a2")]
        self.steps: deque[Callable[[], object]] = deque()
        """What happens before the next answers of GetAgent, one for each: a drain goes on while somebody looks."""
        self.watching = asyncio.Event()
        """Set when somebody has begun to watch."""
        self.released = asyncio.Event()
        self.released.set()
        self.address = "127.0.0.1:0"
        self.refusals = {"refused": full(7.0)}
        """Operations whose jobs are refused, and why."""
        self._refused_once: defaultdict[str, deque[status_pb2.Status]] = defaultdict(deque)
        self._faults: defaultdict[str, deque[status_pb2.Status]] = defaultdict(deque)
        self._requests: dict[str, Any] = {}
        self._changes: list[bytes] = []
        self._changed = asyncio.Condition()
        self._is_forgetful = False
        self._called = asyncio.Event()
        self.left = asyncio.Event()
        """Set when somebody has stopped watching."""
        self._server: grpc.aio.Server | None = None

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        options = (("grpc.so_reuseport", 0),)
        self._server = grpc.aio.server(options=options)
        job_service_pb2_grpc.add_JobServiceServicer_to_server(self, self._server)
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port(self.address)
        self.address = f"127.0.0.1:{port}"
        await self._server.start()

    async def stop(self) -> None:
        assert self._server is not None
        await self._server.stop(0)

    async def restart(self) -> None:
        await self.stop()
        self.watching.clear()
        await self.start()

    # --- what a test does -------------------------------------------------------------------------------------------

    def fail_next(self, method: str, *faults: status_pb2.Status) -> None:
        self._faults[method].extend(faults)

    async def called(self, method: str, times: int) -> None:
        """Wait until the method was called so many times."""
        async with asyncio.timeout(WAIT_S):
            while self.calls[method] < times:
                self._called.clear()
                await self._called.wait()

    def forget_next(self) -> None:
        """A watch is told of a gap instead of the next change."""
        self._is_forgetful = True

    def refuse_next(self, operation: str, *refusals: status_pb2.Status) -> None:
        """Refuse the next jobs of the operation, one for each."""
        self._refused_once[operation].extend(refusals)

    async def move(self, job_id: str, state: int, **fields: Any) -> None:
        """Change a job, and tell those who watch."""
        job = self.jobs[UUID(job_id).bytes]
        job.MergeFrom(job_pb2.Job(state=state, **fields))  # type: ignore[arg-type]  # a number is a state on the wire
        async with self._changed:
            self._changes.append(UUID(job_id).bytes)
            self._changed.notify_all()

    # --- jobs -------------------------------------------------------------------------------------------------------

    async def SubmitJobs(self, request: pb.SubmitJobsRequest, context: Context) -> pb.SubmitJobsResponse:
        await self._begin("SubmitJobs", context)
        self.batches.append(request)
        refusal = self._refusal(request.parent)
        if refusal is not None:
            await abort(context, refusal)
        response = pb.SubmitJobsResponse(results=[await self._accept(request.parent, spec) for spec in request.jobs])
        # Lost on the way back: the jobs are accepted.
        await self._begin("SubmitJobs answer", context)
        return response

    async def SubmitStream(
        self, request_iterator: AsyncIterator[pb.SubmitStreamRequest], context: Context
    ) -> AsyncIterator[pb.SubmitStreamResponse]:
        await self._begin("SubmitStream", context)
        waiting: asyncio.Queue[pb.SubmitStreamRequest | None] = asyncio.Queue()

        async def read() -> None:
            async for request in request_iterator:
                self.open_batches += 1
                self.open_batches_most = max(self.open_batches, self.open_batches_most)
                waiting.put_nowait(request)
            waiting.put_nowait(None)

        reading = asyncio.create_task(read())
        try:
            while (request := await waiting.get()) is not None:
                await self.released.wait()
                await self._begin("SubmitStream batch", context)
                self.batches.append(request.batch)
                self.open_batches -= 1
                yield await self._answer(request)
                await self._begin("SubmitStream answered", context)
        finally:
            reading.cancel()

    async def _answer(self, request: pb.SubmitStreamRequest) -> pb.SubmitStreamResponse:
        refusal = self._refusal(request.batch.parent)
        if refusal is not None:
            return pb.SubmitStreamResponse(batch_seq=request.batch_seq, error=refusal)
        results = [await self._accept(request.batch.parent, spec) for spec in request.batch.jobs]
        return pb.SubmitStreamResponse(batch_seq=request.batch_seq, results=results)

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> job_pb2.Job:
        await self._begin("GetJob", context)
        return await self._find(request.name, context)

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        await self._begin(f"ListJobs {request.filter}".rstrip(), context)
        self.orders.append(request.order_by)
        conditions = [part.split(" = ") for part in request.filter.split(" AND ") if part]
        chosen = [job for job in reversed(self.jobs.values()) if all(_holds(job, *part) for part in conditions)]
        first = int(request.page_token or 0)
        last = first + request.page_size
        token = str(last) if last < len(chosen) else ""
        return pb.ListJobsResponse(jobs=chosen[first:last], next_page_token=token)

    async def CancelJob(self, request: pb.CancelJobRequest, context: Context) -> pb.CancelJobResponse:
        await self._begin("CancelJob", context)
        job = await self._find(request.name, context)
        if job.state in FINAL:
            text = f"job {job.job_id} is final"
            await abort(context, status(code_pb2.FAILED_PRECONDITION, text, "JOB_FINAL"))
        if job.state == job_pb2.JOB_STATE_RUNNING:
            await self.move(job.job_id, job.state, cancel_requested=True)
        else:
            await self.move(job.job_id, job_pb2.JOB_STATE_CANCELLED)
        return pb.CancelJobResponse(job=job)

    async def RequeueJob(self, request: pb.RequeueJobRequest, context: Context) -> job_pb2.Job:
        await self._begin("RequeueJob", context)
        job = await self._find(request.name, context)
        if job.state not in FINAL or job.state == job_pb2.JOB_STATE_SUCCEEDED:
            text = f"job {job.job_id} is not failed, dead or cancelled"
            await abort(context, status(code_pb2.FAILED_PRECONDITION, text, "JOB_NOT_REQUEUABLE", resource=job.name))
        spec = pb.JobSpec()
        spec.CopyFrom(self.specs[UUID(job.job_id).bytes])
        spec.job_id = UUID(int=len(self.jobs)).bytes
        spec.ClearField("idempotency_key")
        await self._accept(job.group, spec)
        made = self.jobs[spec.job_id]
        made.requeued_from = job.job_id
        return made

    async def CancelJobs(self, request: pb.CancelJobsRequest, context: Context) -> pb.CancelJobsResponse:
        await self._begin(f"CancelJobs {request.filter}".rstrip(), context)
        slice_, token = self._slice(request, [job for job in self.jobs.values() if job.state not in FINAL])
        response = pb.CancelJobsResponse(matched=len(slice_), next_page_token=token)
        for job in () if request.validate_only else slice_:
            if job.state == job_pb2.JOB_STATE_RUNNING:
                response.stopping += 1
                continue
            await self.move(job.job_id, job_pb2.JOB_STATE_CANCELLED)
            response.cancelled += 1
        await self._begin("CancelJobs answer", context)
        return response

    async def RequeueJobs(self, request: pb.RequeueJobsRequest, context: Context) -> pb.RequeueJobsResponse:
        await self._begin(f"RequeueJobs {request.filter}".rstrip(), context)
        dead = [job for job in self.jobs.values() if job.state == job_pb2.JOB_STATE_DEAD]
        slice_, token = self._slice(request, dead)
        response = pb.RequeueJobsResponse(matched=len(slice_), next_page_token=token)
        for job in () if request.validate_only else slice_:
            if job.operation == "refused":
                response.refused.add(job_id=job.job_id, error=self.refusals["refused"])
            elif any(other.requeued_from == job.job_id for other in self.jobs.values()):
                response.passed_over += 1
            else:
                await self.RequeueJob(pb.RequeueJobRequest(name=job.name), context)
                response.requeued += 1
        return response

    def _slice(
        self, request: pb.CancelJobsRequest | pb.RequeueJobsRequest, jobs: list[job_pb2.Job]
    ) -> tuple[list[job_pb2.Job], str]:
        """The next two of these jobs by key, and the token of those behind them."""
        conditions = [part.split(" = ") for part in request.filter.split(" AND ") if part]
        rest = [
            job
            for job in jobs
            if job.job_key > int(request.page_token or 0) and all(_holds(job, *part) for part in conditions)
        ]
        return rest[:2], str(rest[1].job_key) if len(rest) > 2 else ""

    async def ResolveHeldJob(self, request: pb.ResolveHeldJobRequest, context: Context) -> job_pb2.Job:
        await self._begin(f"ResolveHeldJob {request.comment}".rstrip(), context)
        job = await self._find(request.name, context)
        if job.state != job_pb2.JOB_STATE_HELD:
            text = f"job {job.job_id} is not held"
            await abort(context, status(code_pb2.FAILED_PRECONDITION, text, "JOB_NOT_HELD", resource=job.name))
        await self.move(job.job_id, DECIDED[request.resolution])
        return job

    async def ExplainJob(self, request: pb.ExplainJobRequest, context: Context) -> pb.ExplainJobResponse:
        await self._begin("ExplainJob", context)
        await self._find(request.name, context)
        verdict = pb.AgentVerdict(agent="a1", reason="it is full: 4 of 4 attempts")
        return pb.ExplainJobResponse(summary="all agents are full", next_step="one has room", agents=[verdict])

    async def WatchJobs(self, request: pb.WatchJobsRequest, context: Context) -> AsyncIterator[pb.WatchJobsResponse]:
        await self._begin("WatchJobs", context)
        wanted = set(request.job_ids)
        at = int(request.resume_token) if request.resume_token else len(self._changes)
        await context.send_initial_metadata(())
        self.watching.set()
        try:
            async for told in self._watched(wanted, at, is_new=not request.resume_token):
                yield told
                await self._begin("WatchJobs told", context)
        finally:
            self.left.set()

    async def _watched(self, wanted: set[bytes], at: int, *, is_new: bool) -> AsyncIterator[pb.WatchJobsResponse]:
        if wanted and is_new:
            yield self._told([key for key in self.jobs if key in wanted], at)
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda at=at: len(self._changes) > at)  # type: ignore[misc]
            keys = [key for key in self._changes[at:] if not wanted or key in wanted]
            at = len(self._changes)
            if self._is_forgetful:
                self._is_forgetful = False
                yield pb.WatchJobsResponse(resume_token=str(at), gap=True)
            elif keys:
                yield self._told(keys, at)

    def _told(self, keys: list[bytes], at: int) -> pb.WatchJobsResponse:
        jobs = [job_pb2.Job() for _ in keys]
        for job, key in zip(jobs, keys, strict=True):
            job.CopyFrom(self.jobs[key])
            job.ClearField("result")
        return pb.WatchJobsResponse(jobs=jobs, resume_token=str(at))

    async def _accept(self, parent: str, spec: pb.JobSpec) -> pb.SubmitResult:
        once = self._refused_once[spec.operation]
        refusal = once.popleft() if once else self.refusals.get(spec.operation)
        if refusal is not None:
            return pb.SubmitResult(job_id=spec.job_id, error=refusal)
        key = next((known.job_id for known in self.specs.values() if _is_same(known, spec)), spec.job_id)
        if key not in self.jobs:
            self.specs[key] = spec
            self.jobs[key] = self._job(parent, spec)
            async with self._changed:
                self._changes.append(key)
                self._changed.notify_all()
            return pb.SubmitResult(job_id=key, job_key=self.jobs[key].job_key)
        return pb.SubmitResult(job_id=key, job_key=self.jobs[key].job_key, duplicate=True)

    def _job(self, parent: str, spec: pb.JobSpec) -> job_pb2.Job:
        job_id = str(UUID(bytes=spec.job_id))
        collection, _, name = parent.removeprefix("organizations/default/").partition("/")
        environment = parent if collection == "environments" else ""
        group = self.environments[name].target_group if environment else parent
        job = job_pb2.Job(
            name=f"organizations/default/jobs/{job_id}",
            job_id=job_id,
            job_key=len(self.jobs) + 1,
            group=group,
            environment=environment,
            operation=spec.operation,
            state=job_pb2.JOB_STATE_QUEUED,
            priority=spec.priority or 3,
            labels=spec.labels,
        )
        job.accepted_at.GetCurrentTime()
        if spec.operation == "done":
            job.state = job_pb2.JOB_STATE_SUCCEEDED
            job.attempt, job.agent = 1, "a1"
            job.finished_at.CopyFrom(job.accepted_at)
            job.result.content, job.result.content_type = spec.payload, spec.content_type
        if spec.operation == "failing":
            job.state = job_pb2.JOB_STATE_FAILED
            job.failure.code, job.failure.message = "broken", "on purpose"
        return job

    def _refusal(self, parent: str) -> status_pb2.Status | None:
        collection, _, name = parent.removeprefix("organizations/default/").partition("/")
        known = self.environments if collection == "environments" else self.groups
        return None if name in known else unknown(parent)

    async def _find(self, name: str, context: Context) -> job_pb2.Job:
        job = self.jobs.get(UUID(name.rpartition("/")[2]).bytes)
        if job is None:
            await abort(context, unknown(name))
        assert job is not None
        return job

    async def _begin(self, method: str, context: Context) -> None:
        self.calls[method] += 1
        self._called.set()
        if self._faults[method]:
            await abort(context, self._faults[method].popleft())

    # --- what operators set up --------------------------------------------------------------------------------------

    async def CreateOrganization(self, request: admin.CreateOrganizationRequest, context: Context) -> Any:
        made = _organization(request.organization_id, request.organization)
        return await self._add(
            self.organizations, request.organization_id, made, "CreateOrganization", request, context
        )

    async def GetOrganization(self, request: admin.GetOrganizationRequest, context: Context) -> Any:
        return await self._get(self.organizations, request.name, context)

    async def ListOrganizations(self, request: admin.ListOrganizationsRequest, context: Context) -> Any:
        return admin.ListOrganizationsResponse(organizations=self.organizations.values())

    async def CreateGroup(self, request: admin.CreateGroupRequest, context: Context) -> Any:
        made = _group(request.group_id, request.group)
        return await self._add(self.groups, request.group_id, made, "CreateGroup", request, context)

    async def GetGroup(self, request: admin.GetGroupRequest, context: Context) -> Any:
        return await self._get(self.groups, request.name, context)

    async def ListGroups(self, request: admin.ListGroupsRequest, context: Context) -> Any:
        names = sorted(self.groups)
        first = int(request.page_token or 0)
        last = first + min(request.page_size, 2)
        token = str(last) if last < len(names) else ""
        return admin.ListGroupsResponse(groups=[self.groups[name] for name in names[first:last]], next_page_token=token)

    async def CreateEnvironment(self, request: admin.CreateEnvironmentRequest, context: Context) -> Any:
        made = admin.Environment()
        made.CopyFrom(request.environment)
        made.name = f"{request.parent}/environments/{request.environment_id}"
        return await self._add(self.environments, request.environment_id, made, "CreateEnvironment", request, context)

    async def GetEnvironment(self, request: admin.GetEnvironmentRequest, context: Context) -> Any:
        return await self._get(self.environments, request.name, context)

    async def ListEnvironments(self, request: admin.ListEnvironmentsRequest, context: Context) -> Any:
        return admin.ListEnvironmentsResponse(environments=self.environments.values())

    async def GetAgent(self, request: admin.GetAgentRequest, context: Context) -> Any:
        await self._begin("GetAgent", context)
        if self.steps:
            self.steps.popleft()()
        return await self._agent(request.name, context)

    async def ExplainAgent(self, request: admin.ExplainAgentRequest, context: Context) -> Any:
        await self._agent(request.name, context)
        obstacle = admin.PlacementObstacle(reason="paused", message="it is paused by ann")
        return admin.ExplainAgentResponse(summary="gets nothing new", next_step="resume it", obstacles=[obstacle])

    async def CreateAgent(self, request: admin.CreateAgentRequest, context: Context) -> Any:
        made = admin.Agent(
            name=f"{request.parent}/agents/{request.agent_id}",
            display_name=request.agent_id,
            status=admin.AGENT_STATUS_AWAITING_SETUP,
        )
        self.agents.append(made)
        return made

    async def DrainAgent(self, request: admin.DrainAgentRequest, context: Context) -> Any:
        await self._begin("DrainAgent", context)
        agent = await self._agent(request.name, context, admin.AGENT_STATUS_ACTIVE, admin.AGENT_STATUS_PAUSED)
        agent.status = admin.AGENT_STATUS_DRAINING
        agent.drain.mode, agent.drain.then, agent.drain.reason = request.mode, request.then, request.reason
        agent.drain.operator, agent.drain.remaining = "operator", agent.live
        agent.drain.started_at.GetCurrentTime()
        if request.HasField("deadline"):
            agent.drain.deadline.FromSeconds(agent.drain.started_at.seconds + request.deadline.seconds)
        return agent

    async def CancelDrain(self, request: admin.CancelDrainRequest, context: Context) -> Any:
        return self.activate(await self._agent(request.name, context, admin.AGENT_STATUS_DRAINING))

    async def ResumeAgent(self, request: admin.ResumeAgentRequest, context: Context) -> Any:
        return self.activate(await self._agent(request.name, context, admin.AGENT_STATUS_PAUSED))

    async def DisableAgent(self, request: admin.DisableAgentRequest, context: Context) -> Any:
        agent = await self._agent(request.name, context)
        agent.status, agent.disabled_reason = admin.AGENT_STATUS_DISABLED, request.reason
        agent.live = 0 if request.now else agent.live
        return agent

    async def EnableAgent(self, request: admin.EnableAgentRequest, context: Context) -> Any:
        agent = await self._agent(request.name, context, admin.AGENT_STATUS_DISABLED)
        agent.status, agent.disabled_reason = admin.AGENT_STATUS_STOPPED, ""
        return agent

    async def DeleteAgent(self, request: admin.DeleteAgentRequest, context: Context) -> Any:
        agent = await self._agent(request.name, context, admin.AGENT_STATUS_PAUSED, admin.AGENT_STATUS_DISABLED)
        if not request.validate_only:
            self.agents.remove(agent)
        return admin.DeleteAgentResponse(attempts=agent.live)

    def activate(self, agent: admin.Agent) -> admin.Agent:
        """The drain is over: the agent works."""
        agent.status = admin.AGENT_STATUS_ACTIVE
        agent.ClearField("drain")
        return agent

    def work(self, number: int, remaining: int) -> None:
        """The drain of an agent goes on; one that holds nothing any more is where its drain leads."""
        agent = self.agents[number]
        agent.live = agent.drain.remaining = remaining
        if remaining:
            return
        if agent.drain.mode == agent_service_pb2.DRAIN_MODE_PAUSE:
            agent.status = admin.AGENT_STATUS_PAUSED
        else:
            agent.status = admin.AGENT_STATUS_STOPPED
            agent.ClearField("drain")

    async def _agent(self, name: str, context: Context, *statuses: int) -> admin.Agent:
        """The agent, if it is in one of the statuses that allow what is asked."""
        agent: admin.Agent = await self._get(
            {agent.name.rpartition("/")[2]: agent for agent in self.agents}, name, context
        )
        if statuses and agent.status not in statuses:
            text = f"{name} is {admin.AgentStatus.Name(agent.status)}: something else must be done first"
            await abort(context, status(code_pb2.FAILED_PRECONDITION, text, "AGENT_WRONG_STATE", resource=name))
        return agent

    async def ListAgents(self, request: admin.ListAgentsRequest, context: Context) -> Any:
        group = request.parent.rpartition("/")[2]
        return admin.ListAgentsResponse(
            agents=[agent for agent in self.agents if group == "-" or f"/groups/{group}/" in agent.name]
        )

    async def _add(
        self, known: dict[str, Any], key: str, made: Any, method: str, request: Any, context: Context
    ) -> Any:
        await self._begin(method, context)
        if request.request_id in self._requests:
            return self._requests[request.request_id]
        if key in known:
            text = f"{made.name} exists already"
            await abort(context, status(code_pb2.ALREADY_EXISTS, text, "ALREADY_EXISTS", resource=made.name))
        known[key] = self._requests[request.request_id] = made
        await self._begin(f"{method} answer", context)
        return made

    async def _get(self, known: dict[str, Any], name: str, context: Context) -> Any:
        found = known.get(name.rpartition("/")[2])
        if found is None:
            await abort(context, unknown(name))
        return found


def _organization(key: str, given: admin.Organization | None = None) -> admin.Organization:
    made = admin.Organization(display_name=key)
    made.MergeFrom(given or admin.Organization())
    made.name = f"organizations/{key}"
    return made


def _group(key: str, given: admin.Group | None = None) -> admin.Group:
    made = admin.Group(display_name=key, kind=admin.GROUP_KIND_PRIVATE, central_logging=True)
    made.MergeFrom(given or admin.Group())
    made.name = f"organizations/default/groups/{key}"
    made.status = admin.GROUP_STATUS_INACTIVE
    made.created_at.GetCurrentTime()
    return made


def _environment(key: str, group: str) -> admin.Environment:
    target = f"organizations/default/groups/{group}"
    name = f"organizations/default/environments/{key}"
    return admin.Environment(name=name, display_name=key, target_group=target, groups=[target])


def _agent(group: str, key: str) -> admin.Agent:
    made = admin.Agent(
        name=f"organizations/default/groups/{group}/agents/{key}",
        display_name=key,
        status=admin.AGENT_STATUS_ACTIVE,
        operations=["done"],
        labels={"site": "north"},
        slots=4,
        live=1,
    )
    made.last_heard_at.GetCurrentTime()
    return made


def _holds(job: job_pb2.Job, field: str, value: str) -> bool:
    known = {
        "state": job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_").lower(),
        "group": job.group.rpartition("/")[2],
        "operation": job.operation,
        "agent": job.agent,
    }
    return f'"{known[field]}"' == value


def _is_same(known: pb.JobSpec, spec: pb.JobSpec) -> bool:
    is_same_key = bool(spec.idempotency_key) and known.idempotency_key == spec.idempotency_key
    return known.job_id == spec.job_id or is_same_key


@asynccontextmanager
async def running_broker() -> AsyncIterator[MemoryBroker]:
    """A broker in the event loop of the test."""
    broker = MemoryBroker()
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


class BrokerThread:
    """A broker in an event loop of its own, for tests that have none; `run` does something in that loop."""

    def __init__(self, broker: MemoryBroker, loop: asyncio.AbstractEventLoop) -> None:
        self.broker = broker
        self._loop = loop

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S)


@contextmanager
def broker_thread() -> Iterator[BrokerThread]:
    """A broker in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="broker")
    thread.start()

    async def started() -> MemoryBroker:
        broker = MemoryBroker()
        await broker.start()
        return broker

    broker = asyncio.run_coroutine_threadsafe(started(), loop).result(WAIT_S)
    try:
        yield BrokerThread(broker, loop)
    finally:
        asyncio.run_coroutine_threadsafe(broker.stop(), loop).result(WAIT_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(WAIT_S)
        loop.close()
