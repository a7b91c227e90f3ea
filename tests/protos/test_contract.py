"""What holds for the whole contract, read from its descriptors, and what its rules refuse."""

from collections.abc import Iterator
from functools import cache

import protovalidate
import pytest
from google.protobuf import duration_pb2, field_mask_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, SourceCodeInfo
from google.protobuf.message import Message

from protos import generate
from protos.mesh.v1 import admin_service_pb2 as admin
from protos.mesh.v1 import agent_service_pb2 as agent
from protos.mesh.v1 import job_pb2, job_service_pb2
from protos.vendored import validate_pb2

FILES: list[FileDescriptor] = [module.DESCRIPTOR for module in (admin, agent, job_pb2, job_service_pb2)]
MESSAGES: list[Descriptor] = [message for file in FILES for message in file.message_types_by_name.values()]
ENUMS: list[EnumDescriptor] = [enum for file in FILES for enum in file.enum_types_by_name.values()]
SERVICES: list[ServiceDescriptor] = [service for file in FILES for service in file.services_by_name.values()]

# Fields of requests whose size something else bounds than a rule.
BOUNDED_ELSEWHERE = {
    "mesh.v1.JobSpec.payload": "the broker's payload limit, a setting",
    "mesh.v1.Result.content": "Limits.result_bytes_max, a setting",
    "mesh.v1.Result.content_type": "the frame",
    "mesh.v1.Failure.code": "the frame",
    "mesh.v1.Failure.message": "truncated by the broker at Limits.failure_message_bytes_max",
    "mesh.v1.AgentFrame.rejected": "the frame",
    "mesh.v1.AgentFrame.progress": "the frame",
    "mesh.v1.AgentFrame.outcomes": "the frame",
    "mesh.v1.Hello.outcomes": "the frame",
}


def requests() -> list[Descriptor]:
    return [method.input_type for service in SERVICES for method in service.methods]


def reachable(message: Descriptor, seen: set[str]) -> Iterator[Descriptor]:
    """The message and all of ours that it can hold in fields that a caller sets."""
    if message.full_name in seen or not message.full_name.startswith("mesh.v1."):
        return
    seen.add(message.full_name)
    yield message
    for field in message.fields:
        if field.message_type is not None and not (is_output_only(field) or is_map(field)):
            yield from reachable(field.message_type, seen)


def has_rule(field: FieldDescriptor) -> bool:
    return field.GetOptions().HasExtension(validate_pb2.field)


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def can_be_large(field: FieldDescriptor) -> bool:
    return field.is_repeated or field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)


def proto_of(message: Descriptor) -> DescriptorProto:
    proto = DescriptorProto()
    message.CopyToProto(proto)
    return proto


@cache
def comments() -> dict[str, str]:
    """Leading comments by full name, for services, methods, messages, fields and enums."""
    found: dict[str, str] = {}
    for file in generate.image(comments=True).file:
        if file.name.startswith("protos/mesh/"):
            by_path = {tuple(at.path): at for at in file.source_code_info.location}
            found |= {f"{file.package}.{name}": said(by_path, path) for name, path in named_paths(file)}
    return found


def said(by_path: dict[tuple[int, ...], SourceCodeInfo.Location], path: tuple[int, ...]) -> str:
    return by_path[path].leading_comments.strip() if path in by_path else ""


def named_paths(file: FileDescriptorProto) -> Iterator[tuple[str, tuple[int, ...]]]:
    for i, message in enumerate(file.message_type):
        yield message.name, (4, i)
        yield from ((f"{message.name}.{field.name}", (4, i, 2, k)) for k, field in enumerate(message.field))
    for i, enum in enumerate(file.enum_type):
        yield enum.name, (5, i)
    for i, service in enumerate(file.service):
        yield service.name, (6, i)
        yield from ((f"{service.name}.{method.name}", (6, i, 2, k)) for k, method in enumerate(service.method))


def is_output_only(field: FieldDescriptor) -> bool:
    return comments().get(field.full_name, "").startswith("Output only.")


@pytest.mark.parametrize("enum", ENUMS, ids=lambda enum: enum.name)
def test_enum_starts_with_unspecified(enum: EnumDescriptor) -> None:
    assert enum.values[0].number == 0
    assert enum.values[0].name.endswith("_UNSPECIFIED")
    assert [value.number for value in enum.values] == list(range(len(enum.values)))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.name)
