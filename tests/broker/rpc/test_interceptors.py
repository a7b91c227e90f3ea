"""What stands before every handler, on a real server with a service that does what the test wants."""

from __future__ import annotations

import asyncio
import gc
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import grpc
import grpc.aio
import pytest
import structlog
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from broker.errors import FullError
from broker.rpc.interceptors import PATTERN_WORDS, ContractInterceptor
from broker.rpc.status import InvalidMessageError
from protos.mesh.v1 import admin_service_pb2, agent_service_pb2, job_pb2, job_service_pb2_grpc
from protos.mesh.v1 import job_service_pb2 as pb
from tests.broker.running import PARENT, WAIT_S, Api, channel_to, echo, raw_call, raw_stream, refused
from tests.meta.check import ROOT

GET = "/mesh.v1.JobService/GetJob"
SUBMIT = "/mesh.v1.JobService/SubmitStream"
WATCH = "/mesh.v1.JobService/WatchJobs"
INVALID = grpc.StatusCode.INVALID_ARGUMENT.value[0]
INTERNAL = grpc.StatusCode.INTERNAL.value[0]

Context = grpc.aio.ServicerContext[object, object]


class Service(job_service_pb2_grpc.JobServiceServicer):
    """`act` is what each call does first; a waiting call says so and ends only by being cancelled."""

    def __init__(self, act: Callable[[], None] = lambda: None) -> None:
        self.act = act
        self.waiting = asyncio.Event()
        self.cancelled = 0

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> job_pb2.Job:  # noqa: N802
        self.act()
        return job_pb2.Job(name=request.name)

    async def CancelJob(self, request: pb.CancelJobRequest, context: Context) -> pb.CancelJobResponse:  # noqa: N802
        await self._wait()
        return pb.CancelJobResponse()

    async def SubmitStream(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.SubmitStreamRequest], context: Context
    ) -> AsyncIterator[pb.SubmitStreamResponse]:
        async for request in request_iterator:
            yield pb.SubmitStreamResponse(batch_seq=request.batch_seq)

    async def WatchJobs(  # noqa: N802
        self, request: pb.WatchJobsRequest, context: Context
    ) -> AsyncIterator[pb.WatchJobsResponse]:
        yield pb.WatchJobsResponse()
        self.act()
        await self._wait()

    async def _wait(self) -> None:
        self.waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


@asynccontextmanager
async def serving(service: Service) -> AsyncIterator[Api]:
    server = grpc.aio.server(interceptors=[ContractInterceptor()])
    job_service_pb2_grpc.add_JobServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with channel_to(f"127.0.0.1:{port}") as channel:
            yield Api(channel)
    finally:
        await server.stop(None)


def _raise(error: Exception) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


async def test_undecodable_bytes_are_refused_by_name() -> None:
    async with serving(Service()) as api:
        refusal = await refused(raw_call(api.channel, GET, b"\xff\xff\xff"))
        assert (refusal.code, refusal.reason) == (INVALID, "MALFORMED_MESSAGE")
        watch = raw_stream(api.channel, WATCH)
        await watch.write(b"\xff\xff\xff")
        refusal = await refused(watch.read())
        assert (refusal.code, refusal.reason) == (INVALID, "MALFORMED_MESSAGE")


async def test_undecodable_bytes_in_a_stream_are_refused_after_what_was_good() -> None:
    async with serving(Service()) as api:
        call = raw_stream(api.channel, SUBMIT)
        batch = pb.SubmitJobsRequest(parent="p", jobs=[echo()])
        await call.write(pb.SubmitStreamRequest(batch_seq=3, batch=batch).SerializeToString())
        assert pb.SubmitStreamResponse.FromString(await call.read()).batch_seq == 3
        await call.write(b"\x08")
        refusal = await refused(call.read())
        assert (refusal.code, refusal.reason) == (INVALID, "MALFORMED_MESSAGE")


async def test_message_that_breaks_the_contract_is_refused_naming_each_field(api: Api) -> None:
    bad = pb.JobSpec(operation="Echo!", priority=9, labels={"UPPER": "x"}, job_id=b"short")
    request = pb.SubmitJobsRequest(
        parent="organizations/default/groups/default", jobs=[pb.JobSpec(operation="echo"), bad]
    )
    refusal = await refused(api.jobs.SubmitJobs(request, timeout=WAIT_S))
    assert (refusal.code, refusal.reason) == (INVALID, "INVALID_MESSAGE")
    assert sorted(refusal.fields) == [
        "jobs[1].job_id",
        'jobs[1].labels["UPPER"]',
        "jobs[1].operation",
        "jobs[1].priority",
    ]


async def test_batch_of_many_broken_rules_is_refused_naming_the_first_ones(api: Api) -> None:
    bad = pb.JobSpec(operation="Echo!", priority=9, labels={"U" * 200: "x"}, job_id=b"short")
    request = pb.SubmitJobsRequest(parent=PARENT, jobs=[bad] * 1_024)
    refusal = await refused(api.jobs.SubmitJobs(request, timeout=WAIT_S))
    assert (refusal.code, refusal.reason) == (INVALID, "INVALID_MESSAGE")
    assert refusal.text.startswith("4096 rules are broken, the first 16: jobs[0].job_id: ")
    assert 4 < len(refusal.fields) <= 16
    assert "jobs[1].operation" in refusal.fields


