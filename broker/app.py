"""The composition root: the one place that knows every part of a broker, and in which order they start and stop.

Start: store (lock, check, what a crash left), ownership and recovery, engine, API port, mesh port. A port is open only
when what stands behind it works. Stop: not ready, no submissions, GoAway to every agent, the mailbox worked off, ports
closed, store closed. If the store fails in a way that leaves the disk unknown, the process ends: starting again from
the file finds the truth (crash-only).
"""

import asyncio
import os
import secrets
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import grpc.aio
import structlog

from broker import garbage
from broker.clock import EngineClock
from broker.control.acts import AgentActs
from broker.control.directory import Directory
from broker.control.edits import Edits
from broker.control.removals import Removals
from broker.control.resources import Resources
from broker.control.status import AgentStatus, agent_status
from broker.control.tombstones import Tombstones
from broker.engine import Engine
from broker.errors import ConfigError, MeshError, StoreLockedError
from broker.observe import lag, logs
from broker.observe.health import HealthServer, Readiness
from broker.observe.metrics import Metrics
from broker.observe.page import MetricsPage
from broker.observe.recording import Recording
from broker.rpc import services
from broker.rpc.admin import AdminService
from broker.rpc.admission import WAIT_S_MAX
from broker.rpc.agents import AgentService
from broker.rpc.jobs import JobService
from broker.rpc.server import UNSEEN_MAX, Health, Listener, Option, options_of
from broker.rpc.turns import Turns
from broker.rpc.watch import JobFeed
from broker.settings import Settings
from broker.store.retention import Retention, RetentionPolicy
from broker.store.sqlite import SqliteStore

BROKER_ID: Final = "broker"
"""One broker a SQLite file: its name is always the same."""
STORE_FILE: Final = "mesh.sqlite"
JOURNAL_FOLDER: Final = "journal"
PROBE_EVERY_S: Final = 1.0
STOP_GRACE_S: Final = 2.0
DRAIN_WAIT_S: Final = 5.0
"""How long a stop waits for the mailbox to be worked off."""

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_CONFIG: Final = 2
EXIT_LOCKED: Final = 6
_EXITS: Final[dict[type[MeshError], int]] = {StoreLockedError: EXIT_LOCKED, ConfigError: EXIT_CONFIG}
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger()


