"""Messages that are none, say what cannot be, or are too large: each is answered, and changes nothing that it may not.

All that is mangled speaks of an organization of its own, which is removed in the end: what lies in the store then, and
what the good ones have, is what an honest answer said.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import uuid
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from protos.mesh.v1 import admin_service_pb2 as admin_pb
from protos.mesh.v1 import agent_service_pb2 as agent_pb
from protos.mesh.v1 import job_pb2
from protos.mesh.v1 import job_service_pb2 as pb
from tests.broker.rpc import http2
from tests.broker.running import Api, channel_to
from tests.chaos import mangled
from tests.chaos.careless import without
from tests.chaos.row import BROKER, Control, Ran, Row, Trial
from tests.chaos.siege import Siege
from tests.chaos.stage import unguarded
from tests.e2e.course import until
from tests.e2e.history import History
from tests.e2e.processes import store_file

AT_ONCE: Final = 8
ANSWER_S: Final = 20.0
OPEN_S: Final = 0.02
IDENTITY: Final = "mesh-dev-identity"
BAD: Final = frozenset(
    {
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)
"""With these the broker would say that it, not the message, is wrong."""

Answer = tuple[grpc.StatusCode, str]
OK: Final[Answer] = (grpc.StatusCode.OK, "")


class Sender:
    """Sends cases to the broker of a siege, over `api` and connections of its own, and keeps what was answered."""

    def __init__(self, api: grpc.aio.Channel, siege: Siege, seed: int, history: History) -> None:
        self._api = api
        self._api_streams, self._mesh_streams = grpc.insecure_channel(siege.api), grpc.insecure_channel(siege.mesh)
        self._seed = seed
        self._history = history
        self.answered: Counter[str] = Counter()
        """Codes."""
        self.made: set[str] = set()
        """Names of resources that an answer said were made."""
        self.repeated = 0
        """Jobs that answers said were made from others by the slice."""
        self.wrong: list[str] = []

    def close(self) -> None:
        """End its connections."""
        self._api_streams.close()
        self._mesh_streams.close()

    async def send(self, numbers: Iterable[int]) -> None:
        """Send the cases with these numbers, several at once."""
        waiting = iter(numbers)

        async def work() -> None:
            for number in waiting:
                await self._send_one(number)

        async with asyncio.TaskGroup() as senders:
            for _ in range(AT_ONCE):
                senders.create_task(work())

    async def _send_one(self, number: int) -> None:
        method, content = mangled.case(self._seed, number)
        try:
            async with asyncio.timeout(ANSWER_S):
                code, text = await self._answer(method, content, number)
        except TimeoutError:
            code, text = grpc.StatusCode.DEADLINE_EXCEEDED, "not at all"
        self.answered[code.name] += 1
        if code in BAD:
            self.wrong.append(f"case {number} of seed {self._seed}: {method.name} was answered {code.name} {text}")

    async def _answer(self, method: MethodDescriptor, content: bytes, number: int) -> Answer:
        if method.name == "Connect":
            return await self._answer_of_stream(content, number)
        if method.name == "SubmitStream":
            return await self._answer_of_batches(method, content)
        if method.name == "WatchJobs":
            return await self._answer_of_watch(method, content)
        call = _untyped(self._api.unary_unary(mangled.path_of(method)))(content)
        try:
            answer = GetMessageClass(method.output_type).FromString(await call)
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details() or ""
        self._note(method, answer, content)
        return OK

    def _note(self, method: MethodDescriptor, answer: Any, content: bytes) -> None:
        """What an honest answer says was made."""
        if method.name.startswith("Create"):
            self.made.add(answer.name)
        elif isinstance(answer, pb.SubmitJobsResponse | pb.SubmitStreamResponse):
            for result in answer.results:
                if not result.HasField("error") and result.job_key:
                    self.note_job(result.job_id.hex())
        elif isinstance(answer, job_pb2.Job) and method.name == "RequeueJob":
            self.note_job(uuid.UUID(answer.job_id).hex)
        elif isinstance(answer, pb.RequeueJobsResponse):
            self.repeated += answer.requeued

    def note_job(self, job_id: str) -> None:
        """For the checker: a job that the store rightly holds."""
        self._history.add("submit", job_id, "invoke")
        self._history.add("submit", job_id, "ok")

    async def _answer_of_stream(self, content: bytes, number: int) -> Answer:
        """The frame, as the first of a stream or after a polite Hello; a heartbeat behind it is to be acknowledged."""
        identity = f"mangled/default/{mangled.AGENTS[number % len(mangled.AGENTS)]}"
        polite = mangled.hello(random.Random(number)).SerializeToString()
        beat = agent_pb.AgentFrame(heartbeat=agent_pb.Heartbeat(seq=1 << 40)).SerializeToString()
        frames = (content, beat) if number % 2 else (polite, content, beat)
        _, answer = await asyncio.to_thread(_streamed, self._mesh_streams, CONNECT, frames, identity)
        return answer

    async def _answer_of_batches(self, method: MethodDescriptor, content: bytes) -> Answer:
        path = mangled.path_of(method)
        said, answer = await asyncio.to_thread(_streamed, self._api_streams, path, (content, content))
        for one in said:
            self._note(method, pb.SubmitStreamResponse.FromString(one), content)
        return answer

    async def _answer_of_watch(self, method: MethodDescriptor, content: bytes) -> Answer:
        """One that is served goes on: it is cancelled then."""
        call = _untyped(self._api.unary_stream(mangled.path_of(method)))(content)
        try:
            await call.initial_metadata()
            async with asyncio.timeout(OPEN_S):
                return await _ending(call)
        except TimeoutError:
            return OK
        finally:
            call.cancel()


def _streamed(
    channel: grpc.Channel, path: str, requests: Iterable[bytes], identity: str = ""
) -> tuple[list[bytes], Answer]:
    """All that a stream of requests was answered, and how it ended.

    Blocks. The client with an event loop forgets the status of a stream that ends while it writes.
    """
    metadata = ((IDENTITY, identity),) if identity else ()
    call = _untyped(channel.stream_stream(path))(iter(requests), metadata=metadata, timeout=ANSWER_S)
    said: list[bytes] = []
    with suppress(grpc.RpcError):
        said.extend(call)
    return said, (call.code(), call.details() or "")


async def _ending(call: Any) -> Answer:
    return cast("grpc.StatusCode", await call.code()), cast("str | None", await call.details()) or ""


def _untyped(made: object) -> Any:
    """Calls of bytes: the stubs of grpc know calls of messages only."""
    return made


# --- the store --------------------------------------------------------------------------------------------------------

_NAMES: Final = """
SELECT 'organizations/' || slug FROM organisation WHERE removed_us = 0
UNION ALL SELECT 'organizations/' || o.slug || '/environments/' || e.slug
  FROM environment e JOIN organisation o USING (org_no) WHERE o.removed_us = 0
