"""Every refusal of this version through the real API, and the rows of the store as they were before it.

One test a reason of docs/errors.md (`broker.rpc.refusals`), more where a reason has several causes. A case may prepare
the broker first; then the whole store is read, the refusal provoked, and the store read again.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from broker.app import STORE_FILE, Broker
from broker.errors import StoreFailedError
from broker.rpc.refusals import REFUSALS
from protos.mesh.v1 import admin_service_pb2 as admin_pb
from protos.mesh.v1 import agent_service_pb2 as agent_pb
from protos.mesh.v1 import job_pb2
from protos.mesh.v1 import job_service_pb2 as pb
from tests.broker.rpc.peer import hello, stream_to
from tests.broker.running import (
    ORGANIZATION,
    PARENT,
    WAIT_S,
    Api,
    Refusal,
    api_of,
    echo,
    job_name,
    raw_call,
    refusal_of,
    refused,
    settings_of,
)

ID = bytes(range(16))
AGENT = f"{PARENT}/agents/a1"
REQUEST_ID = "0b6a4c5e-8d3b-4f60-9a43-6f9d1f0a7c11"

Rows = dict[str, Counter[tuple[object, ...]]]


class Scene:
    """A broker, its client, and its store as another process sees it."""

    def __init__(self, broker: Broker, api: Api, path: Path, patch: pytest.MonkeyPatch, stack: AsyncExitStack) -> None:
        self.broker = broker
        self.api = api
        self.path = path
        self.patch = patch
        self.stack = stack
        self.before: Rows = {}

    def rows(self) -> Rows:
        """All rows of all tables."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as connection:
            names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {name: Counter(connection.execute(f'SELECT * FROM "{name}"')) for name in names}

    async def submitted(self, *specs: pb.JobSpec, parent: str = PARENT) -> Refusal:
        """The refusal of the last job of a batch."""
        return Refusal((await self.api.submit(*specs, parent=parent))[-1].error)


Provoke = Callable[[Scene], Awaitable[Refusal]]
Prepare = Callable[[Scene], Awaitable[None]]


class Case(NamedTuple):
    reason: str
    provoke: Provoke
    prepare: Prepare | None
    settings: Mapping[str, object]


CASES: list[Case] = []


def case(reason: str, prepare: Prepare | None = None, **settings: object) -> Callable[[Provoke], Provoke]:
    """A case of this reason: the function provokes the refusal, on a broker with these settings."""

    def register(provoke: Provoke) -> Provoke:
        CASES.append(Case(reason, provoke, prepare, settings))
        return provoke

    return register


def _id_of(case: Case) -> str:
    return f"{case.reason}-{case.provoke.__name__.strip('_')}"


@asynccontextmanager
async def scene_of(folder: Path, patch: pytest.MonkeyPatch, settings: Mapping[str, object]) -> AsyncIterator[Scene]:
    async with Broker(settings_of(folder, **settings)) as broker, api_of(broker) as api, AsyncExitStack() as stack:
        yield Scene(broker, api, folder / "data" / STORE_FILE, patch, stack)


# --- submissions ----------------------------------------------------------------------------------------------------


@case("MALFORMED_MESSAGE")
async def undecodable(scene: Scene) -> Refusal:
    return await refused(raw_call(scene.api.channel, "/mesh.v1.JobService/SubmitJobs", b"\xff\xff\xff"))


@case("INVALID_MESSAGE")
async def invalid(scene: Scene) -> Refusal:
    refusal = await refused(scene.api.submit(echo(), pb.JobSpec(operation="Not An Operation")))
    assert refusal.fields == ["jobs[1].operation"]
    return refusal


@case("INVALID_MESSAGE")
async def no_jobs(scene: Scene) -> Refusal:
    return await refused(scene.api.submit())


@case("MALFORMED_NAME")
async def parent_of_no_form(scene: Scene) -> Refusal:
    return await refused(scene.api.submit(echo(), parent="default/default"))


@case("MALFORMED_NAME")
async def parent_without_jobs(scene: Scene) -> Refusal:
    return await refused(scene.api.submit(echo(), parent=ORGANIZATION))


@case("NOT_FOUND")
async def unknown_organization(scene: Scene) -> Refusal:
    return await refused(scene.api.submit(echo(), parent="organizations/none/groups/default"))


@case("NOT_FOUND")
async def unknown_group(scene: Scene) -> Refusal:
    return await refused(scene.api.submit(echo(), parent=f"{ORGANIZATION}/groups/none"))


