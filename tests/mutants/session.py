"""Defects in the agent's session."""

from collections.abc import Callable
from typing import Any

from agent_stub.session import AgentSession
from agent_stub.session.attempts import Attempts
from tests.mutants import Mutant


def _nothing(original: Callable[..., Any]) -> Callable[..., None]:
    return lambda *arguments, **named: None


def _forgets_outcomes(disconnected: Callable[..., None]) -> Callable[..., None]:
    def forgetful(self: AgentSession, now_us: int) -> None:
        disconnected(self, now_us)
        for key in [key for key, attempt in self._held.items() if attempt.outcome is not None]:
            del self._held[key]

    return forgetful


def _keeps_acknowledged(acknowledge: Callable[..., None]) -> Callable[..., None]:
    return lambda self, keys: None


def _goes_on_in_spite(stop: Callable[..., None]) -> Callable[..., None]:
    """A running attempt is not ended at the fence; the session believes that it is."""

    def deaf(self: Attempts, attempt: Any, reason: str, grace_us: int = 0) -> None:
        if reason != "fenced":
            stop(self, attempt, reason, grace_us)

    return deaf


def _names_nothing(snapshot: Callable[..., Any]) -> Callable[..., Any]:
    def silent(self: AgentSession, now_us: int) -> Any:
        hello = snapshot(self, now_us)
        del hello.held[:]
        if self._listed is not None:
            self._listed = []
        return hello

    return silent


MUTANTS = (
    Mutant(
        "no-fencing",
        "session",
        "P3",
        "an exclusive run goes on after the agent's lease",
        AgentSession,
        "_check_lease",
        _nothing,
    ),
    Mutant(
        "fence-without-stop",
        "session",
        "P3",
        "at the fence an exclusive run is not told to stop",
        Attempts,
        "stop",
        _goes_on_in_spite,
    ),
    Mutant(
        "outcome-kept-for-ever",
        "session",
        "liveness",
        "an acknowledged outcome is still held",
        Attempts,
        "acknowledge",
        _keeps_acknowledged,
    ),
    Mutant(
        "hello-names-nothing",
        "session",
        "P3",
        "what is held is not named in Hello, and runs on",
        AgentSession,
        "_snapshot",
        _names_nothing,
    ),
)