def test_message_accounts_for_every_number_up_to_its_highest(message: Descriptor) -> None:
    proto = proto_of(message)
    used = [field.number for field in proto.field]
    reserved = [number for span in proto.reserved_range for number in range(span.start, span.end)]
    assert sorted(used + reserved) == list(range(1, len(used) + len(reserved) + 1))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.name)
def test_times_are_timestamps_and_durations_never_bare_numbers(message: Descriptor) -> None:
    for field in message.fields:
        assert not field.name.endswith(("_s", "_ms", "_us", "_ns", "_seconds")), field.full_name
        if field.name.endswith("_at"):
            assert field.message_type is not None, field.full_name
            assert field.message_type.full_name == "google.protobuf.Timestamp", field.full_name


@pytest.mark.parametrize("frame", [agent.AgentFrame.DESCRIPTOR, agent.BrokerFrame.DESCRIPTOR], ids=lambda f: f.name)
def test_frames_have_one_byte_tags_and_no_oneof(frame: Descriptor) -> None:
    assert max(field.number for field in frame.fields) <= 15
    assert not frame.oneofs


def test_attempt_list_is_two_parallel_packed_lists() -> None:
    keys, attempts = agent.AttemptList.DESCRIPTOR.fields
    assert (keys.is_repeated, attempts.is_repeated) == (True, True)
    limits = {field.GetOptions().Extensions[validate_pb2.field].repeated.max_items for field in (keys, attempts)}
    assert limits == {65536}
    three = agent.AttemptList(job_keys=[1, 2, 3], attempts=[1, 1, 1])
    assert len(three.SerializeToString()) == 2 * (1 + 1 + 3)


def test_every_service_and_method_says_what_it_is_for() -> None:
    names = [service.full_name for service in SERVICES]
    names += [method.full_name for service in SERVICES for method in service.methods]
    assert [name for name in names if not comments()[name]] == []


def test_every_message_but_requests_and_answers_says_what_it_is() -> None:
    plain = [message for message in MESSAGES if not message.name.endswith(("Request", "Response"))]
    assert [message.full_name for message in plain if not comments()[message.full_name]] == []


@pytest.mark.parametrize("request_type", requests(), ids=lambda message: message.name)
def test_request_bounds_everything_that_can_be_large(request_type: Descriptor) -> None:
    fields = [field for message in reachable(request_type, set()) for field in message.fields]
    assert any(has_rule(field) for field in fields)
    unbounded = [
        field.full_name for field in fields if can_be_large(field) and not has_rule(field) and not is_output_only(field)
    ]
    assert set(unbounded) <= BOUNDED_ELSEWHERE.keys()


def test_table_of_other_bounds_names_only_fields_without_a_rule() -> None:
    fields = {field.full_name: field for message in MESSAGES for field in message.fields}
    assert [name for name in BOUNDED_ELSEWHERE if has_rule(fields[name])] == []


GROUP = "organizations/acme/groups/plant-1"
AGENT = f"{GROUP}/agents/a"


def spec(**changes: object) -> job_service_pb2.JobSpec:
    return job_service_pb2.JobSpec(**{"operation": "files.copy", **changes})  # type: ignore[arg-type]


def submit(*jobs: job_service_pb2.JobSpec, parent: str = GROUP) -> job_service_pb2.SubmitJobsRequest:
    return job_service_pb2.SubmitJobsRequest(parent=parent, jobs=jobs)


def seconds(count: int) -> duration_pb2.Duration:
    return duration_pb2.Duration(seconds=count)


GOOD: dict[str, Message] = {
    "smallest job": submit(spec()),
    "largest batch": submit(*[spec(job_id=bytes(16), priority=5, labels={"zone": "eu"})] * 1024),
    "derived id": admin.CreateGroupRequest(
        parent="organizations/acme", group=admin.Group(display_name="Private Agent Group 1")
    ),
    "chosen id": admin.CreateAgentRequest(parent=GROUP, agent_id="a", agent=admin.Agent(display_name="host.lan")),
    "agents of all groups": admin.ListAgentsRequest(parent="organizations/acme/groups/-"),
    "part of a policy": admin.UpdateGroupRequest(
        group=admin.Group(name=GROUP, policy=admin.GroupPolicy(attempts_max=5)),
        update_mask=field_mask_pb2.FieldMask(paths=["policy.attempts_max"]),
    ),
    "progress from none to all": agent.AgentFrame(progress=[agent.Progress(), agent.Progress(fraction=1.0)]),
    "drain without deadline": admin.DrainAgentRequest(name=AGENT, mode=agent.DRAIN_MODE_STOP),
}