class Broker:
    """A whole broker in this process: `async with Broker(settings) as broker`; its addresses are real then.

    Entering raises ConfigError (also: a port is taken, the clock is behind), StoreLockedError, StoreFailedError.
    """

    def __init__(self, settings: Settings) -> None:
        if not settings.dev:
            raise ConfigError(
                "this version knows agents only by what they say themselves: start with --dev, on a loopback address "
                "(docs/roadmap.md says when certificates come)",
                reason="NOT_BUILT",
            )
        self._settings = settings
        self._readiness = Readiness()
        self.store = SqliteStore(
            settings.data_dir / STORE_FILE,
            synchronous=settings.store.synchronous,
            payload_inline_max=settings.store.payload_inline_bytes_max,
        )
        self._seed = secrets.randbits(63)
        self.engine = Engine(
            self.store,
            EngineClock(),
            settings.limits,
            settings.dispatch.policy(),
            broker_id=BROKER_ID,
            payload_cache_bytes_max=settings.store.payload_cache_bytes_max,
            seed=self._seed,
        )
        self._directory = Directory(self.store, self.engine, settings.limits.agents_max, settings.plan_of)
        agents_max = settings.limits.metrics_agents_max
        self._metrics = Metrics(self.engine, self._directory, agent_status, AgentStatus, agents_max)
        self._page = MetricsPage(self._metrics.snapshot, settings.data_dir / STORE_FILE)
        policy = RetentionPolicy.of(settings.store)
        purge = Tombstones(self.store, self.engine, self._directory).purge
        self.retention = Retention(self.store, policy, self.engine.clock.now_us, lambda: self.engine.commit_seq, purge)
        self._stack = AsyncExitStack()
        self._running: asyncio.Task[None] | None = None

    # --- what it is -------------------------------------------------------------------------------------------------

    @property
    def mesh_address(self) -> str:
        """Where agents connect, `host:port`."""
        return self._mesh.address

    @property
    def api_address(self) -> str:
        """Where clients connect, `host:port`."""
        return self._api.address

    @property
    def metrics_address(self) -> str:
        """Where `/metrics`, `/healthz` and `/readyz` are, `host:port`."""
        return self._health_server.address

    @property
    def mesh_listener(self) -> Listener:
        """The port of the agents."""
        return self._mesh

    @property
    def jobs(self) -> JobService:
        """What submitters call."""
        return self._jobs

    @property
    def agents(self) -> AgentService:
        """The streams of the agents."""
        return self._agents

    async def failed(self) -> None:
        """Wait until the engine ends by itself, which it only does by raising what it raises here."""
        assert self._running is not None
        await asyncio.shield(self._running)

    # --- start ------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        began_s = time.monotonic()
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        log.info(
            "broker.ready",
            mesh=self.mesh_address,
            api=self.api_address,
            metrics=self.metrics_address,
            data_dir=str(self._settings.data_dir),
            synchronous=self.store.synchronous,
            seconds=round(time.monotonic() - began_s, 3),
        )
        return self

    async def _start(self) -> None:
        for part in ("store", "api", "mesh"):
            self._readiness.expect(part)
        self._start_health_server()
        await self._start_engine()
        settings = self._settings
        default = settings.dispatch.operation_policy()
        resources = Resources(self.store, self.engine, self._directory, settings.limits, default)
        self._removals = Removals(self.store, self.engine, self._directory, resources)
        await self._directory.load()
        await resources.configure_all()
        await self._removals.resume()
        if settings.dev:
            await resources.create_defaults()
        await self._start_listeners(resources)

    def _start_health_server(self) -> None:
        host, _, port = self._settings.metrics_listen.rpartition(":")
        try:
            self._health_server = HealthServer(host.strip("[]"), int(port), self._readiness, self._page.text)
        except OSError as error:
            text = (
                f"metrics_listen = {self._settings.metrics_listen}: cannot listen there: {error.strerror}. Is another "
                "broker there? Else name a free port with --metrics-listen"
            )
            raise ConfigError(text, reason="PORT_TAKEN") from error
        self._health_server.start()
        self._stack.callback(self._health_server.stop)

    async def _start_engine(self) -> None:
        _make_folder(self._settings.data_dir)
        await self.store.open()
        self._stack.push_async_callback(self.store.close)
        await self.engine.recover()
        self._metrics.begin()
        self.engine.observe(self._metrics)
        self._start_journal()
        self._running = asyncio.create_task(self.engine.run(), name="engine")
        self._running.add_done_callback(self._engine_ended)
        self._stack.push_async_callback(self._stop_engine)
        self._readiness.ask("store", lambda: "the store refuses commits" if self.engine.is_stalled else "ok")

    def _start_journal(self) -> None:
        settings, folder = self._settings.journal, self._settings.data_dir / JOURNAL_FOLDER
        if not settings.enabled:
            return
        recording = Recording(settings, folder, seed=self._seed, program=self._metrics.version)
        try:
            recording.start()
        except OSError as error:
            raise ConfigError(f"journal.enabled: cannot write to {folder}: {error.strerror}") from error
        self.engine.record(recording)
        self._metrics.read_journal(recording)
        self._stack.push_async_callback(asyncio.to_thread, recording.stop)

    async def _start_listeners(self, resources: Resources) -> None:
        feed = JobFeed(self.engine.commit_seq, self._settings.limits.watchers_max)
        self.engine.observe(feed)
        limits = self._settings.limits
        turns = Turns()
        self._jobs = JobService(self.engine, self._directory, self.store, feed, self._settings, turns)
        admin = AdminService(
            resources,
            self._directory,
            AgentActs(self.engine, self._directory, resources),
            Edits(self.store, self._directory, resources),
            self._removals,
        )
        self._agents = AgentService(self.engine, self._directory, self._settings, self.store.mesh_id, turns)
        self._metrics.read_streams(lambda: self._agents.count, self._agents.traffic)
        self._metrics.read_refusals(self._jobs.refused)
        self._metrics.read_retention(self.retention)
        api_health = Health(services.API_SERVICES)
        mesh_health = Health(services.MESH_SERVICES)
        self._health = (api_health, mesh_health)

        def register_api(server: grpc.aio.Server) -> None:
            api_health.register(server)
            services.register_api(server, self._jobs, admin)

        def register_mesh(server: grpc.aio.Server) -> None:
            mesh_health.register(server)
            services.register_mesh(server, self._agents)

        self._api = self._listener(
            "api", self._settings.api_listen, register_api, options_of(limits, limits.streams_per_connection_api)
        )
        # Each call of an agent stands on a connection of its own: to end it by lot makes two of one.
        unseen_max = max(UNSEEN_MAX, round(limits.hellos_per_s * WAIT_S_MAX))
        options = options_of(limits, limits.streams_per_connection_mesh, unseen_max)
        self._mesh = self._listener("mesh", self._settings.mesh_listen, register_mesh, options)
        for listener in (self._api, self._mesh):
            await listener.start()
            self._stack.push_async_callback(listener.stop, 0.0)
        for health in self._health:
            await health.serving()
        await self._probe()
        tasks = (
            (self._probe_for_ever(), "probe"),
            (lag.watch(self._metrics.on_lag), "lag"),
            (self.retention.run_for_ever(), "retention"),
        )
        for work, name in tasks:
            task = asyncio.create_task(work, name=name)
            task.add_done_callback(self._task_ended)
            self._stack.push_async_callback(_cancelled, task)
        self._page.open(asyncio.get_running_loop())

    def _listener(
        self, name: str, address: str, register: Callable[[grpc.aio.Server], None], options: Sequence[Option]
    ) -> Listener:
        return Listener(name, address, register, options, self._metrics.acceptor_restarted, self._jobs.count_invalid)

    async def _probe_for_ever(self) -> None:
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            await self._probe()

    async def _probe(self) -> None:
        for listener in (self._api, self._mesh):
            self._readiness.set(listener.name, await listener.probe())

    # --- stop -------------------------------------------------------------------------------------------------------

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop in order: what was accepted is answered, what runs on agents goes on there."""
        log.info("broker.stopping", sessions=self._agents.count)
        self._readiness.set("broker", "stopping")
        for health in self._health:
            await health.stopping()
        self._jobs.stop_accepting()
        assert self._running is not None
        if not self._running.done():
            await self._agents.go_away("the broker is stopping")
            await asyncio.gather(*(listener.stop(STOP_GRACE_S) for listener in (self._api, self._mesh)))
        await self._stack.aclose()
        log.info("broker.stopped")

    async def _stop_engine(self) -> None:
        assert self._running is not None
        self.engine.close()
        # What a store that takes nothing holds up was not answered: it may be given up.
        await asyncio.wait((self._running,), timeout=DRAIN_WAIT_S)
        self._running.cancel()
        with suppress(Exception, asyncio.CancelledError):  # whoever called `failed` has it
            await self._running

    def _engine_ended(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.critical("engine.failed", why=str(error), exc_info=error)
            self._readiness.set("store", f"the engine has stopped: {error}")
            self.engine.fail(error)

    def _task_ended(self, task: "asyncio.Task[None]") -> None:
        """A task that is to run until the stop is over: by an error, it is a mistake of the broker."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("task.failed", task=task.get_name(), why=str(error), exc_info=error)
            self._readiness.set(task.get_name(), f"ended: {error}")


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(Exception, asyncio.CancelledError):  # what it raised is in the log
        await task


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"data_dir = {path}: cannot make this folder: {error.strerror}") from error


