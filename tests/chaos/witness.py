"""A good client that calls all the time, and says whether it was served and how fast.

Over a connection that it keeps it asks the API port for a group; and again and again it dials both ports anew and asks
for their health. A call that fails, or takes longer than `SERVED_S`, is a failure; only for a port that is being opened
again it dials until then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, Self

import grpc
import grpc.aio

from protos.mesh.v1 import admin_service_pb2 as pb
from tests.broker.running import PARENT, Api, channel_to, raw_call
from tests.e2e.processes import Mesh

HEALTH: Final = "/grpc.health.v1.Health/Check"
SERVING: Final = b"\x08\x01"
EVERY_S: Final = 0.05
DIAL_EVERY_S: Final = 0.2
SERVED_S: Final = 10.0
"""Nobody good waits longer, however busy this machine is."""
DIAL_WAIT_S: Final = 0.02
TRIED_AGAIN: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})
"""As `mesh_client` does: a broker that opens its port anew cancels a call that it has not looked at yet."""
FAILURES_MAX: Final = 20


class Witness:
    """Watches the broker of `mesh` while its context `watching` is open."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self.call_ms: list[float] = []
        """Calls on the standing connection."""
        self.dial_ms: list[float] = []
        """From dialling a port until its answer."""
        self.failures: list[str] = []

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Self]:
        """Call meanwhile."""
        mesh, api = self._mesh.addresses.mesh, self._mesh.addresses.api
        async with channel_to(api) as channel:
            watches = (
                self._watch("group", EVERY_S, self.call_ms, lambda: asked(channel)),
                self._watch("api", DIAL_EVERY_S, self.dial_ms, lambda: served(api)),
                self._watch("mesh", DIAL_EVERY_S, self.dial_ms, lambda: served(mesh)),
            )
            tasks = [asyncio.create_task(watch, name="witness") for watch in watches]
            try:
                yield self
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(
        self, name: str, every_s: float, taken_ms: list[float], call: Callable[[], Awaitable[None]]
    ) -> None:
        while True:
            began_s = time.monotonic()
            try:
                async with asyncio.timeout(SERVED_S):
                    await call()
            except (grpc.aio.AioRpcError, TimeoutError, AssertionError) as error:
                self._fail(f"{name}: {_words(error)}")
            else:
                taken_ms.append((time.monotonic() - began_s) * 1_000)
            await asyncio.sleep(every_s)

    def _fail(self, text: str) -> None:
        if len(self.failures) < FAILURES_MAX:
            self.failures.append(text)


async def asked(channel: grpc.aio.Channel) -> None:
    """A call as programs make it, with `TRIED_AGAIN`. Raises grpc.aio.AioRpcError."""
    request = pb.GetGroupRequest(name=PARENT)
    while True:
        try:
            await Api(channel).admin.GetGroup(request, timeout=SERVED_S, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            if error.code() not in TRIED_AGAIN:
                raise
            await asyncio.sleep(DIAL_WAIT_S)
        else:
            return


async def served(address: str) -> None:
    """Return when a new connection to this port was served; dials until then."""
    while True:
        async with channel_to(address) as channel:
            try:
                assert await raw_call(channel, HEALTH, b"") == SERVING
            except grpc.aio.AioRpcError as error:
                if error.code() not in TRIED_AGAIN:
                    raise
            else:
                return
        await asyncio.sleep(DIAL_WAIT_S)


def _words(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name} {error.details()}"
    return f"{type(error).__name__} {error}".strip()
