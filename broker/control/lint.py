"""What is unwise about a group that works all the same: warnings, never errors.

Judged by its active agents and what they said of their machines; what an agent leaves out is not held against it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from broker.control.presence import Machine


class GroupWarning(NamedTuple):
    """A machine name, and one sentence."""

    code: str
    text: str


NO_ENVIRONMENT: Final = GroupWarning("no_environment", "no environment names it: jobs sent to it are refused")

_MIXED: Final[tuple[tuple[str, str, Callable[[Machine], str]], ...]] = (
    ("mixed_os", "operating systems", lambda machine: machine.os),
    ("mixed_version", "versions", lambda machine: machine.version),
    ("mixed_time_zone", "time zones", lambda machine: machine.time_zone),
)


def warnings_of(machines: Sequence[Machine], *, has_environment: bool) -> tuple[GroupWarning, ...]:
    """All warnings about a group whose active agents are on these machines, always in the same order."""
    return tuple(_warnings(machines, has_environment))


def _warnings(machines: Sequence[Machine], has_environment: bool) -> Iterator[GroupWarning]:
    if not has_environment:
        yield NO_ENVIRONMENT
    if len(machines) < 2:
        number = "only one active agent" if machines else "no active agent"
        yield GroupWarning("few_agents", f"it has {number}: with two, one stands in for the other")
        return
    hosts = _values(machines, lambda machine: machine.host)
    if len(hosts) == 1 and all(machine.host for machine in machines):
        yield GroupWarning("one_host", f"all its active agents are on {hosts[0]}: they fail together with it")
    for code, words, of in _MIXED:
        values = _values(machines, of)
        if len(values) > 1:
            yield GroupWarning(code, f"its active agents have different {words}: {', '.join(values)}")


def _values(machines: Sequence[Machine], of: Callable[[Machine], str]) -> list[str]:
    return sorted({of(machine) for machine in machines} - {""})
