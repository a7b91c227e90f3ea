"""A whole broker in the process of the test: real ports on the loopback, a real store in the test's folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from broker.app import Broker
from broker.rpc.job_convert import uuid_text
from broker.rpc.status import DETAILS_KEY
from broker.settings import Settings
from protos.mesh.v1 import admin_service_pb2_grpc, job_pb2, job_service_pb2_grpc
from protos.mesh.v1 import job_service_pb2 as pb

WAIT_S = 20.0
ORGANIZATION = "organizations/default"
PARENT = f"{ORGANIZATION}/groups/default"
CHANNEL_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 16 << 20))

DetailT = TypeVar("DetailT", bound=Message)


def settings_of(folder: Path, **tables: object) -> Settings:
    """Settings of a broker on free ports with its files in `folder`; `limits={...}` and the like on top."""
    addresses = dict.fromkeys(("mesh_listen", "api_listen", "metrics_listen"), "127.0.0.1:0")
    return Settings.load({"dev": True, "data_dir": folder / "data", **addresses, **tables})


@asynccontextmanager
async def channel_to(address: str) -> AsyncIterator[grpc.aio.Channel]:
    """A connection of its own."""
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        yield channel


@asynccontextmanager
async def api_of(broker: Broker) -> AsyncIterator[Api]:
    """A client of the broker's API port."""
    async with channel_to(broker.api_address) as channel:
        yield Api(channel)


def raw_stream(channel: grpc.aio.Channel, path: str, *metadata: tuple[str, str]) -> RawStream:
    """A stream of bytes, for what no message can say."""
    return cast("RawStream", channel.stream_stream(path)(metadata=metadata, timeout=WAIT_S))


def raw_call(channel: grpc.aio.Channel, path: str, content: bytes) -> Awaitable[bytes]:
    """A call with these bytes as its request."""
    call = cast("Callable[..., Awaitable[bytes]]", channel.unary_unary(path))
    return call(content, timeout=WAIT_S)


class RawStream(Protocol):
    """What tests use of a stream of bytes."""

    async def write(self, content: bytes) -> None: ...

    async def read(self) -> bytes: ...

    def cancel(self) -> bool: ...


class Api:
    """The API port as its callers see it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.jobs: job_service_pb2_grpc.JobServiceAsyncStub = job_service_pb2_grpc.JobServiceStub(channel)
        self.admin: admin_service_pb2_grpc.AdminServiceAsyncStub = admin_service_pb2_grpc.AdminServiceStub(channel)

    async def submit(self, *specs: pb.JobSpec, parent: str = PARENT) -> list[pb.SubmitResult]:
        """The results of one batch."""
        response = await self.jobs.SubmitJobs(pb.SubmitJobsRequest(parent=parent, jobs=specs), timeout=WAIT_S)
        return list(response.results)

    async def submit_echo(self, number: int = 1, **spec: object) -> list[pb.SubmitResult]:
        """So many equal jobs."""
        return await self.submit(*(echo(**spec) for _ in range(number)))

    async def job(self, job_id: bytes) -> job_pb2.Job:
        """One job as it is now."""
        return await self.jobs.GetJob(pb.GetJobRequest(name=job_name(job_id)), timeout=WAIT_S)

    async def listed(self, **query: Any) -> list[job_pb2.Job]:
        """The first page of jobs."""
        request = pb.ListJobsRequest(parent=ORGANIZATION, **query)
        return list((await self.jobs.ListJobs(request, timeout=WAIT_S)).jobs)


def echo(**fields: Any) -> pb.JobSpec:
    """A submission."""
    return pb.JobSpec(operation="echo", **fields)


def job_name(job_id: bytes) -> str:
    """The resource name of a job."""
    return f"{ORGANIZATION}/jobs/{uuid_text(job_id)}"


class Refusal:
    """An error as a caller reads it."""

    def __init__(self, status: status_pb2.Status) -> None:
        self.code = status.code
        self.text = status.message
        self._details = list(status.details)

    @property
    def reason(self) -> str:
        """The machine name."""
        return str(self.detail(error_details_pb2.ErrorInfo).reason)

    @property
    def kinds(self) -> set[str]:
        """Which details there are."""
        return {detail.TypeName().rpartition(".")[2] for detail in self._details}

    def detail(self, kind: type[DetailT]) -> DetailT:
        """The detail of this kind; empty if there is none."""
        found = kind()
        any(detail.Unpack(found) for detail in self._details)
        return found

    @property
    def fields(self) -> list[str]:
        """The fields that are wrong."""
        bad = self.detail(error_details_pb2.BadRequest)
        return [violation.field for violation in bad.field_violations]


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    """What a failed call says; its code and text are those of the status in its details."""
    content = dict(error.trailing_metadata())[DETAILS_KEY]
    assert isinstance(content, bytes)
    refusal = Refusal(status_pb2.Status.FromString(content))
    assert (refusal.code, refusal.text) == (error.code().value[0], error.details())
    return refusal


async def refused(call: Awaitable[object]) -> Refusal:
    """What a call is refused with."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    raise AssertionError(f"it was answered: {answer!r}")


async def http(address: str, path: str) -> tuple[int, str, str]:
    """Status, content type and text of one GET."""
    return await asyncio.to_thread(_get, address, path)


def _get(address: str, path: str) -> tuple[int, str, str]:
    connection = HTTPConnection(address, timeout=WAIT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read().decode()
    finally:
        connection.close()


async def metric(broker: Broker, name: str, **labels: str) -> float:
    """The present value of a series as Prometheus reads it; 0 if it was never written."""
    _, _, page = await http(broker.metrics_address, "/metrics")
    marks = ",".join(f'{key}="{value}"' for key, value in labels.items())
    wanted = f"{name}{{{marks}}}" if marks else name
    return next((float(line.split()[-1]) for line in page.splitlines() if line.rpartition(" ")[0] == wanted), 0.0)