UNION ALL SELECT 'organizations/' || o.slug || '/groups/' || g.slug
  FROM agent_group g JOIN organisation o USING (org_no) WHERE o.removed_us = 0 AND g.removed_us = 0
UNION ALL SELECT 'organizations/' || o.slug || '/groups/' || g.slug || '/agents/' || a.agent_id
  FROM agent a JOIN agent_group g USING (group_no) JOIN organisation o USING (org_no)
  WHERE o.removed_us = 0 AND g.removed_us = 0
"""
_GOOD: Final = (
    "SELECT * FROM organisation WHERE slug = 'default'",
    "SELECT g.* FROM agent_group g JOIN organisation o USING (org_no) WHERE o.slug = 'default'",
    "SELECT e.* FROM environment e JOIN organisation o USING (org_no) WHERE o.slug = 'default'",
    """
    SELECT agent_id, admin, admin_us, admin_actor, admin_reason, rank FROM agent JOIN agent_group g USING (group_no)
    JOIN organisation o USING (org_no) WHERE o.slug = 'default'
    """,
)
_REPEATED: Final = "SELECT lower(hex(job_id)) FROM job WHERE requeued_from != 0"
_LIVE_OTHERS: Final = """
SELECT count(*) FROM job WHERE state NOT IN ('succeeded', 'failed', 'cancelled', 'dead')
  AND group_no NOT IN (SELECT group_no FROM agent_group JOIN organisation o USING (org_no) WHERE o.slug = 'default')
