"""All that a dispatcher knows, as plain values that can be kept, and a dispatcher that goes on from there.

Recovery gives back what is durable; a snapshot gives back everything: sessions, capacity, fair-queue times, armed
deadlines, what is not written yet. A dispatcher that was restored gives the same effects for the same events from then
on, to the byte, if its generator is in the same state too. Journals begin with one.

The objects are walked as a graph by their slots, so a new slot is kept without a word here; what is of an unknown kind
is refused. Plain values are numbers, texts, `None` and lists; a list is tagged by its first item:

    ["b", hex]  bytes            ["t", ...]  tuple           ["f", ...]  frozenset
    ["e", class, value]  member of an enum                   ["m", node, name]  bound method
    ["o", node]  an object, a dict, a list or a set, by its number in `nodes`     ["r"]  the generator

Checkpoints are bytes of customers: only whose they are is kept.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from types import BuiltinMethodType, MethodType
from typing import Any, Final

from broker.dispatch.deadlines import Deadlines
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.lane import Lane, Returned
from broker.dispatch.ledger import Ledger, Randomness
from broker.dispatch.messages import Effects, Transition
from broker.dispatch.model import (
    Admin,
    Agent,
    DispatchPolicy,
    DrainEnd,
    DrainThen,
    GroupNo,
    Job,
    JobState,
    Link,
    OnLoss,
    OperationPolicy,
    Phase,
    Placing,
    Spread,
)
from broker.dispatch.placement import AgentClass, Placement
from broker.dispatch.placing import RoundRobin, Sampled
from broker.dispatch.queue import LabelSet, Level, Queue
from broker.dispatch.rows import Writes
from broker.dispatch.table import JobTable

Plain = Any
"""A number, a text, `None`, or a list of these."""
Node = list[Plain]
"""[class, value of each slot]; of a dict its keys and values in turn, of a list or set its items."""

KINDS: Final[tuple[type, ...]] = (
    *(Ledger, JobTable, Queue, LabelSet, Level, Lane, Returned, Placement, RoundRobin, Sampled, AgentClass, Deadlines),
    *(Job, Agent, OperationPolicy, DispatchPolicy, Transition, Effects, Writes),
)
"""What a dispatcher is made of."""
ENUMS: Final = (Admin, DrainEnd, DrainThen, JobState, Link, OnLoss, Phase, Placing, Spread)
PRESENT: Final = True
"""Stands for bytes that are not kept."""

_SCALARS: Final = frozenset({int, str, float, bool, type(None)})
_BY_NAME: Final = {kind.__name__: kind for kind in (*KINDS, *ENUMS)}
_MEMBERS: Final[dict[object, Plain]] = {
    (kind, member): ["e", kind.__name__, member.value] for kind in ENUMS for member in kind
}


def slots_of(kind: type) -> tuple[str, ...]:
    """All slots, those of base classes first."""
    return tuple(name for one in reversed(kind.__mro__) for name in one.__dict__.get("__slots__", ()))


_SLOTS: Final = {kind: slots_of(kind) for kind in KINDS}
_VALUES: Final[dict[type, Callable[[Any], tuple[object, ...]]]] = {
    kind: attrgetter(*names) for kind, names in _SLOTS.items()
}


@dataclass(slots=True, frozen=True)
class Snapshot:
    """One dispatcher between two batches. `nodes` are all its objects, the ledger first; all values are plain."""

    group: GroupNo
    epoch: int
    nodes: list[Node]


def shape() -> list[list[str]]:
    """What a snapshot is made of, class by class: two programs with the same shape can read each other's."""
    kinds = [[kind.__name__, *names] for kind, names in _SLOTS.items()]
    return kinds + [[kind.__name__, *(member.value for member in kind)] for kind in ENUMS]


def capture(dispatcher: Dispatcher) -> Snapshot:
    """What the dispatcher knows now. All its effects must be taken. Costs some microseconds a job and agent."""
    assert not dispatcher.ledger.effects, "a snapshot is taken between two batches"
    return Snapshot(dispatcher.ledger.group, dispatcher.epoch, _Capture(dispatcher.ledger).nodes)


def restore(snapshot: Snapshot, random: Randomness) -> Dispatcher:
    """A dispatcher that goes on from there; `random` must be as the other one's was. Raises ValueError: no snapshot."""
    dispatcher = Dispatcher(snapshot.group, DispatchPolicy(), snapshot.epoch, random)
    try:
        _fill(dispatcher.ledger, snapshot.nodes, random)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"this is not a snapshot of a dispatcher: {error!r}") from error
    return dispatcher


