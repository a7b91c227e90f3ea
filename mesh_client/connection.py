"""One channel to a broker, and how a single request is tried until it is answered."""

import asyncio
from random import Random
from typing import TYPE_CHECKING, Final, TypeVar

import grpc
import grpc.aio

from mesh_client.errors import UnavailableError, error_of_call
from mesh_client.retry import Retry
from protos.mesh.v1.admin_service_pb2_grpc import AdminServiceStub
from protos.mesh.v1.job_service_pb2_grpc import JobServiceStub

if TYPE_CHECKING:
    from protos.mesh.v1.admin_service_pb2_grpc import AdminServiceAsyncStub
    from protos.mesh.v1.job_service_pb2_grpc import JobServiceAsyncStub

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

CHANNEL_OPTIONS: Final = (
    # A client has a connection of its own and sees a broker that is back within a second.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Both time limits are needed: without the ping's own, a dead peer is noticed after a minute.
    ("grpc.keepalive_time_ms", 10_000),
    # And on a slow way the answer waits behind what is submitted: 1 MiB takes 9 s at 1 Mbit/s.
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 16 << 20),
    # Trying again is done here, by the same job ids.
    ("grpc.enable_retries", 0),
)


class Connection:
    """The channel to `target`, opened at the first use in the event loop that uses it."""

    def __init__(self, target: str, retry_for_s: float) -> None:
        self.target = target
        self._retry_for_s = retry_for_s
        self._generator = Random()
        self._channel: grpc.aio.Channel | None = None
        self._is_closed = False

    @property
    def channel(self) -> grpc.aio.Channel:
        """The channel. Raises RuntimeError after `close`."""
        if self._is_closed:
            raise RuntimeError("this client is closed; make a new one")
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self.target, options=CHANNEL_OPTIONS)
        return self._channel

    @property
    def jobs(self) -> "JobServiceAsyncStub":
        """Stub of the job service."""
        return JobServiceStub(self.channel)

    @property
    def admin(self) -> "AdminServiceAsyncStub":
        """Stub of the admin service."""
        return AdminServiceStub(self.channel)

    def retry(self) -> Retry:
        """The tries of one request that begins now."""
        return Retry(self._retry_for_s, self._generator)

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT],
        request: RequestT,
        *,
        is_repeatable: bool = True,
        retry: Retry | None = None,
    ) -> ResponseT:
        """The answer to one request, tried again while no broker is there until the deadline.

        A request that must not happen twice (`is_repeatable=False`) waits for a broker before it is sent, once.
        Raises MeshClientError.
        """
        retry = retry or self.retry()
        if not is_repeatable:
            await self._reach(retry.remaining_s)
        while True:
            try:
                return await method(request, timeout=retry.remaining_s)
            except grpc.aio.AioRpcError as error:
                failure = error_of_call(error, self.target)
                if not (is_repeatable and isinstance(failure, UnavailableError)):
                    raise failure from error
            await retry.wait(failure)

    async def _reach(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self.channel.channel_ready()
        except TimeoutError as error:
            text = f"No broker at {self.target} within {timeout_s:g} s. Is it running? `mesh serve --dev` starts one."
            raise UnavailableError(text) from error

    async def close(self) -> None:
        """End the channel; calls that run end cancelled. May be called twice."""
        self._is_closed = True
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()
