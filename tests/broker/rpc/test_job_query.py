"""What a list of jobs is asked for - filter, order, page - over real gRPC, before a real store."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from broker.app import Broker
from protos.mesh.v1 import admin_service_pb2 as admin_pb
from protos.mesh.v1 import agent_service_pb2 as agent_pb
from protos.mesh.v1 import job_service_pb2 as pb
from tests.broker.rpc.peer import agent_on, failed, key_of, succeeded
from tests.broker.running import ORGANIZATION, PARENT, WAIT_S, Api, echo, refused

ENVIRONMENT = f"{ORGANIZATION}/environments/default"
INVALID = grpc.StatusCode.INVALID_ARGUMENT.value[0]


async def test_list_gives_every_job_once_in_pages_newest_first(api: Api) -> None:
    keys = [result.job_key for result in await api.submit_echo(7)]
    found: list[int] = []
    token = ""
    while True:
        request = pb.ListJobsRequest(parent=ORGANIZATION, page_size=3, page_token=token)
        response = await api.jobs.ListJobs(request, timeout=WAIT_S)
        found += [job.job_key for job in response.jobs]
        token = response.next_page_token
        if not token:
            break
        await api.submit_echo()  # what is new meanwhile is not in later pages
    assert found == sorted(keys, reverse=True)


async def test_list_holds_to_its_filter(broker: Broker, api: Api) -> None:
    async with agent_on(broker.mesh_address, "a1", slots=2) as agent:
        await api.submit(*[echo()] * 3, pb.JobSpec(operation="other.one"))
        done, _ = await agent.assigned(2)
        await agent.say(agent_pb.AgentFrame(outcomes=[succeeded(key_of(done))]))
        await agent.frame_with("assigns")
        for query, number in {
            "": 4,
            "operation = echo": 3,
            "state = succeeded": 1,
            "state=queued AND operation = other.one": 1,
            "agent = a1": 3,
            "agent = nobody": 0,
            "group = default": 4,
            f'group = "{PARENT}" AND state = assigned': 2,
        }.items():
            assert len(await api.listed(filter=query)) == number, query


@pytest.mark.req("R83")
async def test_list_is_searched_by_everything_that_people_know_of_a_job(broker: Broker, api: Api) -> None:
    async with agent_on(broker.mesh_address, "a1", slots=9) as agent:
        bad, good, *_ = await api.submit(
            echo(idempotency_key="order-1", fairness_key="tenant-1"), echo(), echo(fairness_key="tenant-1")
        )
        await api.submit(echo(delay=Duration(seconds=3_600)), parent=ENVIRONMENT)
        assigned = {one.job_key: key_of(one) for one in await agent.assigned(3)}
        await agent.report(failed(assigned[bad.job_key]))
        await agent.report(succeeded(assigned[good.job_key]))
    first, last = await api.job(bad.job_id), await api.job(good.job_id)
    accepted, ended = (f'"{at.ToJsonString()}"' for at in (first.accepted_at, last.finished_at))
    for query, number in {
        'idempotency_key = "order-1"': 1,
        "idempotency_key = order-1 AND state = failed": 1,
        "fairness_key = tenant-1": 2,
        'fairness_key = ""': 2,
        'code = "csv.bad_row"': 1,
        "environment = default": 1,
        f"accepted_at = {accepted}": 3,
        f"accepted_at > {accepted}": 1,
        f"accepted_at <= {accepted} AND state = succeeded": 1,
        f"finished_at >= {ended}": 1,
        f"finished_at < {ended}": 1,
        'accepted_at >= "2001-01-01T00:00:00+01:00" AND accepted_at < "2002-01-01T00:00:00Z"': 0,
        'finished_at > "2001-01-01T00:00:00Z"': 2,
    }.items():
        assert len(await api.listed(filter=query)) == number, query


async def test_jobs_of_a_removed_agent_and_of_a_removed_group_are_found_by_the_ids_that_these_had(
    broker: Broker, api: Api
) -> None:
    agent_name = f"{PARENT}/agents/a1"
    announced = admin_pb.CreateAgentRequest(parent=PARENT, agent_id="a1", agent=admin_pb.Agent())
    for _ in range(2):  # the second one is another agent
        await api.admin.CreateAgent(announced, timeout=WAIT_S)
        await api.submit_echo()
        async with agent_on(broker.mesh_address, "a1") as agent:
            await agent.report(succeeded(key_of((await agent.assigned(1))[0])))
        await removed_when_off(api, agent_name)
    assert len(await api.listed(filter="agent = a1")) == 2

    request = admin_pb.DeleteGroupRequest(name=PARENT, force=True)
    await api.admin.DeleteGroup(request, timeout=WAIT_S)

    for query in ("group = default", "agent = a1", f'group = "{PARENT}" AND agent = a1'):
        assert len(await api.listed(filter=query)) == 2, query
    made = admin_pb.CreateGroupRequest(parent=ORGANIZATION, group_id="default", group=admin_pb.Group())
    await api.admin.CreateGroup(made, timeout=WAIT_S)
    await api.admin.CreateAgent(announced, timeout=WAIT_S)
    for query in ("group = default", "agent = a1"):  # of all that had the id
        assert len(await api.listed(filter=query)) == 2, query
    assert (await refused(api.listed(filter="group = nowhere"))).code == grpc.StatusCode.NOT_FOUND.value[0]


async def removed_when_off(api: Api, name: str) -> None:
    """The agent is switched off, so that it can be removed at once."""
    await api.admin.DisableAgent(admin_pb.DisableAgentRequest(name=name, now=True), timeout=WAIT_S)
    await api.admin.DeleteAgent(admin_pb.DeleteAgentRequest(name=name), timeout=WAIT_S)


async def test_list_is_in_the_order_that_is_asked_for(broker: Broker, api: Api) -> None:
    results = await api.submit_echo(3)
    async with agent_on(broker.mesh_address) as agent:
        assigned = {one.job_key: key_of(one) for one in await agent.assigned(3)}
        for at in (1, 2, 0):
            await agent.report(succeeded(assigned[results[at].job_key]))
    keys = [result.job_key for result in results]
    for order_by, expected in {
        "": [2, 1, 0],
        "accepted_at": [0, 1, 2],
        "accepted_at  asc": [0, 1, 2],
        "accepted_at desc": [2, 1, 0],
        "finished_at": [1, 2, 0],
        "finished_at desc": [0, 2, 1],
    }.items():
        listed = [job.job_key for job in await api.listed(order_by=order_by)]
        assert listed == [keys[at] for at in expected], order_by
    by_end = await api.listed(filter='finished_at > "2001-01-01T00:00:00Z"')
    assert [job.job_key for job in by_end] == [keys[at] for at in (0, 2, 1)]
    refusal = await refused(api.listed(order_by="agent"))
    assert (refusal.code, refusal.reason, refusal.fields) == (INVALID, "MALFORMED_FILTER", ["order_by"])


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("state = eaten", "position 1: no state 'eaten'"),
        ("state succeeded x", "position 7: expected = or < or <= or > or >=, found 'succeeded'"),
        ("state < succeeded", "position 1: state is compared by = only"),
        ('accepted_at >= "today"', "position 1: 'today' is no time with a zone"),
        ('finished_at < "2026-11-21T10:00:00"', "is no time with a zone"),
        ('accepted_at > "2026-11-21T10:00:00Z" AND accepted_at >= "2026-11-21T10:00:00Z"', "is given twice"),
        ('accepted_at = "2026-11-21T10:00:00Z" AND accepted_at < "2026-11-21T10:00:00Z"', "is given twice"),
        ("colour = red", "position 1: there is no field 'colour'"),
        ("state = failed OR state = dead", "position 16: expected AND"),
        ("state = failed AND state = dead", "position 20: state is given twice"),
        ("state =", "position 8: expected `field = value`, found the end"),
        ('operation = "echo', "position"),
        (
            'group = "organizations/nowhere/groups/default"',
            "position 1: 'organizations/nowhere/groups/default' is neither",
        ),
        (f'group = "{ENVIRONMENT}"', "is neither an id nor a name like organizations/default/groups/ID"),
        ('group = ""', "is neither"),
        ('environment = "organizations/nowhere/environments/default"', "is neither"),
        ('environment = ""', "is neither"),
    ],
)
async def test_filter_that_is_wrong_is_refused_naming_the_position(api: Api, query: str, words: str) -> None:
    refusal = await refused(api.listed(filter=query))
    assert (refusal.code, refusal.reason, refusal.fields) == (INVALID, "MALFORMED_FILTER", ["filter"])
    assert words in refusal.text


async def test_page_token_of_another_list_is_refused(api: Api) -> None:
    await api.submit_echo(3)
    request = pb.ListJobsRequest(parent=ORGANIZATION, page_size=1)
    token = (await api.jobs.ListJobs(request, timeout=WAIT_S)).next_page_token
    for query in ({"page_token": token, "filter": "state = queued"}, {"page_token": "?"}, {"page_token": token[:-3]}):
        refusal = await refused(api.listed(**query))
        assert (refusal.code, refusal.reason) == (INVALID, "MALFORMED_PAGE_TOKEN")
