"""Policies of operations: what the settings say, under numbers that never change."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from broker.app import Broker
from broker.dispatch.model import GroupNo, OnLoss
from broker.errors import ConfigError
from broker.settings import Settings
from protos.mesh.v1 import admin_service_pb2 as admin_pb
from protos.mesh.v1 import job_service_pb2 as pb
from tests.broker.running import PARENT, WAIT_S, api_of, echo, settings_of

GROUP = GroupNo(1)
COPY = {"exclusive": True, "running_max": 2, "on_loss": "hold", "backoff_first_s": 0.5}


def test_operation_has_what_is_said_of_it_and_the_rest_as_all_have() -> None:
    settings = Settings.load({"dispatch": {"failures_max": 7}, "operations": {"files.copy": COPY}})
    policy = settings.operation_policy("files.copy")
    assert (policy.exclusive, policy.running_max, policy.on_loss) == (True, 2, OnLoss.HOLD)
    assert (policy.backoff_first_us, policy.failures_max) == (500_000, 7)
    assert settings.operation_policy("echo") == settings.dispatch.operation_policy()


@pytest.mark.parametrize(
    ("operations", "words"),
    [
        ({"files.copy": {"exclusiv": True}}, "operations.files.copy.exclusiv: there is no such setting; did you mean"),
        ({"files.copy": {"backoff_first_s": 9, "backoff_max_s": 1}}, "backoff_first_s must not be above backoff_max_s"),
        ({"Files": {}}, "operations.Files"),
    ],
)
def test_settings_of_an_operation_are_checked(operations: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load({"operations": operations})
    assert words in str(caught.value)


async def test_jobs_keep_the_policy_under_which_they_were_accepted_and_numbers_are_found_again(tmp_path: Path) -> None:
    with_copy = settings_of(tmp_path, operations={"echo": COPY})
    async with Broker(with_copy) as broker, api_of(broker) as api:
        await api.submit(echo())
        first = dict(broker.engine.dispatcher(GROUP).ledger.policies)
        assert [(policy.exclusive, policy.running_max) for policy in first.values()] == [(True, 2)]
    async with Broker(settings_of(tmp_path)) as broker, api_of(broker) as api:
        await api.submit(echo())
        both = dict(broker.engine.dispatcher(GROUP).ledger.policies)
        assert len(both) == 2
    async with Broker(with_copy) as broker, api_of(broker) as api:
        await api.submit(echo())
        assert broker.engine.dispatcher(GROUP).ledger.policies == both
        jobs = list(broker.engine.dispatcher(GROUP).ledger.jobs.values())
        assert [job.policy.exclusive for job in jobs] == [True, False, True]
        assert [job.lane.limit_key for job in jobs] == ["echo", "", "echo"]


async def test_group_has_its_own_policy_and_operations_have_theirs_before_it(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, operations={"files.copy": {"failures_max": 9}}, dispatch={"failures_max": 4})
    async with Broker(settings) as broker, api_of(broker) as api:
        await api.submit(echo())
        policy = admin_pb.GroupPolicy(attempts_max=7, backoff_first=Duration(seconds=3))
        update = admin_pb.UpdateGroupRequest(group=admin_pb.Group(name=PARENT, policy=policy))
        await api.admin.UpdateGroup(update, timeout=WAIT_S)
        await api.submit(echo(), pb.JobSpec(operation="files.copy"))
    async with Broker(settings) as broker, api_of(broker) as api:
        await api.submit(echo())
        jobs = list(broker.engine.dispatcher(GROUP).ledger.jobs.values())
        assert [job.policy.failures_max for job in jobs] == [4, 7, 9, 7]
        assert [job.policy.backoff_first_us for job in jobs] == [1_000_000, 3_000_000, 3_000_000, 3_000_000]
        assert len({job.policy.no for job in jobs}) == 3