def serve(settings: Settings) -> int:
    """Run a broker until SIGTERM or SIGINT; a second one ends it at once. Returns the exit code of the process."""
    logs.configure(settings.log_level)
    before = {number: signal.getsignal(number) for number in _STOP_SIGNALS}
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_serve(settings))
    except MeshError as error:
        code = next((code for kind, code in _EXITS.items() if isinstance(error, kind)), EXIT_FAILED)
        _say_why(error, code)
        return code
    finally:
        for number, handler in before.items():  # a closed loop of uvloop leaves its own, deaf handler behind
            signal.signal(number, handler)


def _say_why(error: MeshError, code: int) -> None:
    event = "broker.failed" if code == EXIT_FAILED else "broker.refused"
    log.error(event, reason=error.reason, why=error.text)


async def _serve(settings: Settings) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, _on_signal, stop)
    async with Broker(settings) as broker:
        garbage.tune()
        collector = garbage.Collector(lambda: broker.engine.commit_seq, lambda: broker.engine.live_jobs)
        collecting = asyncio.create_task(collector.run(), name="collector")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        failing = asyncio.create_task(broker.failed(), name="failed")
        await asyncio.wait((stopping, failing), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        collecting.cancel()
        if failing.done():
            failing.result()
        failing.cancel()
    return EXIT_OK


def _on_signal(stop: asyncio.Event) -> None:
    if stop.is_set():
        os._exit(EXIT_FAILED)
    stop.set()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The loop of uvloop where it is installed: the same behaviour with less work a frame."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
