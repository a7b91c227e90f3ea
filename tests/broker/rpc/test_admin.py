"""The admin service over real gRPC."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import grpc
import pytest

from broker.app import Broker
from broker.rpc.admin import AdminService
from protos.mesh.v1 import admin_service_pb2 as pb
from protos.mesh.v1 import agent_service_pb2 as agent_pb
from protos.mesh.v1 import job_pb2
from tests.broker.rpc.peer import Peer, agent_on, hello, key_of, stopped, stream_to, succeeded
from tests.broker.running import ORGANIZATION, PARENT, WAIT_S, Api, Refusal, refused

A1 = f"{PARENT}/agents/a1"
ABORTED = grpc.StatusCode.ABORTED.value[0]
INVALID = grpc.StatusCode.INVALID_ARGUMENT.value[0]
NOT_FOUND = grpc.StatusCode.NOT_FOUND.value[0]
TAKEN = grpc.StatusCode.ALREADY_EXISTS.value[0]
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED.value[0]
WRONG_STATE = grpc.StatusCode.FAILED_PRECONDITION.value[0]


def create_group(group_id: str, **fields: Any) -> pb.CreateGroupRequest:
    group = pb.Group(**fields)
    return pb.CreateGroupRequest(parent=ORGANIZATION, group_id=group_id, group=group)


async def groups(api: Api, **query: Any) -> pb.ListGroupsResponse:
    request = pb.ListGroupsRequest(parent=ORGANIZATION, **query)
    return await api.admin.ListGroups(request, timeout=WAIT_S)


@pytest.mark.req("R09", "R12")
async def test_created_group_is_read_back_as_it_was_made(api: Api) -> None:
    made = await api.admin.CreateGroup(create_group("", display_name="Plant 7", description="<b>x</b>"), timeout=WAIT_S)
    assert (made.name, made.display_name, made.description) == (
        f"{ORGANIZATION}/groups/plant-7",
        "Plant 7",
        "<b>x</b>",
    )
    assert (made.kind, made.central_logging, made.status) == (
        pb.GROUP_KIND_PRIVATE,
        True,
        pb.GROUP_STATUS_INACTIVE,
    )
    assert made.created_at.seconds > 1_600_000_000
    assert await api.admin.GetGroup(pb.GetGroupRequest(name=made.name), timeout=WAIT_S) == made
    quiet = await api.admin.CreateGroup(create_group("quiet", central_logging=False), timeout=WAIT_S)
    assert not quiet.central_logging


@pytest.mark.req("R10")
async def test_group_name_with_a_forbidden_character_is_refused_naming_it(api: Api) -> None:
    refusal = await refused(api.admin.CreateGroup(create_group("g", display_name="A&B"), timeout=WAIT_S))
    assert (refusal.code, refusal.reason, refusal.fields) == (
        INVALID,
        "FORBIDDEN_CHARACTER",
        ["group.display_name"],
    )
    assert "'&' at position 2" in refusal.text


async def test_id_that_is_taken_is_refused(api: Api) -> None:
    refusal = await refused(api.admin.CreateGroup(create_group("default"), timeout=WAIT_S))
    assert (refusal.code, refusal.kinds) == (TAKEN, {"ErrorInfo", "ResourceInfo"})


@pytest.mark.req("R04")
async def test_environment_names_groups_of_its_organization_only(api: Api) -> None:
    request = pb.CreateEnvironmentRequest(parent=ORGANIZATION, environment_id="e")
    request.environment.target_group = PARENT
    made = await api.admin.CreateEnvironment(request, timeout=WAIT_S)
    assert (made.target_group, list(made.groups)) == (PARENT, [PARENT])
    name = pb.GetEnvironmentRequest(name=made.name)
    assert await api.admin.GetEnvironment(name, timeout=WAIT_S) == made
    group = await api.admin.GetGroup(pb.GetGroupRequest(name=PARENT), timeout=WAIT_S)
    assert list(group.environments) == [f"{ORGANIZATION}/environments/{slug}" for slug in ("default", "e")]

    other = pb.CreateOrganizationRequest(organization_id="other", organization=pb.Organization())
    await api.admin.CreateOrganization(other, timeout=WAIT_S)
    foreign = pb.CreateEnvironmentRequest(parent="organizations/other", environment_id="e")
    foreign.environment.target_group = PARENT
    assert (await refused(api.admin.CreateEnvironment(foreign, timeout=WAIT_S))).code == NOT_FOUND


@pytest.mark.req("R07", "R08")
async def test_groups_are_filtered_ordered_and_paged(api: Api) -> None:
    for number in (3, 1, 2):
        fields = {"display_name": f"Plant {number}", "description": "south" if number == 2 else ""}
        await api.admin.CreateGroup(create_group(f"plant-{number}", **fields), timeout=WAIT_S)
    names = [group.display_name for group in (await groups(api)).groups]
    assert names == ["Default", "Plant 1", "Plant 2", "Plant 3"]
    found = await groups(api, filter="display_name : plant", order_by="display_name desc", page_size=2)
    assert [group.display_name for group in found.groups] == ["Plant 3", "Plant 2"]
    assert found.total_size == 3
    token = found.next_page_token
    rest = await groups(api, filter="display_name : plant", order_by="display_name desc", page_size=2, page_token=token)
    assert ([group.display_name for group in rest.groups], rest.next_page_token) == (["Plant 1"], "")
    assert len((await groups(api, filter='description = "south"')).groups) == 1
    assert (await refused(groups(api, filter="colour = red"))).reason == "MALFORMED_FILTER"
    assert (await refused(groups(api, order_by="colour"))).reason == "MALFORMED_FILTER"
    assert (await refused(groups(api, page_token=token))).reason == "MALFORMED_PAGE_TOKEN"


async def test_agents_are_listed_with_what_they_said_while_they_are_there(broker: Broker, api: Api) -> None:
    announced = pb.CreateAgentRequest(parent=PARENT, agent_id="announced", agent=pb.Agent())
    await api.admin.CreateAgent(announced, timeout=WAIT_S)
    async with agent_on(broker.mesh_address, "live", slots=7):
        for parent in (PARENT, f"{ORGANIZATION}/groups/-"):
            request = pb.ListAgentsRequest(parent=parent, order_by="name")
            found = (await api.admin.ListAgents(request, timeout=WAIT_S)).agents
            assert [agent.name for agent in found] == [f"{PARENT}/agents/{slug}" for slug in ("announced", "live")]
            waiting, live = found
            assert (waiting.status, waiting.slots) == (pb.AGENT_STATUS_AWAITING_SETUP, 0)
            assert (live.status, live.slots, list(live.operations)) == (pb.AGENT_STATUS_ACTIVE, 7, ["echo"])
            assert live.connected_at.seconds > 1_600_000_000
        only = pb.ListAgentsRequest(parent=PARENT, filter="status = active")
        assert len((await api.admin.ListAgents(only, timeout=WAIT_S)).agents) == 1
        group = await api.admin.GetGroup(pb.GetGroupRequest(name=PARENT), timeout=WAIT_S)
        assert (group.status, group.agents_active, group.agents_total) == (pb.GROUP_STATUS_ACTIVE, 1, 2)


@pytest.mark.parametrize("name", [f"{PARENT}/agents/none", f"{ORGANIZATION}/groups/none/agents/a1"])
async def test_agent_that_is_not_there_is_not_found(api: Api, name: str) -> None:
    assert (await refused(api.admin.GetAgent(pb.GetAgentRequest(name=name), timeout=WAIT_S))).code == NOT_FOUND


# --- what operators do with agents ----------------------------------------------------------------------------------


def get(api: Api) -> Awaitable[pb.Agent]:
    return api.admin.GetAgent(pb.GetAgentRequest(name=A1), timeout=WAIT_S)


def drain(
    api: Api, mode: agent_pb.DrainMode.ValueType, *, deadline_s: int | None = None, **said: Any
) -> Awaitable[pb.Agent]:
    request = pb.DrainAgentRequest(name=A1, mode=mode, **said)
    if deadline_s is not None:
        request.deadline.FromSeconds(deadline_s)
    return api.admin.DrainAgent(request, timeout=WAIT_S)


def disable(api: Api, **said: Any) -> Awaitable[pb.Agent]:
    return api.admin.DisableAgent(pb.DisableAgentRequest(name=A1, **said), timeout=WAIT_S)


def enable(api: Api) -> Awaitable[pb.Agent]:
    return api.admin.EnableAgent(pb.EnableAgentRequest(name=A1), timeout=WAIT_S)


def delete(api: Api, **said: Any) -> Awaitable[pb.DeleteAgentResponse]:
    return api.admin.DeleteAgent(pb.DeleteAgentRequest(name=A1, **said), timeout=WAIT_S)


async def working(agent: Peer, api: Api, number: int = 1) -> list[tuple[int, int]]:
    """Jobs that the agent has begun."""
    await api.submit_echo(number)
    keys = [key_of(assign) for assign in await agent.assigned(number)]
    await agent.accept(*keys)
    await agent.settled()
    return keys


async def rejected(broker: Broker, agent: str = "a1") -> agent_pb.Reject:
    """What its Hello is refused with."""
    async with stream_to(broker.mesh_address, agent) as peer:
        await peer.say(hello(agent))
        return (await peer.frame_with("welcome", "reject")).reject


@pytest.mark.req("R52")
async def test_agent_that_is_drained_to_stop_ends_its_work_gets_nothing_new_and_is_told_to_leave(
    broker: Broker, api: Api
) -> None:
    async with agent_on(broker.mesh_address) as agent:
        first, second = await working(agent, api, 2)
        drained = await drain(api, agent_pb.DRAIN_MODE_STOP, reason="new disk")
        assert drained.status == pb.AGENT_STATUS_DRAINING
        said = (await agent.frame_with("drain")).drain
        assert (said.mode, said.then, said.reason, said.operator) == (
            agent_pb.DRAIN_MODE_STOP,
            agent_pb.DRAIN_THEN_FINISH,
            "new disk",
            "operator",
        )
        (waiting,) = await api.submit_echo()
        await agent.report(succeeded(first))
        found = (await get(api)).drain
        assert (found.mode, found.then, found.reason, found.operator, found.remaining) == (
            agent_pb.DRAIN_MODE_STOP,
            agent_pb.DRAIN_THEN_FINISH,
            "new disk",
            "operator",
            1,
        )
        assert found.started_at.seconds > 1_600_000_000
        assert not found.HasField("deadline")

        await agent.say(agent_pb.AgentFrame(outcomes=[succeeded(second)]))
        done = await agent.frame_with("drain_done", "assigns")

        assert done.drain_done.mode == agent_pb.DRAIN_MODE_STOP
        after = await get(api)
        assert (after.status, after.HasField("drain")) == (pb.AGENT_STATUS_STOPPED, False)
        assert (await api.job(waiting.job_id)).state == job_pb2.JOB_STATE_QUEUED


@pytest.mark.req("R52")
async def test_agent_that_is_drained_to_pause_stays_and_works_on_when_it_is_resumed(broker: Broker, api: Api) -> None:
    async with agent_on(broker.mesh_address) as agent:
        paused = await drain(api, agent_pb.DRAIN_MODE_PAUSE)
        assert (paused.status, paused.drain.mode) == (pb.AGENT_STATUS_PAUSED, agent_pb.DRAIN_MODE_PAUSE)
        assert (await agent.frame_with("drain_done")).drain_done.mode == agent_pb.DRAIN_MODE_PAUSE
        (waiting,) = await api.submit_echo()
        await agent.settled()
        assert (await api.job(waiting.job_id)).state == job_pb2.JOB_STATE_QUEUED

        resumed = await api.admin.ResumeAgent(pb.ResumeAgentRequest(name=A1), timeout=WAIT_S)

        assert (resumed.status, resumed.HasField("drain")) == (pb.AGENT_STATUS_ACTIVE, False)
        assert (await agent.frame_with("drain")).drain.cancel
        assert len(await agent.assigned(1)) == 1


@pytest.mark.req("R52")
@pytest.mark.parametrize(
    ("then", "reason", "state"),
    [
        (agent_pb.DRAIN_THEN_REQUEUE, agent_pb.CANCEL_REASON_DRAIN_REQUEUE, job_pb2.JOB_STATE_QUEUED),
        (agent_pb.DRAIN_THEN_KILL, agent_pb.CANCEL_REASON_DRAIN_KILL, job_pb2.JOB_STATE_FAILED),
    ],
)
async def test_deadline_of_a_drain_stops_what_still_runs(
    broker: Broker, api: Api, then: int, reason: int, state: int
) -> None:
    async with agent_on(broker.mesh_address) as agent:
        (key,) = await working(agent, api)
        drained = await drain(api, agent_pb.DRAIN_MODE_PAUSE, then=then, deadline_s=0)
        assert drained.drain.then == then
        (cancel,) = (await agent.frame_with("cancels")).cancels
        assert ((cancel.job_key, cancel.attempt), cancel.reason) == (key, reason)
        await agent.report(stopped(key))
        assert (await get(api)).status == pb.AGENT_STATUS_PAUSED
    (job,) = await api.listed()
    assert job.state == state


@pytest.mark.req("R52")
async def test_drain_is_taken_back_while_it_is_not_finished(broker: Broker, api: Api) -> None:
    async with agent_on(broker.mesh_address, slots=2) as agent:
        await working(agent, api)
        drained = await drain(api, agent_pb.DRAIN_MODE_STOP, then=agent_pb.DRAIN_THEN_REQUEUE, deadline_s=3_600)
        lasts_s = drained.drain.deadline.ToMicroseconds() - drained.drain.started_at.ToMicroseconds()
        assert lasts_s == 3_600_000_000
        (waiting,) = await api.submit_echo()
        taken_back = await api.admin.CancelDrain(pb.CancelDrainRequest(name=A1), timeout=WAIT_S)
        assert (taken_back.status, taken_back.HasField("drain")) == (pb.AGENT_STATUS_ACTIVE, False)
        (assign,) = await agent.assigned(1)
        assert assign.job_key == waiting.job_key


@pytest.mark.req("R84")
async def test_explain_says_what_is_in_an_agents_way_and_what_it_holds(broker: Broker, api: Api) -> None:
    request = pb.ExplainAgentRequest(name=f"{PARENT}/agents/a1")
    async with agent_on(broker.mesh_address) as agent:
        ((key, attempt),) = await working(agent, api)
        free = await api.admin.ExplainAgent(request, timeout=WAIT_S)
        assert (free.placeable, list(free.obstacles)) == (True, [])
        assert [(one.job_key, one.attempt, one.operation) for one in free.attempts] == [(key, attempt, "echo")]
        await disable(api, reason="broken fan")
        off = await api.admin.ExplainAgent(request, timeout=WAIT_S)
        assert (off.placeable, [one.reason for one in off.obstacles]) == (False, ["disabled"])
        assert off.summary == "gets nothing new: it is disabled by operator (broken fan); it holds 1 of 4 attempts"
        assert off.next_step == "an operator enables it"
    unknown = pb.ExplainAgentRequest(name=f"{PARENT}/agents/nobody")
    assert (await refused(api.admin.ExplainAgent(unknown, timeout=WAIT_S))).reason == "NOT_FOUND"


@pytest.mark.req("R52")
def test_nothing_starts_an_agent_from_afar() -> None:
    methods = {method.name for method in pb.DESCRIPTOR.services_by_name["AdminService"].methods}
    about_agents = {name for name in methods if name.endswith(("Agent", "Agents", "Drain"))}
    assert about_agents == {
        *("CreateAgent", "GetAgent", "ListAgents", "UpdateAgent", "DeleteAgent", "ExplainAgent"),
        *("DrainAgent", "CancelDrain", "ResumeAgent", "DisableAgent", "EnableAgent"),
    }
    assert not {name for name in methods if name.startswith(("Start", "Restart", "Run", "Launch"))}


@pytest.mark.req("R66")
async def test_disabled_agent_ends_its_work_and_is_let_in_again_when_it_is_enabled(broker: Broker, api: Api) -> None:
    async with agent_on(broker.mesh_address) as agent:
        (key,) = await working(agent, api)
        off = await disable(api, reason="broken fan")
        assert (off.status, off.disabled_reason, off.live) == (pb.AGENT_STATUS_DISABLED, "broken fan", 1)
        (waiting,) = await api.submit_echo()
        await agent.say(agent_pb.AgentFrame(outcomes=[succeeded(key)]))
        code, text = await agent.ending()
        assert (code, text[:14]) == (grpc.StatusCode.FAILED_PRECONDITION, "AGENT_DISABLED")
    refusal = await rejected(broker)
    assert (refusal.code, refusal.should_retry) == (agent_pb.REJECT_CODE_AGENT_DISABLED, True)
    assert refusal.retry_after.seconds > 0

    on = await enable(api)

    assert (on.status, on.disabled_reason) == (pb.AGENT_STATUS_NO_RESPONSE, "")  # it asks again by itself
    async with agent_on(broker.mesh_address) as agent:
        (assign,) = await agent.assigned(1)
        assert assign.job_key == waiting.job_key
        assert (await get(api)).status == pb.AGENT_STATUS_ACTIVE


@pytest.mark.req("R66")
async def test_agent_that_is_disabled_at_once_is_gone_within_a_second_and_its_work_is_elsewhere(
    broker: Broker, api: Api
) -> None:
    async with agent_on(broker.mesh_address) as agent:
        (key,) = await working(agent, api)
        async with agent_on(broker.mesh_address, "a2") as other:
            await disable(api, now=True)
            (cancel,) = (await agent.frame_with("cancels")).cancels
            assert cancel.reason == agent_pb.CANCEL_REASON_AGENT_DISABLED
            assert (await agent.ending())[0] == grpc.StatusCode.FAILED_PRECONDITION  # it has confirmed nothing
            (assign,) = await other.assigned(1)
            (job,) = await api.listed()
    assert key_of(assign) == (key[0], key[1] + 1)
    assert (job.crashes, job.failures, job.bounces) == (0, 0, 0)


@pytest.mark.req("R50")
async def test_removed_agent_is_refused_for_good_until_one_of_its_name_is_announced(broker: Broker, api: Api) -> None:
    async with agent_on(broker.mesh_address):
        refusal = await refused(delete(api))
        assert (refusal.code, refusal.reason) == (WRONG_STATE, "AGENT_WRONG_STATE")
        assert "drain it to stop or disable it first" in refusal.text
        await drain(api, agent_pb.DRAIN_MODE_PAUSE)
        old = (await get(api)).etag
        assert (await refused(delete(api, etag="0123"))).code == ABORTED
        assert (await delete(api, etag=old, validate_only=True)).attempts == 0
        assert (await get(api)).status == pb.AGENT_STATUS_PAUSED

        assert (await delete(api, etag=old)).attempts == 0

    assert (await refused(get(api))).code == NOT_FOUND
    assert not (await api.admin.ListAgents(pb.ListAgentsRequest(parent=PARENT), timeout=WAIT_S)).agents
    said = await rejected(broker)
    assert (said.code, said.should_retry) == (agent_pb.REJECT_CODE_REMOVED, False)
    assert "mesh agents add" in said.reason
    announced = pb.CreateAgentRequest(parent=PARENT, agent_id="a1", agent=pb.Agent())
    made = await api.admin.CreateAgent(announced, timeout=WAIT_S)
    assert made.status == pb.AGENT_STATUS_AWAITING_SETUP
    async with agent_on(broker.mesh_address):
        assert (await get(api)).status == pb.AGENT_STATUS_ACTIVE


@pytest.mark.req("R49", "R50")
async def test_removal_ends_the_stream_of_a_disabled_agent_and_gives_its_work_away(broker: Broker, api: Api) -> None:
    async with agent_on(broker.mesh_address) as agent:
        (key,) = await working(agent, api)
        await disable(api)
        assert (await delete(api)).attempts == 1
        assert (await agent.ending())[0] == grpc.StatusCode.PERMISSION_DENIED
    async with agent_on(broker.mesh_address, "a2") as other:
        (assign,) = await other.assigned(1)
    assert key_of(assign) == (key[0], key[1] + 1)


@pytest.mark.req("R49")
async def test_act_that_the_status_forbids_is_refused_with_what_to_do(api: Api) -> None:
    await api.admin.CreateAgent(pb.CreateAgentRequest(parent=PARENT, agent_id="a1", agent=pb.Agent()), timeout=WAIT_S)
    calls: list[Awaitable[object]] = [
        drain(api, agent_pb.DRAIN_MODE_STOP),
        api.admin.CancelDrain(pb.CancelDrainRequest(name=A1), timeout=WAIT_S),
        api.admin.ResumeAgent(pb.ResumeAgentRequest(name=A1), timeout=WAIT_S),
        enable(api),
    ]
    for call in calls:
        refusal: Refusal = await refused(call)
        assert (refusal.code, refusal.reason, refusal.kinds) == (
            WRONG_STATE,
            "AGENT_WRONG_STATE",
            {"ErrorInfo", "ResourceInfo"},
        )
        assert refusal.text.startswith("agent a1 is not connected: ")


@pytest.mark.parametrize("then", [agent_pb.DRAIN_THEN_REQUEUE, agent_pb.DRAIN_THEN_KILL])
async def test_drain_that_stops_work_needs_a_deadline(api: Api, then: int) -> None:
    refusal = await refused(drain(api, agent_pb.DRAIN_MODE_STOP, then=then))
    assert (refusal.code, "requeue and kill need a deadline" in refusal.text) == (INVALID, True)


# --- the rest -------------------------------------------------------------------------------------------------------


async def test_organizations_are_made_read_and_listed(api: Api) -> None:
    request = pb.CreateOrganizationRequest(organization=pb.Organization(display_name="Globex Corp."))
    made = await api.admin.CreateOrganization(request, timeout=WAIT_S)
    assert made.name == "organizations/globex-corp"
    name = pb.GetOrganizationRequest(name=made.name)
    assert await api.admin.GetOrganization(name, timeout=WAIT_S) == made
    found = await api.admin.ListOrganizations(pb.ListOrganizationsRequest(), timeout=WAIT_S)
    assert [one.name for one in found.organizations] == [ORGANIZATION, made.name]


def test_every_method_of_the_contract_is_served() -> None:
    methods = [method.name for method in pb.DESCRIPTOR.services_by_name["AdminService"].methods]
    assert [name for name in methods if name not in vars(AdminService)] == []