@case("NOT_FOUND")
async def unknown_environment(scene: Scene) -> Refusal:
    return await refused(scene.api.submit(echo(), parent=f"{ORGANIZATION}/environments/none"))


@case("PAYLOAD_TOO_LARGE", limits={"payload_bytes_max": 10})
async def payload_over_its_limit(scene: Scene) -> Refusal:
    return await scene.submitted(echo(payload=b"x" * 11))


@case("TIME_OUT_OF_RANGE")
async def delay_of_centuries(scene: Scene) -> Refusal:
    return await scene.submitted(echo(delay=Duration(seconds=2**40)))


@case("START_TWICE")
async def delay_and_start(scene: Scene) -> Refusal:
    return await scene.submitted(echo(delay=Duration(seconds=1), start_at=Timestamp(seconds=1)))


async def _one_job(scene: Scene) -> None:
    await scene.api.submit(echo(job_id=ID, payload=b"first", idempotency_key="order-1"))


@case("IDEMPOTENCY_KEY_REUSED", _one_job)
async def same_key_other_content(scene: Scene) -> Refusal:
    return await scene.submitted(echo(payload=b"second", idempotency_key="order-1"))


@case("IDEMPOTENCY_KEY_REUSED", _one_job)
async def same_id_other_content(scene: Scene) -> Refusal:
    return await scene.submitted(echo(job_id=ID, payload=b"second"))


@case("QUEUE_FULL", _one_job, dispatch={"queue_jobs_max": 1})
async def queue_of_one(scene: Scene) -> Refusal:
    return await scene.submitted(echo())


@case("QUEUE_BYTES_FULL", _one_job, dispatch={"queue_bytes_max": 8})
async def queue_of_eight_bytes(scene: Scene) -> Refusal:
    return await scene.submitted(echo(payload=b"four"))


@case("LABEL_SETS_FULL", _one_job, dispatch={"label_sets_max": 1})
async def second_label_set(scene: Scene) -> Refusal:
    return await scene.submitted(echo(labels={"zone": "north"}))


@case("LANES_FULL", _one_job, dispatch={"lanes_max": 1})
async def second_lane(scene: Scene) -> Refusal:
    return await scene.submitted(echo(fairness_key="tenant-2"))


@case("MAILBOX_FULL", limits={"mailbox_submissions": 4, "batch_submissions": 4})
async def batch_over_the_mailbox(scene: Scene) -> Refusal:
    return await refused(scene.api.submit_echo(5))


