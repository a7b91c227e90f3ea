"""What operators say of how groups place and how agents are labelled: over real gRPC, at once and after a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from broker.app import Broker
from broker.dispatch.model import GroupNo, Placing
from broker.dispatch.placing import RoundRobin, Sampled
from protos.mesh.v1 import admin_service_pb2 as pb
from protos.mesh.v1 import agent_service_pb2 as pb_agent
from protos.mesh.v1 import job_service_pb2
from tests.broker.rpc.peer import agent_on, hello, key_of, stream_to, succeeded
from tests.broker.running import ORGANIZATION, PARENT, WAIT_S, Api, api_of, echo, job_name, refused, settings_of

A1 = f"{PARENT}/agents/a1"
POLICY = pb.GroupPolicy(
    placing=pb.GROUP_PLACING_POWER_OF_D,
    placing_choices=3,
    attempts_max=5,
    backoff_first=Duration(seconds=2),
    backoff_max=Duration(seconds=20),
    cancel_grace=Duration(seconds=7),
    queue_jobs_max=1,
    queue_bytes_max=1_000,
    prefetch=0.0,
)


async def update(api: Api, *paths: str, **policy: Any) -> pb.Group:
    group = pb.Group(name=PARENT, policy=pb.GroupPolicy(**policy))
    request = pb.UpdateGroupRequest(group=group, update_mask=FieldMask(paths=paths))
    return await api.admin.UpdateGroup(request, timeout=WAIT_S)


async def label(api: Api, **labels: str) -> pb.Agent:
    agent = pb.Agent(name=A1, operator_labels=labels)
    request = pb.UpdateAgentRequest(agent=agent, update_mask=FieldMask(paths=["operator_labels"]))
    return await api.admin.UpdateAgent(request, timeout=WAIT_S)


@pytest.mark.req("R87")
async def test_group_keeps_the_policy_that_it_was_made_with_over_a_restart(tmp_path: Path) -> None:
    async with Broker(settings_of(tmp_path)) as broker, api_of(broker) as api:
        request = pb.CreateGroupRequest(parent=ORGANIZATION, group_id="drawn", group=pb.Group(policy=POLICY))
        made = await api.admin.CreateGroup(request, timeout=WAIT_S)
        assert made.policy == POLICY
        plain = await api.admin.GetGroup(pb.GetGroupRequest(name=PARENT), timeout=WAIT_S)
        assert not plain.HasField("policy")
    async with Broker(settings_of(tmp_path)) as broker, api_of(broker) as api:
        assert await api.admin.GetGroup(pb.GetGroupRequest(name=made.name), timeout=WAIT_S) == made
        ledger = broker.engine.dispatcher(GroupNo(2)).ledger
        assert (ledger.policy.placing, ledger.policy.placing_choices) == (Placing.POWER_OF_D, 3)
        assert (ledger.policy.queue_jobs_max, ledger.policy.queue_bytes_max) == (1, 1_000)
        assert ledger.policy.prefetch == 0
        assert isinstance(ledger.placement, Sampled)


@pytest.mark.req("R87")
async def test_group_places_in_turn_from_the_moment_that_somebody_says_so(broker: Broker, api: Api) -> None:
    ledger = broker.engine.dispatcher(GroupNo(1)).ledger
    async with (
        agent_on(broker.mesh_address, "a1", slots=2) as small,
        agent_on(broker.mesh_address, "a2", slots=8) as big,
    ):
        changed = await update(api, "policy.placing", placing=pb.GROUP_PLACING_ROUND_ROBIN)
        assert changed.policy == pb.GroupPolicy(placing=pb.GROUP_PLACING_ROUND_ROBIN)
        assert isinstance(ledger.placement, RoundRobin)
        await api.submit_echo(4)
        assert len(await small.assigned(2)) == len(await big.assigned(2)) == 2  # by load it would be 1 to 3
        said = await api.admin.ExplainAgent(pb.ExplainAgentRequest(name=f"{PARENT}/agents/a2"), timeout=WAIT_S)
        assert "the group places by turns" in said.next_step
        await update(api, "policy")
        assert type(ledger.placement).__name__ == "Placement"


async def test_update_of_a_policy_changes_what_is_named_or_set_and_clears_by_name(api: Api) -> None:
    await update(api, "policy", placing=pb.GROUP_PLACING_RANDOM, attempts_max=5)
    found = await update(api, attempts_max=6)  # without a mask: what is set
    assert found.policy == pb.GroupPolicy(placing=pb.GROUP_PLACING_RANDOM, attempts_max=6)
    found = await update(api, "policy.attempts_max", attempts_max=9, queue_jobs_max=4)
    assert found.policy == pb.GroupPolicy(placing=pb.GROUP_PLACING_RANDOM, attempts_max=9)
    assert (await update(api, "policy.placing")).policy == pb.GroupPolicy(attempts_max=9)
    old = found.etag
    found = await update(api, "policy", backoff_first=Duration(seconds=1))
    assert (found.policy, found.etag != old) == (pb.GroupPolicy(backoff_first=Duration(seconds=1)), True)
    assert not (await update(api, "*")).HasField("policy")


@pytest.mark.req("R87")
async def test_agents_of_a_group_are_given_as_much_ahead_as_it_says_at_once(broker: Broker, api: Api) -> None:
    capacity = pb_agent.AgentFrame(capacity=pb_agent.Capacity(seq=2, attempts=4))
    async with agent_on(broker.mesh_address, "a1", slots=2) as here:
        await here.say(capacity)
        await api.submit_echo(9)
        first = await here.assigned(4)
        assert (await update(api, prefetch=0.5)).policy.prefetch == 0.5
        assert (await here.frame_with("group_settings")).group_settings.prefetch == 0.5
        await here.say(pb_agent.AgentFrame(outcomes=[succeeded(key_of(one)) for one in first[:2]]))
        assert len(await here.assigned(1)) == 1  # 3 of 3, though it has said that it holds 4
        async with stream_to(broker.mesh_address, "a2") as later:
            await later.say(hello("a2"))
            assert (await later.welcome()).group_settings.prefetch == 0.5
        await update(api, "policy.prefetch")
        assert not (await here.frame_with("group_settings")).group_settings.HasField("prefetch")


async def test_queue_bound_of_a_group_is_its_own_until_it_is_taken_back(api: Api) -> None:
    await update(api, queue_jobs_max=1)
    first, second = await api.submit_echo(2)
    assert not first.HasField("error")
    assert "1 live jobs" in second.error.message
    await update(api, "policy")
    (third,) = await api.submit_echo()
    assert not third.HasField("error")


async def test_queue_bound_is_kept_up_to_the_largest_number_of_the_store_and_refused_above(api: Api) -> None:
    assert (await update(api, queue_bytes_max=2**63 - 1)).policy.queue_bytes_max == 2**63 - 1
    assert (await refused(update(api, queue_bytes_max=2**63))).reason == "INVALID_MESSAGE"


async def test_first_wait_that_the_brokers_largest_would_cut_is_refused_in_words(api: Api) -> None:
    refusal = await refused(update(api, backoff_first=Duration(seconds=600)))
    assert refusal.reason == "INVALID_MESSAGE"
    assert "longer than backoff_max (300 s, the broker says)" in refusal.text


async def test_groups_are_found_by_how_they_place(api: Api) -> None:
    await update(api, placing=pb.GROUP_PLACING_RANDOM)
    request = pb.CreateGroupRequest(parent=ORGANIZATION, group_id="plain", group=pb.Group())
    await api.admin.CreateGroup(request, timeout=WAIT_S)
    found = await api.admin.ListGroups(pb.ListGroupsRequest(parent=ORGANIZATION, filter="placing = random"))
    assert [group.name for group in found.groups] == [PARENT]
    found = await api.admin.ListGroups(pb.ListGroupsRequest(parent=ORGANIZATION, order_by="placing"))
    assert [group.name.rpartition("/")[2] for group in found.groups] == ["default", "plain"]  # empty ones last


@pytest.mark.req("R80")
async def test_label_given_while_it_runs_brings_waiting_work_and_one_taken_away_brings_no_more(
    broker: Broker, api: Api
) -> None:
    async with agent_on(broker.mesh_address, "a1", slots=4, labels={"zone": "south", "disk": "ssd"}) as peer:
        (waiting,) = await api.submit(echo(labels={"zone": "north", "disk": "ssd"}))
        found = await label(api, zone="north")
        assert dict(found.labels) == {"zone": "north", "disk": "ssd"}
        assert dict(found.operator_labels) == {"zone": "north"}
        (assign,) = await peer.assigned(1)
        assert assign.job_id == waiting.job_id
        assert dict((await label(api)).labels) == {"zone": "south", "disk": "ssd"}
        (again,) = await api.submit(echo(labels={"zone": "north"}))
        await peer.report(succeeded(key_of(assign)))
        explain = job_service_pb2.ExplainJobRequest(name=job_name(again.job_id))
        said = await api.jobs.ExplainJob(explain, timeout=WAIT_S)
        assert "it lacks the label zone=north" in str(said)
        assert (await api.job(waiting.job_id)).finished_at.seconds  # what it held it finished


@pytest.mark.req("R80")
async def test_labels_of_an_announced_agent_win_over_its_claims_and_outlive_the_broker(tmp_path: Path) -> None:
    announced = pb.Agent(operator_labels={"zone": "north"}, rank=7)
    async with Broker(settings_of(tmp_path)) as broker, api_of(broker) as api:
        request = pb.CreateAgentRequest(parent=PARENT, agent_id="a1", agent=announced, validate_only=True)
        assert (await api.admin.CreateAgent(request, timeout=WAIT_S)).labels == announced.operator_labels
        request.validate_only = False
        made = await api.admin.CreateAgent(request, timeout=WAIT_S)
        assert (made.rank, dict(made.labels)) == (7, {"zone": "north"})
    async with Broker(settings_of(tmp_path)) as broker, api_of(broker) as api:
        found = await api.admin.GetAgent(pb.GetAgentRequest(name=A1), timeout=WAIT_S)
        assert (found.rank, dict(found.operator_labels), found.etag) == (7, {"zone": "north"}, made.etag)
        async with agent_on(broker.mesh_address, "a1", labels={"zone": "south", "os": "linux"}) as peer:
            live = await api.admin.GetAgent(pb.GetAgentRequest(name=A1), timeout=WAIT_S)
            assert dict(live.labels) == {"zone": "north", "os": "linux"}
            listed = await api.admin.ListAgents(pb.ListAgentsRequest(parent=PARENT, filter='labels : "zone=north"'))
            assert len(listed.agents) == 1
            await api.submit(echo(labels={"zone": "north"}))
            assert len(await peer.assigned(1)) == 1


async def test_update_with_an_old_etag_does_not_take_labels_back(broker: Broker, api: Api) -> None:
    request = pb.CreateAgentRequest(parent=PARENT, agent_id="a1", agent=pb.Agent())
    etag = (await api.admin.CreateAgent(request, timeout=WAIT_S)).etag
    await label(api, zone="north")
    mine = pb.UpdateAgentRequest(agent=pb.Agent(name=A1, operator_labels={"zone": "east"}, etag=etag))
    assert (await refused(api.admin.UpdateAgent(mine, timeout=WAIT_S))).reason == "CHANGED"
    mine.agent.etag, mine.validate_only = "", True
    assert dict((await api.admin.UpdateAgent(mine, timeout=WAIT_S)).labels) == {"zone": "east"}
    found = await api.admin.GetAgent(pb.GetAgentRequest(name=A1), timeout=WAIT_S)
    assert dict(found.labels) == {"zone": "north"}