async def test_broken_pattern_is_said_in_words(api: Api) -> None:
    request = pb.SubmitJobsRequest(parent=PARENT, jobs=[pb.JobSpec(operation="Echo!")])
    refusal = await refused(api.jobs.SubmitJobs(request, timeout=WAIT_S))
    assert refusal.text == "jobs[0].operation: must be lower case words with dots, like files.csv_to_sql"


def patterns_of(rules: Message) -> set[str]:
    """Every pattern in the rules of a field, also those of items, keys and values."""
    found = set()
    for field, value in rules.ListFields():
        if field.name == "pattern":
            found.add(value)
        elif field.message_type is not None and not field.is_repeated and isinstance(value, Message):
            found |= patterns_of(value)
    return found


def test_every_pattern_of_the_contract_has_words_and_fits_its_example() -> None:
    files = (job_pb2, pb, agent_service_pb2, admin_service_pb2)
    fields = [
        field for file in files for kind in file.DESCRIPTOR.message_types_by_name.values() for field in kind.fields
    ]
    patterns = set().union(*(patterns_of(field.GetOptions()) for field in fields))
    assert patterns == set(PATTERN_WORDS)
    for pattern, words in PATTERN_WORDS.items():
        example = re.search(r"like ([^ ,]+)", words)
        assert example is not None
        assert re.search(pattern, example[1])


async def test_bug_is_answered_with_a_trace_id_and_nothing_else() -> None:
    secret = "password-of-the-database"
    with structlog.testing.capture_logs() as logged:
        async with serving(Service(_raise(RuntimeError(secret)))) as api:
            refusal = await refused(api.jobs.GetJob(pb.GetJobRequest(name="x"), timeout=WAIT_S))
    trace_id = refusal.detail(error_details_pb2.ErrorInfo).metadata["trace_id"]
    assert (refusal.code, refusal.reason, refusal.kinds) == (INTERNAL, "INTERNAL", {"ErrorInfo"})
    assert refusal.text == f"internal error; the broker's log has it under trace id {trace_id}"
    (line,) = logged
    assert (line["event"], line["trace_id"], str(line["exc_info"])) == ("request.failed", trace_id, secret)


async def test_error_in_the_middle_of_a_stream_ends_it_with_its_status() -> None:
    async with serving(Service(_raise(FullError("no room", reason="QUEUE_FULL", retry_after_s=2.5)))) as api:
        call = api.jobs.WatchJobs(pb.WatchJobsRequest(parent="x"), timeout=WAIT_S)
        assert isinstance(await call.read(), pb.WatchJobsResponse)
        refusal = await refused(call.read())
    assert refusal.reason == "QUEUE_FULL"
    assert refusal.detail(error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() == 2_500


@pytest.mark.parametrize("calls", [20])
async def test_cancelled_handlers_stay_cancelled_and_leave_no_task(calls: int) -> None:
    service = Service()
    with structlog.testing.capture_logs() as logged:
        async with serving(service) as api:
            for _ in range(calls):
                for start in (
                    lambda: api.jobs.CancelJob(pb.CancelJobRequest(name="x"), timeout=WAIT_S),
                    lambda: api.jobs.WatchJobs(pb.WatchJobsRequest(parent="x"), timeout=WAIT_S),
                ):
                    service.waiting.clear()
                    call = start()
                    async with asyncio.timeout(WAIT_S):
                        await service.waiting.wait()
                    call.cancel()
            handlers = {task for task in asyncio.all_tasks() if task.get_name().startswith("Handle")}
            if handlers:
                _, pending = await asyncio.wait(handlers, timeout=WAIT_S)
                assert not pending
    assert not logged
    assert service.cancelled == 2 * calls


NO_MEMORY = """
import resource, sys
from pathlib import Path
import grpc
from broker.rpc.interceptors import _wrapped, checked
from protos.mesh.v1 import job_service_pb2 as pb

job = pb.JobSpec(job_id=bytes(range(16)), operation="echo", payload=bytes(1 << 20))
content = pb.SubmitJobsRequest(parent="organizations/default/groups/default", jobs=[job]).SerializeToString()
handler = grpc.unary_unary_rpc_method_handler(print, pb.SubmitJobsRequest.FromString, None)
decode = _wrapped(handler, None).request_deserializer
has_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (has_bytes, resource.RLIM_INFINITY))
kept = [decode(content)]
while isinstance(kept[-1], pb.SubmitJobsRequest):
    kept.append(decode(content))
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for message in (kept[-1], decode(b"\\xff\\xff"), decode(content)):
    try:
        print(type(checked(message)).__name__)
    except Exception as error:
        print(type(error).__name__, error.reason)
"""


def test_message_is_not_called_malformed_when_the_broker_lacks_memory_for_it() -> None:
    # The limit is for a whole process, and grpc is in this one.
    done = subprocess.run([sys.executable, "-c", NO_MEMORY], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == [
        "FullError MAILBOX_FULL",
        "InvalidMessageError MALFORMED_MESSAGE",
        "SubmitJobsRequest",
    ]


@contextmanager
def no_collector() -> Iterator[None]:
    """What is in a circle stays meanwhile."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize("path", [GET, SUBMIT, WATCH])
async def test_refused_call_leaves_nothing_that_waits_for_the_collector(path: str) -> None:
    with no_collector():
        async with serving(Service()) as api:
            for _ in range(3):
                call = raw_stream(api.channel, path)
                await call.write(b"\xff")
                await refused(call.read())
        left = [one for one in gc.get_objects() if isinstance(one, grpc.aio.AbortError | InvalidMessageError)]
    assert not left