"""


class Books:
    """What a broker's store holds while the broker runs."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def names(self) -> set[str]:
        """Of all resources."""
        return {name for (name,) in self._rows(_NAMES)}

    def good(self) -> list[list[tuple[object, ...]]]:
        """What belongs to the good ones, jobs apart."""
        return [sorted(self._rows(query), key=repr) for query in _GOOD]

    def repeated(self) -> list[str]:
        """Ids of jobs that were made from others."""
        return [job_id for (job_id,) in self._rows(_REPEATED)]

    def live_of_others(self) -> int:
        """Jobs that are not final and belong to none of the good ones."""
        return int(self._rows(_LIVE_OTHERS)[0][0])

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"{self._file.absolute().as_uri()}?mode=ro", uri=True)) as database:
            return database.execute(query).fetchall()


# --- rows -------------------------------------------------------------------------------------------------------------


async def mangled_messages(trial: Trial, program: Sequence[str] = BROKER) -> Ran:
    """To every RPC in turn, on both ports; each is answered with a status that says what is wrong with it."""
    number, warm_up = trial.of(2_000, 100_000), trial.of(1_000, 10_000)
    async with Siege(trial, program=program) as siege, channel_to(siege.api) as api:
        books = Books(store_file(siege.course.mesh.data))
        sender = Sender(api, siege, trial.seed, siege.course.history)
        async with _place_for_it(siege, Api(api), books, sender):
            await sender.send(range(number, number + warm_up))
            siege.mark()
            await sender.send(range(number))
        sender.close()
    siege.violations += sender.wrong[:10]
    siege.expect(sender.answered.total() == number + warm_up, "a message was never answered")
    siege.figures |= {f"answered_{code.lower()}": count for code, count in sender.answered.items()}
    return siege.ran(number)


@asynccontextmanager
async def _place_for_it(siege: Siege, api: Api, books: Books, sender: Sender) -> AsyncIterator[None]:
    """An organization with a group while the context is open; then the store is held against the answers."""
    organization = admin_pb.Organization(display_name="mangled")
    for name in ("mangled", mangled.VICTIM):
        await api.admin.CreateOrganization(
            admin_pb.CreateOrganizationRequest(organization_id=name, organization=organization)
        )
    for name in ("default", mangled.VICTIM):
        group = admin_pb.CreateGroupRequest(parent=mangled.ORGANIZATION, group_id=name, group=admin_pb.Group())
        await api.admin.CreateGroup(group)
    environment = admin_pb.Environment(groups=[mangled.GROUP], target_group=mangled.GROUP)
    for name in ("default", mangled.VICTIM):
        await api.admin.CreateEnvironment(
            admin_pb.CreateEnvironmentRequest(parent=mangled.ORGANIZATION, environment_id=name, environment=environment)
        )
    names, good = books.names(), books.good()
    yield
    named = names | sender.made | {f"{mangled.GROUP}/agents/{agent}" for agent in mangled.AGENTS}
    unnamed = sorted(books.names() - named)
    siege.expect(not unnamed, f"nobody was told that these were made: {', '.join(unnamed[:5])}")
    siege.expect(books.good() == good, "what belongs to others has changed")
    await _take_away(api, books)
    repeated = books.repeated()
    siege.expect(len(repeated) <= sender.repeated + sender.answered["OK"], "jobs were repeated that nobody repeated")
    for job_id in repeated:
        sender.note_job(job_id)


