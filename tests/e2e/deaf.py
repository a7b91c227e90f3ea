"""An agent that says Hello, keeps saying that it is there, and never reads a frame."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

import grpc.aio

from protos.mesh.v1 import agent_service_pb2 as pb
from protos.mesh.v1 import agent_service_pb2_grpc, job_pb2

HEARTBEAT_S: Final = 0.2
NAME: Final = "deaf"
OUTCOMES_FRAME: Final = 500


class DeafAgent:
    """Connected to `broker` (host:port) while the context is open, with room for `capacity` jobs."""

    def __init__(self, broker: str, *, capacity: int) -> None:
        self._channel = grpc.aio.insecure_channel(broker, options=[("grpc.enable_http_proxy", 0)])
        self._capacity = capacity
        self._beating: asyncio.Task[None] | None = None
        self.frames_written = 0

    async def __aenter__(self) -> Self:
        stub = agent_service_pb2_grpc.AgentServiceStub(self._channel)
        self._call = stub.Connect(metadata=(("mesh-dev-identity", f"default/default/{NAME}"),))
        await self._call.write(
            pb.AgentFrame(
                hello=pb.Hello(
                    incarnation_id=os.urandom(16),
                    connect_seq=1,
                    operations=["sleep"],
                    slots=self._capacity,
                    capacity=pb.Capacity(seq=1, attempts=self._capacity),
                )
            )
        )
        self._beating = asyncio.create_task(self._beat(), name="deaf-heartbeats")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._beating is not None
        self._beating.cancel()
        await asyncio.wait((self._beating,))
        self._call.cancel()
        await self._channel.close()

    async def chatter(self) -> None:
        """Report outcomes of jobs that nobody has, each of which is answered, until the broker ends the stream."""
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                outcomes = [
                    pb.Outcome(job_key=1 + number, attempt=1, status=job_pb2.OUTCOME_STATUS_SUCCEEDED)
                    for number in range(OUTCOMES_FRAME)
                ]
                await self._call.write(pb.AgentFrame(outcomes=outcomes))
                self.frames_written += 1

    async def _beat(self) -> None:
        seq = 0
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                seq += 1
                await self._call.write(pb.AgentFrame(heartbeat=pb.Heartbeat(seq=seq)))
                await asyncio.sleep(HEARTBEAT_S)
