from __future__ import annotations

import random

import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from broker.rpc.interceptors import checked
from broker.rpc.services import API_SERVICES, MESH_SERVICES
from protos.mesh.v1 import agent_service_pb2 as pb
from tests.chaos import floods, mangled
from tests.chaos.mangled import METHODS, case, polite, varint

NUMBER = 40 * len(METHODS)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_what_is_mangled_was_polite_before(method: MethodDescriptor) -> None:
    for seed in range(5):
        checked(polite(method, random.Random(seed)))


def test_every_method_of_both_ports_has_its_turn() -> None:
    assert {method.containing_service.full_name for method in METHODS} == {*API_SERVICES, *MESH_SERVICES}
    assert {case(1, number)[0] for number in range(len(METHODS))} == set(METHODS)


def test_case_is_the_same_of_the_same_seed_and_number() -> None:
    assert [case(1, number)[1] for number in range(60)] == [case(1, number)[1] for number in range(60)]
    assert case(1, 7)[1] != case(2, 7)[1]


def test_some_cases_are_no_messages_some_break_the_rules_and_some_are_welcome() -> None:
    verdicts = {"none": 0, "wrong": 0, "welcome": 0}
    for number in range(NUMBER):
        method, content = case(3, number)
        try:
            checked(GetMessageClass(method.input_type).FromString(content))
        except DecodeError:
            verdicts["none"] += 1
        except Exception:  # noqa: BLE001 - the rules of the contract
            verdicts["wrong"] += 1
        else:
            verdicts["welcome"] += 1
    assert min(verdicts.values()) > NUMBER / 20, verdicts


@pytest.mark.parametrize("number", [1, 127, 128, 2**32, 2**63 - 1, -1, -(2**63)])
def test_numbers_are_written_as_protobuf_writes_them(number: int) -> None:
    assert b"\x08" + varint(number) == pb.Rejected(job_key=number).SerializeToString()


def test_floods_keep_the_contract_and_name_the_jobs_that_they_send() -> None:
    checked(floods._chatter(1))
    first, second = floods.job_ids(1), floods.job_ids(1)
    assert [next(first) for _ in range(5)] == [next(second) for _ in range(5)]


def test_victims_are_never_what_the_others_speak_of() -> None:
    for method in METHODS:
        request = polite(method, random.Random(1))
        name = getattr(request, "name", "")
        assert (mangled.VICTIM in name) is method.name.startswith("Delete")