async def _take_away(api: Api, books: Books) -> None:
    """All organizations but that of the good ones, with their jobs."""
    listed = await api.admin.ListOrganizations(admin_pb.ListOrganizationsRequest(page_size=1_000))
    for one in listed.organizations:
        if one.name != "organizations/default":
            await api.admin.DeleteOrganization(admin_pb.DeleteOrganizationRequest(name=one.name, force=True))

    async def are_final() -> bool:
        return not books.live_of_others()

    await until(are_final, "jobs of removed organizations are final")


async def too_large(trial: Trial, program: Sequence[str] = BROKER) -> Ran:
    """Messages above the limit, and small ones that are not small once they are unpacked, on both ports."""
    rounds = trial.of(4, 100)
    bombs = {name: _packed(name) for name in ("gzip", "deflate")}
    async with Siege(trial, program=program) as siege:
        for at in range(rounds + 1):
            if at == 1:
                siege.mark()  # the first round warms up
            for address, path in ((siege.api, SUBMIT), (siege.mesh, CONNECT)):
                answers = {name: await _answer_to_bomb(address, path, name, bomb) for name, bomb in bombs.items()}
                answers["size"] = await _answer_to_large(address, path)
                for name, code in answers.items():
                    is_right = code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
                    siege.expect(is_right, f"too large by its {name} for {path}: answered with code {code}")
    grown_mib = siege.peak_growth_mib
    siege.expect(
        grown_mib <= PEAK_MAX_MIB, f"the broker grew by {grown_mib:.0f} MiB meanwhile, {PEAK_MAX_MIB} are allowed"
    )
    return siege.ran(6 * rounds)


def _packed(name: str) -> bytes:
    """A great many zeros, packed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31 if name == "gzip" else 15)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(BOMB_MIB)) + packer.flush()


async def _answer_to_bomb(address: str, path: str, name: str, bomb: bytes) -> int:
    host, _, port = address.rpartition(":")
    identity, encoding = b"default/default/large", name.encode()
    async with asyncio.timeout(ANSWER_S):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(http2.PREFACE + http2.settings())
            call = http2.request(path.encode(), http2.END_HEADERS, grpc_encoding=encoding, mesh_dev_identity=identity)
            writer.write(call + http2.message(bomb, is_compressed=True))
            return await http2.Answer(reader).status()
        finally:
            writer.close()


async def _answer_to_large(address: str, path: str) -> int:
    async with channel_to(address) as channel:
        call = _untyped(channel.stream_stream(path))(metadata=((IDENTITY, "default/default/large"),), timeout=ANSWER_S)
        with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            await call.write(bytes(LARGE_BYTES))
            await call.done_writing()
        code, _ = await _ending(call)
    return int(code.value[0])


SUBMIT: Final = "/mesh.v1.JobService/SubmitJobs"
CONNECT: Final = "/mesh.v1.AgentService/Connect"
BOMB_MIB: Final = 60
"""What fits, packed, into what a client may send before the server has read any of it."""
LARGE_BYTES: Final = 6 << 20
PEAK_MAX_MIB: Final = 24
"""What several messages of the largest size that is allowed may take for a moment."""


ROWS: Final[tuple[Row, ...]] = (
    Row(
        "message-mangled",
        "Protobuf messages with changed bytes, absurd sizes, nests, numbers and texts, to every RPC: each is answered "
        "with a status that names the fault, and nothing changes",
        mangled_messages,
        control=unguarded("unchecked-messages", mangled_messages, "was answered INTERNAL"),
    ),
    Row(
        "message-too-large",
        "Messages above the limit, bombs of gzip and deflate: refused with RESOURCE_EXHAUSTED before they take memory",
        too_large,
        control=Control(
            "no-message-limit",
            partial(too_large, program=without("no-message-limit")),
            finds="too large by its",
            is_short=True,
        ),
        is_in_suite=False,
    ),
)
