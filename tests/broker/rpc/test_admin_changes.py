"""Changing and removing organisations, environments, groups and agents over real gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2

from broker.app import STORE_FILE, Broker
from broker.control.resources import AgentView
from broker.dispatch.model import GroupNo
from broker.rpc import admin
from broker.rpc.admin_convert import agent_of
from broker.rpc.lists import ORDERS
from broker.store.base import GroupRow
from broker.store.sqlite import SqliteStore
from protos.mesh.v1 import admin_service_pb2 as pb
from protos.mesh.v1 import agent_service_pb2 as agent_pb
from protos.mesh.v1 import job_pb2, job_service_pb2
from tests.broker.rpc.peer import agent_on, hello, stream_to
from tests.broker.running import ORGANIZATION, PARENT, WAIT_S, Api, Refusal, api_of, refused, settings_of

A1 = f"{PARENT}/agents/a1"
ENVIRONMENT = f"{ORGANIZATION}/environments/default"
ABORTED = grpc.StatusCode.ABORTED.value[0]
INVALID = grpc.StatusCode.INVALID_ARGUMENT.value[0]
FULL = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
NOT_FOUND = grpc.StatusCode.NOT_FOUND.value[0]
WRONG_STATE = grpc.StatusCode.FAILED_PRECONDITION.value[0]


def update_group(
    api: Api, *paths: str, name: str = PARENT, validate_only: bool = False, **values: Any
) -> Awaitable[Any]:
    request = pb.UpdateGroupRequest(
        group=pb.Group(name=name, **values), update_mask=FieldMask(paths=paths), validate_only=validate_only
    )
    return api.admin.UpdateGroup(request, timeout=WAIT_S)


def get_group(api: Api, name: str = PARENT) -> Awaitable[pb.Group]:
    return api.admin.GetGroup(pb.GetGroupRequest(name=name), timeout=WAIT_S)


async def make_group(api: Api, group_id: str, **values: Any) -> pb.Group:
    request = pb.CreateGroupRequest(parent=ORGANIZATION, group_id=group_id, group=pb.Group(**values))
    return await api.admin.CreateGroup(request, timeout=WAIT_S)


async def make_agent(api: Api, agent_id: str, parent: str = PARENT, **values: Any) -> pb.Agent:
    request = pb.CreateAgentRequest(parent=parent, agent_id=agent_id, agent=pb.Agent(**values))
    return await api.admin.CreateAgent(request, timeout=WAIT_S)


# --- changes --------------------------------------------------------------------------------------------------------


@pytest.mark.req("R17")
async def test_mask_says_what_of_a_group_changes(api: Api) -> None:
    before = await get_group(api)
    named = await update_group(
        api, "display_name", display_name="Plant 7", description="not this", mode=pb.GROUP_MODE_SPILL
    )
    assert (named.display_name, named.description, named.mode) == ("Plant 7", "", pb.GROUP_MODE_BALANCED)
    assert named.etag != before.etag
    without = await update_group(api, description="what is set", central_logging=False)
    assert (without.display_name, without.description) == ("Plant 7", "what is set")
    assert not without.central_logging
    whole = await update_group(api, "*", mode=pb.GROUP_MODE_SPILL, inactive_jobs=pb.INACTIVE_JOBS_REFUSE)
    assert (whole.display_name, whole.description, whole.central_logging) == ("default", "", True)
    assert (whole.mode, whole.inactive_jobs) == (pb.GROUP_MODE_SPILL, pb.INACTIVE_JOBS_REFUSE)
    assert await get_group(api) == whole
    assert whole.created_at == before.created_at


async def test_mask_of_what_people_cannot_change_is_refused(api: Api) -> None:
    refusal = await refused(update_group(api, "kind", kind=pb.GROUP_KIND_MANAGED))
    assert (refusal.code, refusal.reason) == (INVALID, "INVALID_MESSAGE")
    unnamed = pb.UpdateGroupRequest(group=pb.Group(display_name="x"))
    assert (await refused(api.admin.UpdateGroup(unnamed, timeout=WAIT_S))).code == INVALID


async def test_change_of_something_older_is_refused_everywhere(api: Api) -> None:
    await make_agent(api, "a1")
    old: dict[str, Any] = {"display_name": "New", "etag": "0123"}
    admin = api.admin
    calls: list[Awaitable[Any]] = [
        update_group(api, **old),
        admin.UpdateOrganization(
            pb.UpdateOrganizationRequest(organization=pb.Organization(name=ORGANIZATION, **old)), timeout=WAIT_S
        ),
        admin.UpdateEnvironment(
            pb.UpdateEnvironmentRequest(environment=pb.Environment(name=ENVIRONMENT, **old)), timeout=WAIT_S
        ),
        admin.UpdateAgent(pb.UpdateAgentRequest(agent=pb.Agent(name=A1, **old)), timeout=WAIT_S),
        admin.DeleteGroup(pb.DeleteGroupRequest(name=PARENT, etag="0123", force=True), timeout=WAIT_S),
        admin.DeleteEnvironment(pb.DeleteEnvironmentRequest(name=ENVIRONMENT, etag="0123"), timeout=WAIT_S),
        admin.DeleteOrganization(
            pb.DeleteOrganizationRequest(name=ORGANIZATION, etag="0123", force=True), timeout=WAIT_S
        ),
    ]
    for call in calls:
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (ABORTED, "CHANGED")
    assert (await get_group(api)).display_name == "Default"


async def test_etag_of_what_was_read_lets_one_change_through(api: Api) -> None:
    etag = (await get_group(api)).etag
    assert (await update_group(api, "display_name", display_name="One", etag=etag)).display_name == "One"
    assert (await refused(update_group(api, "display_name", display_name="Two", etag=etag))).code == ABORTED
    again = (await get_group(api)).etag
    checked = await update_group(api, "display_name", display_name="Two", etag=again, validate_only=True)
    assert checked.display_name == "Two"
    assert (await get_group(api)).etag == again


async def test_etag_of_what_was_removed_is_not_that_of_what_is_made_again(api: Api) -> None:
    calls, etags = api.admin, list[str]()
    for _ in range(2):
        agent = await make_agent(api, "a1")
        assert agent.etag == (await calls.GetAgent(pb.GetAgentRequest(name=A1), timeout=WAIT_S)).etag
        group = await make_group(api, "g")
        new = pb.Environment()
        wanted = pb.CreateEnvironmentRequest(parent=ORGANIZATION, environment_id="e", environment=new)
        environment = await calls.CreateEnvironment(wanted, timeout=WAIT_S)
        organization = pb.CreateOrganizationRequest(organization_id="o", organization=pb.Organization())
        other = await calls.CreateOrganization(organization, timeout=WAIT_S)
        etags += [agent.etag, group.etag, environment.etag, other.etag]
        await calls.DeleteAgent(pb.DeleteAgentRequest(name=A1, etag=agent.etag), timeout=WAIT_S)
        await calls.DeleteGroup(pb.DeleteGroupRequest(name=group.name), timeout=WAIT_S)
        await calls.DeleteEnvironment(pb.DeleteEnvironmentRequest(name=environment.name), timeout=WAIT_S)
        await calls.DeleteOrganization(pb.DeleteOrganizationRequest(name=other.name), timeout=WAIT_S)
    assert len(set(etags)) == len(etags)


@pytest.mark.req("R11")
async def test_description_is_free_text_of_a_thousand_characters(api: Api) -> None:
    text = "<b>; ? & = . ` ' \" \\ { }" + "\N{SNOWMAN}" * 976
    assert len(text) == 1_000
    assert (await update_group(api, "description", description=text)).description == text
    refusal = await refused(update_group(api, "description", description=text + "x"))
    assert (refusal.code, refusal.fields) == (INVALID, ["group.description"])
    assert (await make_group(api, "second", description=text)).description == text


async def test_organization_and_environment_are_changed(api: Api) -> None:
    await make_group(api, "second")
    second = f"{ORGANIZATION}/groups/second"
    organization = pb.Organization(name=ORGANIZATION, description="ours")
    changed = await api.admin.UpdateOrganization(
        pb.UpdateOrganizationRequest(organization=organization), timeout=WAIT_S
    )
    assert (changed.display_name, changed.description) == ("Default", "ours")
    environment = pb.Environment(name=ENVIRONMENT, target_group=second)
    led = await api.admin.UpdateEnvironment(pb.UpdateEnvironmentRequest(environment=environment), timeout=WAIT_S)
    assert (led.target_group, list(led.groups)) == (second, [PARENT, second])
    cleared = pb.UpdateEnvironmentRequest(
        environment=pb.Environment(name=ENVIRONMENT), update_mask=FieldMask(paths=["target_group", "groups"])
    )
    none = await api.admin.UpdateEnvironment(cleared, timeout=WAIT_S)
    assert (none.target_group, list(none.groups)) == ("", [])
    foreign = pb.Environment(name=ENVIRONMENT, target_group="organizations/other/groups/g")
    request = pb.UpdateEnvironmentRequest(environment=foreign)
    assert (await refused(api.admin.UpdateEnvironment(request, timeout=WAIT_S))).code == NOT_FOUND


@pytest.mark.req("R44", "R45", "R49")
async def test_agent_is_listed_when_it_is_added_and_called_as_people_want_while_it_does_not_run(
    broker: Broker, api: Api
) -> None:
    made = await make_agent(api, "a1", display_name="host-1.example.org", description="in the cellar")
    assert (made.display_name, made.description) == ("host-1.example.org", "in the cellar")
    assert (made.status, made.slots) == (pb.AGENT_STATUS_AWAITING_SETUP, 0)
    listed = await api.admin.ListAgents(pb.ListAgentsRequest(parent=PARENT), timeout=WAIT_S)
    assert list(listed.agents) == [made]
    (job,) = await api.submit_echo()
    assert (await api.job(job.job_id)).state == job_pb2.JOB_STATE_QUEUED

    async def change(**values: Any) -> pb.Agent:
        agent = pb.Agent(name=A1, **values)
        return await api.admin.UpdateAgent(pb.UpdateAgentRequest(agent=agent), timeout=WAIT_S)

    assert (await change(display_name="Host 1")).display_name == "Host 1"
    async with agent_on(broker.mesh_address):
        refusal = await refused(change(display_name="Host 2"))
        assert (refusal.code, refusal.reason) == (WRONG_STATE, "AGENT_WRONG_STATE")
        ranked = await change(rank=2)
        assert (ranked.rank, ranked.display_name, ranked.status) == (2, "Host 1", pb.AGENT_STATUS_ACTIVE)
        assert list(ranked.status_synonyms) == ["Running", "Active"]


@pytest.mark.req("R47")
async def test_agent_is_added_to_a_group_only(api: Api) -> None:
    for parent in (ORGANIZATION, f"{ORGANIZATION}/groups/-", ""):
        assert (await refused(make_agent(api, "a1", parent))).code == INVALID


@pytest.mark.req("R42", "R63")
async def test_agent_is_in_the_group_that_it_was_made_in_and_in_no_other(broker: Broker, api: Api) -> None:
    second = (await make_group(api, "second")).name
    await make_agent(api, "a1")
    await make_agent(api, "a1", second)  # another one of the same name
    names = [A1, f"{second}/agents/a1"]
    found = await api.admin.ListAgents(pb.ListAgentsRequest(parent=f"{ORGANIZATION}/groups/-"), timeout=WAIT_S)
    assert [agent.name for agent in found.agents] == names
    for parent, name in ((PARENT, names[0]), (second, names[1])):
        listed = await api.admin.ListAgents(pb.ListAgentsRequest(parent=parent), timeout=WAIT_S)
        assert ([agent.name for agent in listed.agents], listed.total_size) == ([name], 1)
    moved = pb.UpdateAgentRequest(agent=pb.Agent(name=names[0]), update_mask=FieldMask(paths=["name"]))
    assert (await refused(api.admin.UpdateAgent(moved, timeout=WAIT_S))).code == INVALID


# --- removals -------------------------------------------------------------------------------------------------------


@pytest.mark.req("R17", "R50")
async def test_group_is_removed_with_its_agents_and_what_they_run(broker: Broker, api: Api) -> None:
    async with agent_on(broker.mesh_address, slots=1) as agent:
        first, second = await api.submit_echo(2)
        await agent.assigned(1)
        request = pb.DeleteGroupRequest(name=PARENT)
        refusal = await refused(api.admin.DeleteGroup(request, timeout=WAIT_S))
        assert (refusal.code, refusal.reason) == (WRONG_STATE, "GROUP_IN_USE")
        request.force = request.validate_only = True
        would = await api.admin.DeleteGroup(request, timeout=WAIT_S)
        assert (list(would.agents), list(would.environments), would.jobs) == ([A1], [ENVIRONMENT], 2)
        assert (await get_group(api)).jobs_running == 1

        request.validate_only = False
        assert await api.admin.DeleteGroup(request, timeout=WAIT_S) == would

        assert (await agent.ending())[0] == grpc.StatusCode.PERMISSION_DENIED
    assert (await refused(get_group(api))).code == NOT_FOUND
    async with stream_to(broker.mesh_address) as peer:
        await peer.say(hello("a1"))
        reject = (await peer.frame_with("welcome", "reject")).reject
        assert reject.code == agent_pb.REJECT_CODE_UNKNOWN_GROUP
    for job in (first, second):
        shown = await ended(api, job.job_id)
        assert (shown.state, shown.failure.code) == (job_pb2.JOB_STATE_CANCELLED, "group_removed")
    assert (await refused(api.submit_echo())).code == NOT_FOUND


async def ended(api: Api, job_id: bytes) -> job_pb2.Job:
    """The job once it is final."""
    request = job_service_pb2.WatchJobsRequest(parent=ORGANIZATION, job_ids=[job_id])
    watch = api.jobs.WatchJobs(request, timeout=WAIT_S)
    async for message in watch:
        if any(job.state >= job_pb2.JOB_STATE_SUCCEEDED for job in message.jobs):
            watch.cancel()
            break
    return await api.job(job_id)


async def test_environment_and_organization_are_removed(api: Api) -> None:
    gone = await api.admin.DeleteEnvironment(pb.DeleteEnvironmentRequest(name=ENVIRONMENT), timeout=WAIT_S)
    assert list(gone.groups) == [PARENT]
    assert not (await get_group(api)).environments
    request = pb.DeleteOrganizationRequest(name=ORGANIZATION)
    assert (await refused(api.admin.DeleteOrganization(request, timeout=WAIT_S))).reason == "ORGANIZATION_IN_USE"
    request.force = True
    assert list((await api.admin.DeleteOrganization(request, timeout=WAIT_S)).groups) == [PARENT]
    found = await api.admin.ListOrganizations(pb.ListOrganizationsRequest(), timeout=WAIT_S)
    assert not found.organizations


# --- groups as they are ---------------------------------------------------------------------------------------------


@pytest.mark.req("R04", "R65", "R70", "R73")
async def test_group_shows_its_status_its_jobs_and_what_is_unwise(broker: Broker, api: Api) -> None:
    lonely = await make_group(api, "lonely")
    assert [warning.code for warning in lonely.warnings] == ["no_environment", "few_agents"]
    await api.submit_echo(3)
    waiting = await get_group(api)
    assert (waiting.status, waiting.jobs_waiting, waiting.jobs_running) == (pb.GROUP_STATUS_INACTIVE, 3, 0)
    async with agent_on(broker.mesh_address, slots=2) as agent:
        await agent.assigned(2)
        working = await get_group(api)
        assert (working.status, working.agents_active, working.agents_total) == (pb.GROUP_STATUS_ACTIVE, 1, 1)
        assert (working.jobs_waiting, working.jobs_running) == (1, 2)
        assert [warning.code for warning in working.warnings] == ["few_agents"]
        request = pb.ListGroupsRequest(parent=ORGANIZATION, filter="warnings = no_environment")
        marked = await api.admin.ListGroups(request, timeout=WAIT_S)
        assert [group.name for group in marked.groups] == [lonely.name]


@pytest.mark.req("R87")
async def test_ordered_group_works_on_the_lowest_rank_that_there_is(broker: Broker, api: Api) -> None:
    await update_group(api, "mode", mode=pb.GROUP_MODE_ORDERED)
    for agent_id, rank in (("a1", 1), ("a2", 0)):
        await make_agent(api, agent_id)
        agent = pb.Agent(name=f"{PARENT}/agents/{agent_id}", rank=rank)
        request = pb.UpdateAgentRequest(agent=agent, update_mask=FieldMask(paths=["rank"]))
        await api.admin.UpdateAgent(request, timeout=WAIT_S)
    async with (
        agent_on(broker.mesh_address, "a1", slots=8) as second,
        agent_on(broker.mesh_address, "a2", slots=8) as first,
    ):
        await api.submit_echo(6)
        assert len(await first.assigned(6)) == 6
        await api.admin.DisableAgent(pb.DisableAgentRequest(name=f"{PARENT}/agents/a2"), timeout=WAIT_S)
        await api.submit_echo(2)
        assert len(await second.assigned(2)) == 2
        assert sorted(job.agent for job in await api.listed()) == ["a1"] * 2 + ["a2"] * 6


@pytest.mark.req("R71")
async def test_group_that_lets_no_job_wait_refuses_jobs_until_an_agent_is_active(broker: Broker, api: Api) -> None:
    await update_group(api, "inactive_jobs", inactive_jobs=pb.INACTIVE_JOBS_REFUSE)
    (result,) = await api.submit_echo()
    refusal = Refusal(result.error)
    assert (refusal.code, refusal.reason) == (WRONG_STATE, "GROUP_INACTIVE")
    async with agent_on(broker.mesh_address) as agent:
        (accepted,) = await api.submit_echo()
        assert not accepted.HasField("error")
        await agent.assigned(1)


@pytest.mark.req("R07", "R08")
async def test_agents_are_searched_and_ordered_by_what_they_are(broker: Broker, api: Api) -> None:
    names = {"a1": ("9.2", "10.0.0.9"), "a2": ("10.0", "10.0.0.10"), "a3": ("", "")}
    for agent_id in names:
        await make_agent(api, agent_id, description="the third" if agent_id == "a3" else "")
    for agent_id, (version, ip) in names.items():
        if version:
            async with stream_to(broker.mesh_address, agent_id) as peer:
                greeting = hello(agent_id)
                greeting.hello.version, greeting.hello.ip = version, ip
                await peer.say(greeting)
                await peer.frame_with("welcome")

    async def ids(**query: Any) -> list[str]:
        request = pb.ListAgentsRequest(parent=f"{ORGANIZATION}/groups/-", **query)
        found: list[str] = []
        while True:
            page = await api.admin.ListAgents(request, timeout=WAIT_S)
            found += [agent.name.rpartition("/")[2] for agent in page.agents]
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found

    for field in ("version", "ip"):
        assert await ids(order_by=field, page_size=1) == ["a1", "a2", "a3"]
        assert await ids(order_by=f"{field} desc", page_size=1) == ["a2", "a1", "a3"]
    assert await ids(order_by="rank desc, name desc", page_size=2) == ["a3", "a2", "a1"]
    assert await ids(filter="third") == ["a3"]
    assert await ids(filter="A1") == ["a1"]
    assert await ids(filter="default") == []  # not in what the agents belong to


async def test_only_the_agents_of_a_page_become_messages(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for agent_id in ("a1", "a2", "a3"):
        await make_agent(api, agent_id)
    shown: list[str] = []

    def counted(view: AgentView, group_name: str) -> pb.Agent:
        shown.append(view.name.agent_id)
        return agent_of(view, group_name)

    monkeypatch.setattr(admin, "agent_of", counted)
    request = pb.ListAgentsRequest(parent=PARENT, page_size=1, order_by="name desc", filter="status = awaiting_setup")
    page = await api.admin.ListAgents(request, timeout=WAIT_S)
    assert (shown, [agent.name for agent in page.agents], page.total_size) == (["a3"], [f"{PARENT}/agents/a3"], 3)


@pytest.mark.req("R08", "R43")
async def test_every_column_of_every_list_orders_both_ways(api: Api) -> None:
    await make_agent(api, "a1")
    admin = api.admin
    lists: dict[Any, Any] = {
        pb.Organization: lambda order: admin.ListOrganizations(pb.ListOrganizationsRequest(order_by=order)),
        pb.Environment: lambda order: admin.ListEnvironments(
            pb.ListEnvironmentsRequest(parent=ORGANIZATION, order_by=order)
        ),
        pb.Group: lambda order: admin.ListGroups(pb.ListGroupsRequest(parent=ORGANIZATION, order_by=order)),
        pb.Agent: lambda order: admin.ListAgents(pb.ListAgentsRequest(parent=PARENT, order_by=order)),
    }
    assert set(lists) == set(ORDERS)
    for kind, read in lists.items():
        for field in ORDERS[kind]:
            for order in (field, f"{field} desc"):
                assert (await read(order)).total_size == 1, order


# --- the plan -------------------------------------------------------------------------------------------------------


@pytest.mark.req("R16", "R48")
async def test_limit_of_the_plan_is_shown_and_refuses_with_whom_to_ask(tmp_path: Path) -> None:
    plan: dict[str, Any] = {"groups_max": 1, "agents_max": 1, "contact": "ops@example.org"}
    settings = settings_of(tmp_path, plans={"default": plan})
    async with Broker(settings) as broker, api_of(broker) as api:
        await make_agent(api, "a1")
        calls: list[tuple[Awaitable[Any], str]] = [
            (make_group(api, "g"), "GROUP_QUOTA"),
            (make_agent(api, "a2"), "AGENT_QUOTA"),
        ]
        for call, reason in calls:
            refusal = await refused(call)
            assert (refusal.code, refusal.reason) == (FULL, reason)
            assert refusal.kinds == {"ErrorInfo", "QuotaFailure"}  # waiting mends nothing
            said = refusal.detail(error_details_pb2.ErrorInfo).metadata
            assert (said["limit"], said["current"], said["contact"]) == ("1", "1", "ops@example.org")
            (violation,) = refusal.detail(error_details_pb2.QuotaFailure).violations
            assert violation.subject.startswith(f"{ORGANIZATION}/")
            assert "ask ops@example.org for more" in violation.description
        request = pb.GetOrganizationRequest(name=ORGANIZATION)
        shown = await api.admin.GetOrganization(request, timeout=WAIT_S)
        assert (shown.groups_total, shown.agents_total) == (1, 1)
        assert shown.limits == pb.OrganizationLimits(**plan)


# --- managed groups -------------------------------------------------------------------------------------------------

CLOUD = f"{ORGANIZATION}/groups/cloud"
CLOUD_AGENT = f"{CLOUD}/agents/c1"


@pytest_asyncio.fixture
async def managed(tmp_path: Path) -> AsyncIterator[tuple[Broker, Api]]:
    """A broker whose organization has a managed group with an agent."""
    settings = settings_of(tmp_path)
    async with Broker(settings):
        pass
    store = SqliteStore(settings.data_dir / STORE_FILE)
    await store.open()
    await store.insert_group(GroupRow(GroupNo(0), 1, "cloud", "Cloud", "", "managed", True, 1))
    await store.close()
    async with (
        Broker(settings) as broker,
        api_of(broker) as api,
        stream_to(broker.mesh_address, identity="default/cloud/c1") as peer,
    ):
        await peer.say(hello("c1"))
        assert (await peer.welcome()).session_id
        yield broker, api


async def is_managed(call: Awaitable[Any]) -> None:
    refusal = await refused(call)
    assert (refusal.code, refusal.reason) == (WRONG_STATE, "GROUP_MANAGED")


@pytest.mark.req("R20")
async def test_managed_group_is_not_edited(managed: tuple[Broker, Api]) -> None:
    _, api = managed
    before = await get_group(api, CLOUD)
    await is_managed(update_group(api, name=CLOUD, display_name="Mine"))
    await is_managed(update_group(api, name=CLOUD, display_name="Mine", validate_only=True))
    assert await get_group(api, CLOUD) == before


@pytest.mark.req("R20")
async def test_organization_gets_no_more_managed_groups(managed: tuple[Broker, Api]) -> None:
    _, api = managed
    await is_managed(make_group(api, "cloud-2", kind=pb.GROUP_KIND_MANAGED))


@pytest.mark.req("R20")
async def test_managed_group_always_logs_centrally(managed: tuple[Broker, Api]) -> None:
    _, api = managed
    assert (await get_group(api, CLOUD)).central_logging
    await is_managed(update_group(api, "central_logging", name=CLOUD, central_logging=False))
    assert (await get_group(api, CLOUD)).central_logging


@pytest.mark.req("R20")
async def test_managed_group_is_not_removed(managed: tuple[Broker, Api]) -> None:
    _, api = managed
    for force in (False, True):
        await is_managed(api.admin.DeleteGroup(pb.DeleteGroupRequest(name=CLOUD, force=force), timeout=WAIT_S))


@pytest.mark.req("R20")
async def test_how_a_managed_group_treats_its_jobs_is_neither_seen_nor_changed(managed: tuple[Broker, Api]) -> None:
    _, api = managed
    shown = await get_group(api, CLOUD)
    assert (shown.kind, shown.status) == (pb.GROUP_KIND_MANAGED, pb.GROUP_STATUS_ACTIVE)
    assert not shown.HasField("policy")
    assert not shown.warnings
    await is_managed(update_group(api, "mode", name=CLOUD, mode=pb.GROUP_MODE_ORDERED))


@pytest.mark.req("R20", "R42")
async def test_agents_of_a_managed_group_are_not_seen_and_not_managed(managed: tuple[Broker, Api]) -> None:
    _, api = managed
    admin = api.admin
    await is_managed(admin.ListAgents(pb.ListAgentsRequest(parent=CLOUD), timeout=WAIT_S))
    everywhere = pb.ListAgentsRequest(parent=f"{ORGANIZATION}/groups/-")
    assert not (await admin.ListAgents(everywhere, timeout=WAIT_S)).agents
    await is_managed(make_agent(api, "c2", CLOUD))
    requests: list[tuple[Any, Any]] = [
        (admin.GetAgent, pb.GetAgentRequest(name=CLOUD_AGENT)),
        (admin.ExplainAgent, pb.ExplainAgentRequest(name=CLOUD_AGENT)),
        (admin.UpdateAgent, pb.UpdateAgentRequest(agent=pb.Agent(name=CLOUD_AGENT, rank=1))),
        (admin.DeleteAgent, pb.DeleteAgentRequest(name=CLOUD_AGENT)),
        (admin.DrainAgent, pb.DrainAgentRequest(name=CLOUD_AGENT, mode=agent_pb.DRAIN_MODE_STOP)),
        (admin.CancelDrain, pb.CancelDrainRequest(name=CLOUD_AGENT)),
        (admin.ResumeAgent, pb.ResumeAgentRequest(name=CLOUD_AGENT)),
        (admin.DisableAgent, pb.DisableAgentRequest(name=CLOUD_AGENT)),
        (admin.EnableAgent, pb.EnableAgentRequest(name=CLOUD_AGENT)),
    ]
    for method, request in requests:
        await is_managed(method(request, timeout=WAIT_S))
    assert (await get_group(api, CLOUD)).agents_active == 1
