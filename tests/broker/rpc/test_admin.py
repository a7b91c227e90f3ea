"""The admin service over real gRPC."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from broker.app import Broker
from protos.mesh.v1 import admin_service_pb2 as pb
from tests.broker.rpc.peer import agent_on
from tests.broker.running import ORGANIZATION, PARENT, WAIT_S, Api, refused

INVALID = grpc.StatusCode.INVALID_ARGUMENT.value[0]
NOT_FOUND = grpc.StatusCode.NOT_FOUND.value[0]
TAKEN = grpc.StatusCode.ALREADY_EXISTS.value[0]
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED.value[0]


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


async def test_organizations_are_made_read_and_listed(api: Api) -> None:
    request = pb.CreateOrganizationRequest(organization=pb.Organization(display_name="Globex Corp."))
    made = await api.admin.CreateOrganization(request, timeout=WAIT_S)
    assert made.name == "organizations/globex-corp"
    name = pb.GetOrganizationRequest(name=made.name)
    assert await api.admin.GetOrganization(name, timeout=WAIT_S) == made
    found = await api.admin.ListOrganizations(pb.ListOrganizationsRequest(), timeout=WAIT_S)
    assert [one.name for one in found.organizations] == [ORGANIZATION, made.name]


async def test_what_cannot_be_kept_is_refused_instead_of_dropped(api: Api) -> None:
    agent = pb.CreateAgentRequest(parent=PARENT, agent_id="a1", agent=pb.Agent(description="x"))
    refusal = await refused(api.admin.CreateAgent(agent, timeout=WAIT_S))
    assert (refusal.code, refusal.reason) == (UNIMPLEMENTED, "NOT_BUILT")
    assert "agent.description" in refusal.text
    inactive = create_group("g", inactive_jobs=pb.INACTIVE_JOBS_REFUSE)
    assert (await refused(api.admin.CreateGroup(inactive, timeout=WAIT_S))).code == UNIMPLEMENTED


async def test_what_is_not_built_says_so_in_a_sentence(api: Api) -> None:
    for call in (
        api.admin.DeleteGroup(pb.DeleteGroupRequest(name=PARENT), timeout=WAIT_S),
        api.admin.EnableAgent(pb.EnableAgentRequest(name=f"{PARENT}/agents/a1"), timeout=WAIT_S),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (UNIMPLEMENTED, "NOT_BUILT")
        assert "is not served by this version" in refusal.text
