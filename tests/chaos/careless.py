"""A broker with one of its guards taken out from outside: what the rows of hostile peers must catch.

    python -m tests.chaos.careless no-acceptor-guard serve --dev ...

Beside `tests.e2e.defects`, whose brokers break promises to good peers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import grpc.aio
import pytest

import broker.app
import broker.rpc.server
from broker.cli import main
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.messages import AttemptFinished

REPLACED: Final = pytest.MonkeyPatch()


def no_acceptor_guard() -> None:
    """Servers are started as everybody starts them."""

    async def start(server: grpc.aio.Server, on_end: Callable[[], None]) -> None:
        await server.start()

    REPLACED.setattr("broker.rpc.accepting.guard", lambda loop: None)
    REPLACED.setattr("broker.rpc.accepting.start", start)


def no_message_limit() -> None:
    """Messages may be of any size, before and after they are unpacked."""
    really = broker.rpc.server.options_of

    def options_of(*given: Any) -> list[tuple[str, int]]:
        limit = "grpc.max_receive_message_length"
        return [*(option for option in really(*given) if option[0] != limit), (limit, -1)]

    REPLACED.setattr(broker.app, "options_of", options_of)


def no_ownership() -> None:
    """An outcome counts whoever reports it."""
    really = Dispatcher.step

    def step(self: Dispatcher, now_us: int, event: Any) -> Any:
        if isinstance(event, AttemptFinished) and (job := self.ledger.jobs.get(event.job_key)) is not None:
            setattr(event, "agent", job.agent)  # noqa: B010 - to the type checker events are frozen
        return really(self, now_us, event)

    REPLACED.setattr(Dispatcher, "step", step)


GUARDS: Final[dict[str, Callable[[], None]]] = {
    "no-acceptor-guard": no_acceptor_guard,
    "no-message-limit": no_message_limit,
    "no-ownership": no_ownership,
}


def without(guard: str) -> Sequence[str]:
    """The program of a broker without it, for `Course`."""
    assert guard in GUARDS
    return ("-m", "tests.chaos.careless", guard)


if __name__ == "__main__":
    GUARDS[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))