class _Capture:
    """One walk. What is found is numbered at once and looked into later, so chains of jobs may be long."""

    def __init__(self, ledger: Ledger) -> None:
        self.nodes: list[Node] = []
        self._random = ledger.random
        self._checkpoints = ledger.checkpoints
        self._numbers: dict[int, Plain] = {}
        self._found: deque[object] = deque()
        self._refer(ledger)
        while self._found:
            self.nodes.append(self._node(self._found.popleft()))

    def _refer(self, one: object) -> Plain:
        reference = self._numbers.get(id(one))
        if reference is None:
            reference = self._numbers[id(one)] = ["o", len(self._numbers)]
            self._found.append(one)
        return reference

    def _node(self, one: object) -> Node:
        kind = type(one)
        if kind in _VALUES:
            return [kind.__name__, *self._plain(_VALUES[kind](one))]
        if one is self._checkpoints:
            return ["dict", *(part for key in self._checkpoints for part in (key, PRESENT))]
        if isinstance(one, dict):
            return ["dict", *self._plain(part for pair in one.items() for part in pair)]
        assert isinstance(one, list | set)
        return [kind.__name__, *self._plain(one)]

    def _plain(self, values: Iterable[object]) -> list[Plain]:
        return [value if type(value) in _SCALARS else self._tagged(value) for value in values]

    def _tagged(self, value: object) -> Plain:
        kind = type(value)
        if kind in _VALUES or kind in (dict, list, set):
            return self._refer(value)
        if kind in ENUMS:
            return _MEMBERS[kind, value]
        if isinstance(value, bytes):
            return ["b", value.hex()]
        if kind is tuple:
            assert isinstance(value, tuple)
            return ["t", *self._plain(value)]
        if isinstance(value, frozenset):
            return ["f", *self._plain(sorted(value))]
        if isinstance(value, MethodType | BuiltinMethodType):  # compiled, it is one of C
            return ["m", self._refer(value.__self__), value.__name__]
        assert value is self._random, f"a snapshot cannot have a {kind.__name__}"
        return ["r"]


def _fill(ledger: Ledger, nodes: list[Node], random: Randomness) -> None:
    """Make every object first and give them their values then: they know each other in circles."""
    made: list[Any] = [ledger, *(_empty(node[0]) for node in nodes[1:])]
    if nodes[0][0] != Ledger.__name__:
        raise ValueError("the ledger is not the first node")
    # Dicts and sets come last: what they are made of may be keys, and hashes need values.
    for is_container in (False, True):
        for one, (name, *values) in zip(made, nodes, strict=True):
            if (name in _CONTAINERS) is is_container:
                _FILLERS.get(name, _fill_slots)(one, [_value(value, made, random) for value in values])


def _empty(name: str) -> object:
    kind = _CONTAINERS.get(name) or _BY_NAME[name]
    return object.__new__(kind) if name in _BY_NAME else kind()


def _value(value: Plain, made: list[Any], random: Randomness) -> Any:
    if type(value) is not list:
        return value
    match value:
        case ["o", number]:
            return made[number]
        case ["t", *values]:
            return tuple(_value(one, made, random) for one in values)
        case ["e", name, member]:
            return _BY_NAME[name](member)
        case ["b", text]:
            return bytes.fromhex(text)
        case ["f", *values]:
            return frozenset(_value(one, made, random) for one in values)
        case ["m", ["o", number], name]:
            return getattr(made[number], name)
        case ["r"]:
            return random
        case _:
            raise ValueError(f"no value is written as {value!r}")


def _fill_slots(one: Any, values: list[Any]) -> None:
    for name, value in zip(_SLOTS[type(one)], values, strict=True):
        object.__setattr__(one, name, value)  # some are frozen


def _fill_dict(one: dict[Any, Any], values: list[Any]) -> None:
    one.update(zip(values[::2], values[1::2], strict=True))


_CONTAINERS: Final[dict[str, type]] = {"dict": dict, "list": list, "set": set}
_FILLERS: Final[dict[str, Callable[[Any, list[Any]], None]]] = {
    "dict": _fill_dict,
    "list": list.extend,
    "set": set.update,
}