@case("MAILBOX_FULL", limits={"mailbox_bytes_max": 4 << 20, "batch_bytes_max": 1 << 20, "message_bytes_max": 4 << 20})
async def payloads_over_the_mailbox(scene: Scene) -> Refusal:
    large = 1_000_000
    blocked = sqlite3.connect(scene.path)
    scene.stack.callback(blocked.close)
    blocked.execute("BEGIN IMMEDIATE")  # nothing is taken out of the mailbox meanwhile
    waiting = [asyncio.create_task(scene.api.submit_echo(3, payload=b"x" * large)) for _ in range(3)]
    try:
        done, _ = await asyncio.wait(waiting, timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        return await refused(done.pop())
    finally:
        for task in waiting:
            task.cancel()


@case("CHANGES_FULL", limits={"changes_waiting_max": 1})
async def change_behind_too_many(scene: Scene) -> Refusal:
    blocked = sqlite3.connect(scene.path)
    scene.stack.callback(blocked.close)
    blocked.execute("BEGIN IMMEDIATE")  # no change is made meanwhile
    requests = [
        admin_pb.CreateGroupRequest(parent=ORGANIZATION, group_id=f"late-{number}", group=admin_pb.Group())
        for number in range(3)
    ]
    asking = [
        asyncio.create_task(refused(scene.api.admin.CreateGroup(request, timeout=WAIT_S))) for request in requests
    ]
    done, waiting = await asyncio.wait(asking, timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    return done.pop().result()


async def _lonely_group_and_empty_environment(scene: Scene) -> None:
    group = admin_pb.CreateGroupRequest(parent=ORGANIZATION, group_id="lonely", group=admin_pb.Group())
    environment = admin_pb.CreateEnvironmentRequest(
        parent=ORGANIZATION, environment_id="empty", environment=admin_pb.Environment()
    )
    await scene.api.admin.CreateGroup(group, timeout=WAIT_S)
    await scene.api.admin.CreateEnvironment(environment, timeout=WAIT_S)


@case("GROUP_WITHOUT_ENVIRONMENT", _lonely_group_and_empty_environment)
async def lonely_group(scene: Scene) -> Refusal:
    return await refused(scene.api.submit(echo(), parent=f"{ORGANIZATION}/groups/lonely"))


@case("ENVIRONMENT_WITHOUT_GROUP", _lonely_group_and_empty_environment)
async def empty_environment(scene: Scene) -> Refusal:
    return await refused(scene.api.submit(echo(), parent=f"{ORGANIZATION}/environments/empty"))


# --- jobs -----------------------------------------------------------------------------------------------------------


async def _final_job(scene: Scene) -> None:
    """A job that no agent of the group was there for in time."""
    watch = scene.api.jobs.WatchJobs(pb.WatchJobsRequest(parent=ORGANIZATION, job_ids=[ID]), timeout=WAIT_S)
    await scene.api.submit(echo(job_id=ID, schedule_to_start=Duration(nanos=1_000_000)))
    async for message in watch:
        if any(job.state == job_pb2.JOB_STATE_FAILED for job in message.jobs):
            watch.cancel()
            return


@case("JOB_NOT_FOUND")
async def unknown_job(scene: Scene) -> Refusal:
    return await refused(scene.api.jobs.CancelJob(pb.CancelJobRequest(name=job_name(ID)), timeout=WAIT_S))


@case("JOB_FINAL", _final_job)
async def cancel_of_a_final_job(scene: Scene) -> Refusal:
    return await refused(scene.api.jobs.CancelJob(pb.CancelJobRequest(name=job_name(ID)), timeout=WAIT_S))


@case("JOB_NOT_HELD", _one_job)
async def decision_about_a_waiting_job(scene: Scene) -> Refusal:
    request = pb.ResolveHeldJobRequest(name=job_name(ID), resolution=pb.HELD_RESOLUTION_RETRY)
    return await refused(scene.api.jobs.ResolveHeldJob(request, timeout=WAIT_S))


@case("JOB_NOT_REQUEUABLE", _one_job)
async def requeue_of_a_waiting_job(scene: Scene) -> Refusal:
    return await refused(scene.api.jobs.RequeueJob(pb.RequeueJobRequest(name=job_name(ID)), timeout=WAIT_S))


@case("MALFORMED_FILTER")
async def filter_of_no_field(scene: Scene) -> Refusal:
    return await refused(scene.api.listed(filter="colour = red"))


@case("MALFORMED_PAGE_TOKEN")
async def foreign_page_token(scene: Scene) -> Refusal:
    return await refused(scene.api.listed(page_token="?"))


@case("MALFORMED_RESUME_TOKEN")
async def foreign_resume_token(scene: Scene) -> Refusal:
    request = pb.WatchJobsRequest(parent=ORGANIZATION, resume_token="x")
    return await refused(scene.api.jobs.WatchJobs(request, timeout=WAIT_S).read())


async def _one_watch(scene: Scene) -> None:
    watch = scene.api.jobs.WatchJobs(pb.WatchJobsRequest(parent=ORGANIZATION), timeout=WAIT_S)
    scene.stack.callback(watch.cancel)
    await watch.initial_metadata()


@case("WATCHERS_FULL", _one_watch, limits={"watchers_max": 1})
async def second_watch(scene: Scene) -> Refusal:
    request = pb.WatchJobsRequest(parent=ORGANIZATION)
    return await refused(scene.api.jobs.WatchJobs(request, timeout=WAIT_S).read())


# --- administration -------------------------------------------------------------------------------------------------


def _create_group(scene: Scene, group_id: str, display_name: str = "") -> Awaitable[object]:
    group = admin_pb.Group(display_name=display_name)
    request = admin_pb.CreateGroupRequest(parent=ORGANIZATION, group_id=group_id, group=group)
    return scene.api.admin.CreateGroup(request, timeout=WAIT_S)


def _create_agent(scene: Scene, agent_id: str, **fields: Any) -> Awaitable[object]:
    request = admin_pb.CreateAgentRequest(parent=PARENT, agent_id=agent_id, agent=admin_pb.Agent(**fields))
    return scene.api.admin.CreateAgent(request, timeout=WAIT_S)


async def _one_agent(scene: Scene) -> None:
    await _create_agent(scene, "a1")


@case("MALFORMED_ID")
async def name_without_an_id(scene: Scene) -> Refusal:
    return await refused(_create_group(scene, "", "42"))


@case("FORBIDDEN_CHARACTER")
async def name_with_a_slash(scene: Scene) -> Refusal:
    return await refused(_create_group(scene, "fine", "not/fine"))


@case("TARGET_LEFT_OUT")
async def environment_without_its_target(scene: Scene) -> Refusal:
    environment = admin_pb.Environment(name=f"{ORGANIZATION}/environments/default")
    request = admin_pb.UpdateEnvironmentRequest(environment=environment)
    request.update_mask.paths.append("groups")
    return await refused(scene.api.admin.UpdateEnvironment(request, timeout=WAIT_S))


def _managed(scene: Scene) -> Awaitable[object]:
    group = admin_pb.Group(kind=admin_pb.GROUP_KIND_MANAGED)
    request = admin_pb.CreateGroupRequest(parent=ORGANIZATION, group_id="cloud", group=group)
    return scene.api.admin.CreateGroup(request, timeout=WAIT_S)


@case("GROUP_MANAGED")
async def managed_group_of_an_organization(scene: Scene) -> Refusal:
    return await refused(_managed(scene))


@case("GROUP_QUOTA", plan={"groups_max": 1})
async def group_over_the_plan(scene: Scene) -> Refusal:
    return await refused(_create_group(scene, "second"))


@case("AGENT_QUOTA", _one_agent, plan={"agents_max": 1})
async def agent_over_the_plan(scene: Scene) -> Refusal:
    return await refused(_create_agent(scene, "a2"))


@case("AGENT_QUOTA", _one_agent, plan={"agents_max": 1})
async def hello_over_the_plan(scene: Scene) -> Refusal:
    async with stream_to(scene.broker.mesh_address, "a2") as peer:
        await peer.say(hello("a2"))
        return await refused(peer.call.read())


@case("GROUP_IN_USE")
async def removal_of_a_group_with_an_environment(scene: Scene) -> Refusal:
    return await refused(scene.api.admin.DeleteGroup(admin_pb.DeleteGroupRequest(name=PARENT), timeout=WAIT_S))


@case("ORGANIZATION_IN_USE")
async def removal_of_an_organization_with_a_group(scene: Scene) -> Refusal:
    request = admin_pb.DeleteOrganizationRequest(name=ORGANIZATION)
    return await refused(scene.api.admin.DeleteOrganization(request, timeout=WAIT_S))


async def _no_waiting(scene: Scene) -> None:
    group = admin_pb.Group(name=PARENT, inactive_jobs=admin_pb.INACTIVE_JOBS_REFUSE)
    await scene.api.admin.UpdateGroup(admin_pb.UpdateGroupRequest(group=group), timeout=WAIT_S)


@case("GROUP_INACTIVE", _no_waiting)
async def submission_to_an_inactive_group(scene: Scene) -> Refusal:
    return await scene.submitted(echo())


async def _removed_in_between(scene: Scene) -> None:
    """The submission has found its group, which is removed before it is worked on."""
    submit, jobs = scene.broker.engine.submit, scene.api.admin
    request = admin_pb.DeleteGroupRequest(name=PARENT, force=True)

    async def late(*wanted: Any) -> Any:
        await jobs.DeleteGroup(request, timeout=WAIT_S)
        scene.before = scene.rows()
        return await submit(*wanted)

    scene.patch.setattr(scene.broker.engine, "submit", late)


@case("GROUP_REMOVED", _removed_in_between)
async def submission_to_a_group_that_goes(scene: Scene) -> Refusal:
    return await scene.submitted(echo())


@case("ALREADY_EXISTS")
async def second_default_group(scene: Scene) -> Refusal:
    return await refused(_create_group(scene, "default"))


def _group_request(group: str) -> admin_pb.CreateGroupRequest:
    return admin_pb.CreateGroupRequest(
        parent=ORGANIZATION, group_id=group, group=admin_pb.Group(), request_id=REQUEST_ID
    )


async def _one_request(scene: Scene) -> None:
    await scene.api.admin.CreateGroup(_group_request("g1"), timeout=WAIT_S)


@case("REQUEST_ID_REUSED", _one_request)
async def same_request_id_other_group(scene: Scene) -> Refusal:
    return await refused(scene.api.admin.CreateGroup(_group_request("g2"), timeout=WAIT_S))


@case("REQUEST_ID_REUSED", _one_request)
async def same_request_id_an_agent(scene: Scene) -> Refusal:
    request = admin_pb.CreateAgentRequest(
        parent=PARENT, agent_id="g1", agent=admin_pb.Agent(), request_id=REQUEST_ID.upper()
    )
    return await refused(scene.api.admin.CreateAgent(request, timeout=WAIT_S))


async def _one_request_taken_back(scene: Scene) -> None:
    await _one_request(scene)
    gone = admin_pb.DeleteGroupRequest(name=f"{ORGANIZATION}/groups/g1")
    await scene.api.admin.DeleteGroup(gone, timeout=WAIT_S)


@case("NOT_FOUND", _one_request_taken_back)
async def request_again_whose_group_was_removed(scene: Scene) -> Refusal:
    return await refused(scene.api.admin.CreateGroup(_group_request("g1"), timeout=WAIT_S))


@case("INVALID_MESSAGE")
async def request_id_that_is_none(scene: Scene) -> Refusal:
    request = _group_request("g1")
    request.request_id = "mine-1"
    return await refused(scene.api.admin.CreateGroup(request, timeout=WAIT_S))


@case("INVALID_MESSAGE")
async def group_that_places_in_no_way(scene: Scene) -> Refusal:
    policy = admin_pb.GroupPolicy.FromString(bytes((8 << 3, 9)))  # field 8, a number that no way has
    request = admin_pb.UpdateGroupRequest(group=admin_pb.Group(name=PARENT, policy=policy))
    return await refused(scene.api.admin.UpdateGroup(request, timeout=WAIT_S))


@case("INVALID_MESSAGE")
async def group_without_attempts(scene: Scene) -> Refusal:
    policy = admin_pb.GroupPolicy(attempts_max=0)
    request = admin_pb.UpdateGroupRequest(group=admin_pb.Group(name=PARENT, policy=policy))
    return await refused(scene.api.admin.UpdateGroup(request, timeout=WAIT_S))


@case("INVALID_MESSAGE")
async def mask_with_a_field_that_no_policy_has(scene: Scene) -> Refusal:
    mask = FieldMask(paths=["policy.colour"])
    request = admin_pb.UpdateGroupRequest(group=admin_pb.Group(name=PARENT), update_mask=mask)
    return await refused(scene.api.admin.UpdateGroup(request, timeout=WAIT_S))


@case("INVALID_MESSAGE", _one_agent)
async def label_without_a_key(scene: Scene) -> Refusal:
    agent = admin_pb.Agent(name=AGENT, operator_labels={"": "north"})
    return await refused(scene.api.admin.UpdateAgent(admin_pb.UpdateAgentRequest(agent=agent), timeout=WAIT_S))


@case("AGENTS_FULL", _one_agent, limits={"agents_max": 1})
async def second_agent(scene: Scene) -> Refusal:
    return await refused(_create_agent(scene, "a2"))


@case("AGENT_WRONG_STATE", _one_agent)
async def resume_of_an_agent_that_is_not_paused(scene: Scene) -> Refusal:
    return await refused(scene.api.admin.ResumeAgent(admin_pb.ResumeAgentRequest(name=AGENT), timeout=WAIT_S))


@case("AGENT_NOT_FOUND", _one_agent)
async def agent_that_is_being_removed(scene: Scene) -> Refusal:
    ask = scene.broker.engine.ask

    async def after_its_removal(*wanted: Any) -> Any:
        """Who asks has found the agent; before the engine hears of it, somebody else removes it."""
        scene.patch.setattr(scene.broker.engine, "ask", ask)
        await scene.api.admin.DeleteAgent(admin_pb.DeleteAgentRequest(name=AGENT), timeout=WAIT_S)
        return await ask(*wanted)

    scene.patch.setattr(scene.broker.engine, "ask", after_its_removal)
    refusal = await refused(scene.api.admin.ResumeAgent(admin_pb.ResumeAgentRequest(name=AGENT), timeout=WAIT_S))
    del scene.before["agent"], scene.before["broker_batch"]  # the removal was carried out
    return refusal


@case("CHANGED", _one_agent)
async def removal_with_an_old_etag(scene: Scene) -> Refusal:
    request = admin_pb.DeleteAgentRequest(name=AGENT, etag="old")
    return await refused(scene.api.admin.DeleteAgent(request, timeout=WAIT_S))


@case("CHANGED")
async def change_with_an_old_etag(scene: Scene) -> Refusal:
    group = admin_pb.Group(name=PARENT, display_name="New", etag="old")
    return await refused(scene.api.admin.UpdateGroup(admin_pb.UpdateGroupRequest(group=group), timeout=WAIT_S))


# --- agents ---------------------------------------------------------------------------------------------------------


@case("UNAUTHENTICATED")
async def agent_without_identity(scene: Scene) -> Refusal:
    async with stream_to(scene.broker.mesh_address, identity="") as peer:
        return await refused(peer.call.read())


@case("AGENT_PROTOCOL")
async def stream_without_hello(scene: Scene) -> Refusal:
    async with stream_to(scene.broker.mesh_address) as peer:
        await peer.call.done_writing()
        return await refused(peer.call.read())


@case("MALFORMED")
async def stream_that_begins_with_a_heartbeat(scene: Scene) -> Refusal:
    async with stream_to(scene.broker.mesh_address) as peer:
        await peer.say(agent_pb.AgentFrame(heartbeat=agent_pb.Heartbeat(seq=1)))
        return await refused(peer.call.read())


# --- the broker -----------------------------------------------------------------------------------------------------


@case("BROKER_STOPPING")
async def submission_while_it_stops(scene: Scene) -> Refusal:
    scene.broker.jobs.stop_accepting()
    return await refused(scene.api.submit(echo()))


async def _owned_by_another(scene: Scene) -> None:
    with closing(sqlite3.connect(scene.path)) as other, other:
        other.execute("UPDATE group_epoch SET epoch = epoch + 1")


@case("NOT_OWNER", _owned_by_another)
async def submission_to_a_lost_group(scene: Scene) -> Refusal:
    refusal = await refused(scene.api.submit(echo()))
    assert (await refused(scene.api.submit(echo()))).reason == refusal.reason
    return refusal


async def _locked(scene: Scene) -> None:
    other = sqlite3.connect(scene.path)
    scene.stack.callback(other.close)
    other.execute("BEGIN IMMEDIATE")


@case("STORE_BUSY", _locked)
async def group_in_a_locked_file(scene: Scene) -> Refusal:
    return await refused(_create_group(scene, "new"))


@case("STORE_UNAVAILABLE", _locked)
async def submission_after_one_that_the_locked_file_holds_up(scene: Scene) -> Refusal:
    held_up = asyncio.create_task(scene.api.submit(echo()))
    check = pb.SubmitJobsRequest(parent=PARENT, jobs=[echo()], validate_only=True)
    try:
        while True:  # until the broker has noticed
            await scene.api.jobs.SubmitJobs(check, timeout=WAIT_S)
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    finally:
        held_up.cancel()


@case("STORE_FAILED")
async def submission_to_a_failed_store(scene: Scene) -> Refusal:
    async def lost(request: object) -> None:
        raise StoreFailedError("the disk gave an error")

    scene.patch.setattr(scene.broker.store, "commit", lost)
    first = await refused(scene.api.submit(echo()))
    assert (await refused(scene.api.submit(echo()))).reason == first.reason
    return first


@case("INTERNAL")
async def mistake_of_the_broker(scene: Scene) -> Refusal:
    async def mistaken(*wanted: object) -> None:
        raise RuntimeError("a mistake")

    scene.patch.setattr(scene.broker.store, "job", mistaken)
    return await refused(scene.api.jobs.GetJob(pb.GetJobRequest(name=job_name(ID)), timeout=WAIT_S))


# --- the tests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=map(_id_of, CASES))
async def test_refused_request_has_its_reason_and_code_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    async with scene_of(tmp_path, monkeypatch, case.settings) as scene:
        if case.prepare is not None:
            await case.prepare(scene)
        scene.before = scene.rows()
        assert scene.before["agent_group"]
        refusal = await case.provoke(scene)
        code = next(row.code for row in REFUSALS if row.reason == case.reason)
        assert (refusal.reason, refusal.code) == (case.reason, grpc.StatusCode[code].value[0])
        assert {table: rows for table, rows in scene.rows().items() if table in scene.before} == scene.before


async def test_message_over_its_limit_is_refused_by_grpc_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene_of(tmp_path, monkeypatch, {}) as scene:
        before = scene.rows()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await scene.api.submit_echo(5, payload=b"x" * 900_000)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert scene.rows() == before


def test_every_reason_of_the_table_is_provoked() -> None:
    assert {case.reason for case in CASES} == {row.reason for row in REFUSALS}
