"""A broker with one of its guards taken out, or a vice put in, from outside: what rows of hostile peers must catch.

    python -m tests.chaos.careless no-acceptor-guard serve --dev ...

Beside `tests.e2e.defects`, whose brokers break promises to good peers.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import grpc.aio
import pytest

import broker.app
import broker.rpc.server
from broker.cli import main
from broker.dispatch import liveness
from broker.dispatch.batch import Batch
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.messages import AttemptFinished, Send
from broker.engine import Engine
from broker.rpc.agents import AgentService
from broker.rpc.interceptors import ContractInterceptor

REPLACED: Final = pytest.MonkeyPatch()
CALL_BYTES: Final = 16_384
STREAM_BYTES: Final = 1 << 20
LOOK_S: Final = 0.05
STALL_S: Final = 0.5
FLOOD_EVENTS: Final = 100
UNREAD_JOBS: Final = 8
WATCHES: Final[list[asyncio.Task[None]]] = []


def no_acceptor_guard() -> None:
    """Servers are started as everybody starts them."""

    async def start(server: grpc.aio.Server, on_end: Callable[[], None]) -> None:
        await server.start()

    REPLACED.setattr("broker.rpc.accepting.guard", lambda loop: None)
    REPLACED.setattr("broker.rpc.accepting.start", start)


def no_message_limit() -> None:
    """Messages may be of any size, before and after they are unpacked."""
    limit = "grpc.max_receive_message_length"
    _without_option(limit, (limit, -1))


def _without_option(name: str, *instead: tuple[str, int]) -> None:
    really = broker.rpc.server.options_of

    def options_of(*given: Any) -> list[tuple[str, int]]:
        return [*(option for option in really(*given) if option[0] != name), *instead]

    REPLACED.setattr(broker.app, "options_of", options_of)


def no_ownership() -> None:
    """An outcome counts whoever reports it."""
    really = Dispatcher.step

    def step(self: Dispatcher, now_us: int, event: Any) -> Any:
        if isinstance(event, AttemptFinished) and (job := self.ledger.jobs.get(event.job_key)) is not None:
            setattr(event, "agent", job.agent)  # noqa: B010 - to the type checker events are frozen
        return really(self, now_us, event)

    REPLACED.setattr(Dispatcher, "step", step)


def no_handshake_timeout() -> None:
    """Whoever has dialled may be silent for as long as gRPC lets him."""
    _without_option("grpc.server_handshake_timeout_ms")


def unchecked_messages() -> None:
    """Whatever came is given to its handler."""
    REPLACED.setattr("broker.rpc.interceptors.checked", lambda message: message)


def keeps_calls() -> None:
    """Something of each call stays when it is over."""
    kept: list[bytes] = []
    really = ContractInterceptor.intercept_service

    async def intercept(self: ContractInterceptor, continuation: Any, details: Any) -> Any:
        kept.append(b"x" * CALL_BYTES)
        return await really(self, continuation, details)

    REPLACED.setattr(ContractInterceptor, "intercept_service", intercept)


def keeps_streams() -> None:
    """Something of each stream of an agent stays when it is over."""
    kept: list[bytes] = []
    really = AgentService._session

    def session(self: AgentService, *given: Any) -> Any:
        kept.append(b"x" * STREAM_BYTES)
        return really(self, *given)

    REPLACED.setattr(AgentService, "_session", session)


def no_superseding() -> None:
    """The newest stream is the agent's, whatever it says of itself."""
    REPLACED.setattr(liveness, "_refusal", lambda ledger, agent, event: None)


def makes_room() -> None:
    """When nothing more can be opened, those who are here must go."""
    really = AgentService.__init__

    async def watch(service: AgentService) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                os.close(os.dup(0))
            except OSError:
                for session in service.sessions:
                    session.end("overloaded")

    def begin(self: AgentService, *given: Any) -> None:
        really(self, *given)
        WATCHES.append(asyncio.get_running_loop().create_task(watch(self), name="makes-room"))

    REPLACED.setattr(AgentService, "__init__", begin)


def floods_first() -> None:
    """While somebody says much, whatever is to be sent waits."""
    really, turn = Engine._send, Engine._turn
    many = False

    def count(self: Engine, events: Sequence[Any], lag_us: int) -> Batch:
        nonlocal many
        many = len(events) > FLOOD_EVENTS
        return turn(self, events, lag_us)

    async def send(self: Engine, sends: list[Send]) -> None:
        await asyncio.sleep(STALL_S * many)
        await really(self, sends)

    REPLACED.setattr(Engine, "_turn", count)
    REPLACED.setattr(Engine, "_send", send)


def waits_for_readers() -> None:
    """Nobody is sent anything while an agent has not taken what it was sent."""
    really = Engine._send

    async def send(self: Engine, sends: list[Send]) -> None:
        agents = (agent for one in self.dispatchers() for agent in one.ledger.agents.values())
        if any(len(agent.sent) > UNREAD_JOBS for agent in agents):
            await asyncio.sleep(STALL_S)
        await really(self, sends)

    REPLACED.setattr(Engine, "_send", send)


GUARDS: Final[dict[str, Callable[[], None]]] = {
    "no-acceptor-guard": no_acceptor_guard,
    "no-message-limit": no_message_limit,
    "no-ownership": no_ownership,
    "no-handshake-timeout": no_handshake_timeout,
    "unchecked-messages": unchecked_messages,
    "keeps-calls": keeps_calls,
    "keeps-streams": keeps_streams,
    "no-superseding": no_superseding,
    "makes-room": makes_room,
    "floods-first": floods_first,
    "waits-for-readers": waits_for_readers,
}


def without(guard: str) -> Sequence[str]:
    """The program of a broker without it, for `Course`."""
    assert guard in GUARDS
    return ("-m", "tests.chaos.careless", guard)


if __name__ == "__main__":
    GUARDS[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))
