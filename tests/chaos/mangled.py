"""Protobuf messages as only somebody hostile or broken sends them, made from a seed and the number of the case.

A case begins with a polite request of the method (`polite`: it could succeed), then bytes are added or changed on the
wire, where everything can be said: numbers beyond their type, lengths of terabytes, nests without bottom, text that is
none. The later of two values of a field wins, so what is appended replaces what was polite.
"""

from __future__ import annotations

import random
import struct
import uuid
from collections.abc import Callable
from typing import Final, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from protos.mesh.v1 import admin_service_pb2 as admin_pb
from protos.mesh.v1 import agent_service_pb2 as agent_pb
from protos.mesh.v1 import job_service_pb2 as job_pb
from protos.mesh.v1.job_pb2 import OUTCOME_STATUS_SUCCEEDED

ORGANIZATION: Final = "organizations/mangled"
GROUP: Final = f"{ORGANIZATION}/groups/default"
AGENTS: Final = tuple(f"m{number}" for number in range(4))
VICTIM: Final = "victim"
"""What may be deleted: the last part of the name of each kind."""
METHODS: Final[tuple[MethodDescriptor, ...]] = tuple(
    method
    for file, service in ((agent_pb, "AgentService"), (job_pb, "JobService"), (admin_pb, "AdminService"))
    for method in file.DESCRIPTOR.services_by_name[service].methods
)
NUMBERS: Final = (0, 1, -1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -(2**31), -(2**63))
TEXTS: Final = (
    b"",
    b"\xff\xfe",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\0",
    b"a\0b",
    b"../../etc",
    b"%s%n{0}",
    "\u202e\u0000\U0010ffff".encode(),
    b"' OR 1=1 --",
    b"organizations/-/groups/-",
    b"a" * 65,
    b"z" * 5_000,
)
NEST_DEPTH: Final = 5_000
ITEMS_MAX: Final = 3_000
DEPTH_MAX: Final = 3

Change = Callable[[random.Random, Descriptor, bytes], bytes]


def path_of(method: MethodDescriptor) -> str:
    """Where it is called."""
    return f"/{method.containing_service.full_name}/{method.name}"


def case(seed: int, number: int) -> tuple[MethodDescriptor, bytes]:
    """The method of this case, each in its turn, and what is sent to it."""
    method = METHODS[number % len(METHODS)]
    generator = random.Random(f"{seed}/{number}")
    return method, mangle(generator, polite(method, generator))


def mangle(generator: random.Random, message: Message) -> bytes:
    """The message, with one value that it should not have, or changed in one to three ways."""
    content, kind = message.SerializeToString(deterministic=True), cast("Descriptor", message.DESCRIPTOR)
    if generator.random() < 0.4 and kind.fields:
        return content + _value(generator, generator.choice(kind.fields), 0)
    for _ in range(generator.randint(1, 3)):
        content = generator.choice(CHANGES)(generator, kind, content)
    return content


# --- what could succeed -----------------------------------------------------------------------------------------------


def polite(method: MethodDescriptor, generator: random.Random) -> Message:
    """A request that keeps the contract."""
    if method.name == "Connect":
        return hello(generator) if generator.random() < 0.5 else report(generator)
    if method.name == "SubmitStream":
        return job_pb.SubmitStreamRequest(batch_seq=generator.randrange(100), batch=_batch(generator))
    if method.name == "SubmitJobs":
        return _batch(generator)
    return _named(method, generator)


def hello(generator: random.Random) -> agent_pb.AgentFrame:
    """The first frame of an agent that runs nothing."""
    return agent_pb.AgentFrame(
        hello=agent_pb.Hello(
            incarnation_id=generator.randbytes(16),
            connect_seq=1,
            operations=["none.such"],
            slots=1,
            capacity=agent_pb.Capacity(seq=1, attempts=1),
        )
    )


def report(generator: random.Random) -> agent_pb.AgentFrame:
    """A frame that speaks of attempts, few of which exist."""
    keys = [generator.randrange(1, 1 << 34) for _ in range(2)]
    attempts = agent_pb.AttemptList(job_keys=keys, attempts=[1, 2])
    return agent_pb.AgentFrame(
        heartbeat=agent_pb.Heartbeat(seq=1, held=1),
        accepted=attempts,
        started=attempts,
        progress=[agent_pb.Progress(job_key=keys[0], attempt=1, fraction=0.5, checkpoint=b"half")],
        outcomes=[agent_pb.Outcome(job_key=keys[0], attempt=1, status=OUTCOME_STATUS_SUCCEEDED)],
    )


def _batch(generator: random.Random) -> job_pb.SubmitJobsRequest:
    spec = job_pb.JobSpec(job_id=generator.randbytes(16), operation="none.such", payload=b"{}")
    return job_pb.SubmitJobsRequest(parent=GROUP, jobs=[spec])