BAD: dict[str, tuple[Message, str]] = {
    "no parent": (submit(spec(), parent=""), "parent"),
    "no jobs": (submit(), "jobs"),
    "too many jobs": (submit(*[spec()] * 1025), "jobs"),
    "operation with a space": (submit(spec(operation="copy files")), "jobs[0].operation"),
    "job id of 15 bytes": (submit(spec(job_id=bytes(15))), "jobs[0].job_id"),
    "sixth priority": (submit(spec(), spec(priority=6)), "jobs[1].priority"),
    "no time to run": (submit(spec(run_timeout=seconds(0))), "jobs[0].run_timeout"),
    "start in the past": (submit(spec(delay=seconds(-1))), "jobs[0].delay"),
    "label in capitals": (submit(spec(labels={"Zone": "eu"})), 'jobs[0].labels["Zone"]'),
    "frame without incarnation": (
        agent.AgentFrame(hello=agent.Hello(connect_seq=1, slots=1, capacity=agent.Capacity(attempts=1))),
        "hello.incarnation_id",
    ),
    "outcome without status": (agent.AgentFrame(outcomes=[agent.Outcome(job_key=1)]), "outcomes[0].status"),
    "more progress than all": (agent.AgentFrame(progress=[agent.Progress(fraction=1.5)]), "progress[0].fraction"),
    "negative progress": (agent.AgentFrame(progress=[agent.Progress(fraction=-0.5)]), "progress[0].fraction"),
    "progress that is no number": (
        agent.AgentFrame(progress=[agent.Progress(fraction=float("nan"))]),
        "progress[0].fraction",
    ),
    "name of something else": (admin.GetAgentRequest(name=GROUP), "name"),
    "name with a line more": (admin.GetGroupRequest(name=GROUP + "\n"), "name"),
    "id of 64 characters": (admin.CreateAgentRequest(parent=GROUP, agent_id="a" * 64, agent=admin.Agent()), "agent_id"),
    "id that ends in a dash": (admin.CreateAgentRequest(parent=GROUP, agent_id="a-", agent=admin.Agent()), "agent_id"),
    "neither id nor name": (admin.CreateGroupRequest(parent="organizations/acme", group=admin.Group()), ""),
    "update of nothing named": (admin.UpdateGroupRequest(group=admin.Group(display_name="x")), "group"),
    "update of a derived field": (
        admin.UpdateGroupRequest(
            group=admin.Group(name=GROUP), update_mask=field_mask_pb2.FieldMask(paths=["agents_active"])
        ),
        "update_mask",
    ),
    "longest page": (admin.ListGroupsRequest(parent="organizations/acme", page_size=1001), "page_size"),
    "first retry after the last": (
        admin.UpdateGroupRequest(
            group=admin.Group(name=GROUP, policy=admin.GroupPolicy(backoff_first=seconds(10), backoff_max=seconds(5)))
        ),
        "group.policy",
    ),
    "drain to nowhere": (admin.DrainAgentRequest(name=AGENT), "mode"),
    "kill without deadline": (
        admin.DrainAgentRequest(name=AGENT, mode=agent.DRAIN_MODE_STOP, then=agent.DRAIN_THEN_KILL),
        "",
    ),
}


@pytest.mark.parametrize("message", GOOD.values(), ids=GOOD.keys())
def test_rules_accept_a_good_request(message: Message) -> None:
    protovalidate.validate(message)


@pytest.mark.parametrize(("message", "field"), BAD.values(), ids=BAD.keys())
def test_rules_refuse_a_bad_request_and_name_the_field(message: Message, field: str) -> None:
    with pytest.raises(protovalidate.ValidationError) as refused:
        protovalidate.validate(message)
    assert field in [path_of(violation) for violation in refused.value.violations]


def path_of(violation: protovalidate.Violation) -> str:
    """`jobs[0].labels["zone"]`, as people write a path; empty for the message itself."""
    path = violation.proto.field
    if path is None:
        return ""
    parts = []
    for element in path.elements:
        subscript = element.subscript
        index = (
            ""
            if subscript is None
            else f'["{subscript.value}"]'
            if subscript.field == "string_key"
            else f"[{subscript.value}]"
        )
        parts.append(f"{element.field_name}{index}")
    return ".".join(parts)
