"""The two gRPC listeners of a broker: the mesh port for agents, the API port for everybody else.

One request whose path is not valid UTF-8 ends the accepting loop of a `grpc.aio` server for good, while its live
streams go on and nothing says so. Therefore a `Listener` watches that loop and opens a new server on the same port when
it ends, and `probe` calls the own port like a stranger would: what it finds is part of readiness.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # has no stubs
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]  # has no stubs

from broker.errors import ConfigError
from broker.rpc import accepting
from broker.rpc.interceptors import ContractInterceptor, OnInvalid
from broker.settings import LimitSettings

PROBE_WAIT_S: Final = 2.0
REOPEN_WAIT_S: Final = 0.05
"""Between two tries while the socket of the server that ended is still closing."""
REOPEN_FAILED_WAIT_S: Final = 1.0
"""Between two tries when opening failed for another reason."""
STREAMS_WAIT_S: Final = 30 * 24 * 3_600.0
"""How long the streams of a server that ended may go on."""
KEEPALIVE_MS: Final = 10_000
PING_TIMEOUT_MS: Final = 20_000
"""On a slow way a ping waits behind a payload: 1 MiB takes 9 s at 1 Mbit/s. Silent agents are found by their lease."""
PING_INTERVAL_MIN_MS: Final = 5_000
"""Below the agents' keepalive time, or they are cut off for pinging too often."""
HANDSHAKE_TIMEOUT_MS: Final = 5_000
UNSEEN_MAX: Final = 1_000
"""gRPC's own bound of calls that wait to be looked at."""

log = structlog.get_logger()

Register = Callable[[grpc.aio.Server], None]
Option = tuple[str, int]


class Listener:
    """One port that goes on accepting. `register` adds the services, to each server that is opened on it."""

    def __init__(
        self,
        name: str,
        address: str,
        register: Register,
        options: Sequence[Option],
        on_restart: Callable[[str], None],
        on_invalid: OnInvalid | None = None,
    ) -> None:
        self._on_invalid = on_invalid
        self.name = name
        self.address = address
        self.restarts = 0
        self._register = register
        self._options = options
        self._on_restart = [on_restart]
        self._servers: list[grpc.aio.Server] = []
        self._ended: set[grpc.aio.Server] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopping = False

    async def start(self) -> None:
        """Listen; `address` has the real port from now on. Raises ConfigError if the port is taken."""
        accepting.guard(asyncio.get_running_loop())
        await self._open()

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, give those that run so long, then end them."""
        self._is_stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(_stop(server, grace_s) for server in self._servers))

    @property
    def servers(self) -> int:
        """How many servers there are: the one that accepts, and those that ended and still have streams."""
        return len(self._servers)

    def tell(self, on_restart: Callable[[str], None]) -> None:
        """Call this too with the listener's name, each time that it was opened again."""
        self._on_restart.append(on_restart)

    async def probe(self) -> str:
        """Call the own port as a new client: "ok", or what is wrong."""
        options = (("grpc.use_local_subchannel_pool", 1),)
        async with grpc.aio.insecure_channel(self.address, options=options) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            try:
                await check(health_pb2.HealthCheckRequest(), timeout=PROBE_WAIT_S)
            except grpc.aio.AioRpcError as error:
                return f"a call to {self.address} failed: {error.code().name}"
        return "ok"

    async def _open(self) -> None:
        server = grpc.aio.server(interceptors=[ContractInterceptor(self._on_invalid)], options=self._options)
        self._register(server)
        try:
            port = server.add_insecure_port(self.address)
        except RuntimeError as error:
            way = f"Is another broker there? Else name a free port with --{self.name}-listen"
            text = f"{self.name}: cannot listen on {self.address}: {error}. {way}"
            raise ConfigError(text, reason="PORT_TAKEN") from error
        await accepting.start(server, partial(self._accepting_ended, server))
        self.address = f"{self.address.rpartition(':')[0]}:{port}"
        self._servers.append(server)

    def _accepting_ended(self, server: grpc.aio.Server) -> None:
        if self._is_stopping or server in self._ended:
            return
        self._ended.add(server)
        for work, what in ((self._retire(server), "retire"), (self._reopen(), "reopen")):
            task = asyncio.get_running_loop().create_task(work, name=f"{what}-{self.name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _retire(self, server: grpc.aio.Server) -> None:
        """Close the socket of the server that ended, let its streams go on to their end, then forget it."""
        log.error("listener.ended", listener=self.name, address=self.address, why=repr(await _failure(server)))
        await server.stop(STREAMS_WAIT_S)
        self._servers.remove(server)
        self._ended.discard(server)
        log.info("listener.retired", listener=self.name, address=self.address)

    async def _reopen(self) -> None:
        """On the same port, as soon as the server that ended has closed its socket."""
        while True:
            try:
                await self._open()
            except ConfigError:
                await asyncio.sleep(REOPEN_WAIT_S)
            except Exception:
                log.exception("listener.reopen_failed", listener=self.name, address=self.address)
                await asyncio.sleep(REOPEN_FAILED_WAIT_S)
            else:
                break
        self.restarts += 1
        for tell in self._on_restart:
            tell(self.name)
        log.warning("listener.reopened", listener=self.name, address=self.address)


async def _failure(server: grpc.aio.Server) -> Exception | None:
    """Begin to stop a server whose accepting loop has ended; that raises its failure instead of waiting."""
    try:
        await server.stop(STREAMS_WAIT_S)
    except Exception as error:  # noqa: BLE001 - whatever it was that the loop failed of
        return error
    return None


async def _stop(server: grpc.aio.Server, grace_s: float) -> None:
    """Stop it, also if its accepting loop has just failed: only the second call waits then."""
    with suppress(Exception):
        await server.stop(grace_s)
    await server.stop(grace_s)


class Health:
    """The standard health service, for one listener and all that are opened after it."""

    def __init__(self, services: Sequence[str]) -> None:
        self._servicer = health.aio.HealthServicer()
        self._services = ("", *services)

    def register(self, server: grpc.aio.Server) -> None:
        """Serve it there."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def serving(self) -> None:
        """All services serve."""
        for service in self._services:
            await self._servicer.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def stopping(self) -> None:
        """None serves any more, and none will."""
        await self._servicer.enter_graceful_shutdown()


def reflect(server: grpc.aio.Server, services: Sequence[str]) -> None:
    """Let tools ask what is served."""
    names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)


def options_of(limits: LimitSettings, streams_max: int, unseen_max: int = UNSEEN_MAX) -> list[Option]:
    """What bounds a listener and finds dead peers. The port is never shared: a second broker must fail loudly.

    `unseen_max` calls wait until the broker has looked at them. Of more than that gRPC ends some by lot, all from twice
    as many on.
    """
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", streams_max),
        ("grpc.server.max_pending_requests", unseen_max),
        ("grpc.server.max_pending_requests_hard_limit", 2 * unseen_max),
        ("grpc.max_receive_message_length", limits.message_bytes_max),
        ("grpc.max_metadata_size", limits.metadata_bytes_max),
        ("grpc.absolute_max_metadata_size", limits.metadata_bytes_max),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
        ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", PING_INTERVAL_MIN_MS),
    ]