def _named(method: MethodDescriptor, generator: random.Random) -> Message:
    """Requests that name one thing, or make one: the field says which by its name."""
    request = GetMessageClass(method.input_type)()
    kind = next(
        (kind for kind in ("organization", "environment", "group", "job") if kind in method.name.lower()), "agent"
    )
    last = VICTIM if method.name.startswith("Delete") else "default"
    name = ORGANIZATION if kind == "organization" else f"{ORGANIZATION}/{kind}s/{last}"
    if kind == "agent":
        name = f"{GROUP}/agents/{VICTIM if last == VICTIM else generator.choice(AGENTS)}"
    elif kind == "job":
        name = f"{ORGANIZATION}/jobs/{uuid.UUID(int=generator.getrandbits(128))}"
    elif name == ORGANIZATION and last == VICTIM:
        name = f"organizations/{VICTIM}"
    for field in method.input_type.fields:
        if field.name == "name":
            setattr(request, field.name, name)
        elif field.name == "parent":
            setattr(request, field.name, GROUP if kind == "agent" else ORGANIZATION)
        elif field.name == f"{kind}_id":
            setattr(request, field.name, f"n{generator.getrandbits(60):x}")
        elif field.name == kind:
            resource = getattr(request, field.name)
            resource.display_name = "mangled"
            resource.name = "" if method.name.startswith("Create") else name
        elif field.name in {"mode", "resolution"}:
            setattr(request, field.name, 1)
    return request


# --- what is changed --------------------------------------------------------------------------------------------------


def _flip(generator: random.Random, kind: Descriptor, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(min(len(changed), generator.randint(1, 8))):
        changed[generator.randrange(len(changed))] = generator.randrange(256)
    return bytes(changed)


def _cut(generator: random.Random, kind: Descriptor, content: bytes) -> bytes:
    return content[: generator.randrange(len(content) + 1)]


def _noise(generator: random.Random, kind: Descriptor, content: bytes) -> bytes:
    return generator.randbytes(generator.randrange(200))


def _nest(generator: random.Random, kind: Descriptor, content: bytes) -> bytes:
    """Groups of an unknown field in each other, or a known message in itself, far deeper than anybody reads."""
    if generator.random() < 0.5:
        return content + _tag(900, 3) * NEST_DEPTH + _tag(900, 4) * NEST_DEPTH
    inner = b""
    field = generator.choice(kind.fields).number if kind.fields else 1
    for _ in range(200):
        inner = _sized(field, inner)
    return content + inner


def _repeat(generator: random.Random, kind: Descriptor, content: bytes) -> bytes:
    """One hostile field thousands of times."""
    return content + hostile(generator, kind)[:64] * generator.randrange(2, ITEMS_MAX)


def _append(generator: random.Random, kind: Descriptor, content: bytes) -> bytes:
    return content + hostile(generator, kind)


def hostile(generator: random.Random, kind: Descriptor, depth: int = 0) -> bytes:
    """A field of this message with a value that it should not have, or a tag that nothing has."""
    draw = generator.random()
    if draw < 0.05 or not kind.fields:
        return _tag(generator.choice((0, 1_000, 19_000, 2**29 - 1)), generator.randrange(8)) + generator.randbytes(4)
    field = generator.choice(kind.fields)
    if draw < 0.12:
        return _tag(field.number, 2) + varint(generator.choice((2**31, 2**32, 2**40, 2**63, 2**64 - 1)))
    if draw < 0.2:
        return _tag(field.number, generator.randrange(8)) + generator.randbytes(generator.randrange(12))
    return _value(generator, field, depth)


def _value(generator: random.Random, field: FieldDescriptor, depth: int) -> bytes:
    if field.message_type is not None:
        if depth >= DEPTH_MAX:
            return _sized(field.number, generator.randbytes(8))
        inner = b"".join(hostile(generator, field.message_type, depth + 1) for _ in range(generator.randint(0, 3)))
        return _sized(field.number, inner)
    if field.type == FieldDescriptor.TYPE_STRING:
        return _sized(field.number, generator.choice(TEXTS))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _sized(field.number, generator.randbytes(generator.choice((0, 1, 15, 17, 70_000))))
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return _tag(field.number, 1) + struct.pack("<d", _real(generator))
    if field.type == FieldDescriptor.TYPE_FLOAT:
        return _tag(field.number, 5) + struct.pack("<f", _real(generator))
    return _tag(field.number, 0) + varint(generator.choice((*NUMBERS, generator.randrange(100))))


def _real(generator: random.Random) -> float:
    return generator.choice((float("nan"), float("inf"), float("-inf"), -1.0, 1e-40, 3e38))


CHANGES: Final[tuple[Change, ...]] = (_append, _append, _append, _append, _flip, _cut, _repeat, _nest, _noise)


def varint(number: int) -> bytes:
    """As protobuf writes 64 bits; negative numbers take ten bytes."""
    left = number % 2**64
    content = bytearray()
    while left > 0x7F:
        content.append(left & 0x7F | 0x80)
        left >>= 7
    content.append(left)
    return bytes(content)


def _tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


def _sized(number: int, content: bytes) -> bytes:
    return _tag(number, 2) + varint(len(content)) + content
