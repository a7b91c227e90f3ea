"""A small mesh as bytes, and back: a state that many choices are tried from. A fifth of what `copy.deepcopy` takes."""

from __future__ import annotations

import pickle
from enum import Enum
from io import BytesIO
from typing import Any, ClassVar, Final

from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.ledger import Ledger
from broker.dispatch.model import DispatchPolicy, OperationPolicy
from broker.dispatch.snapshot import slots_of
from simulator.fuzz.bounds import Bounds
from simulator.fuzz.course import Course
from simulator.fuzz.judged import JudgedDispatcher
from simulator.fuzz.small import SmallMesh

_LEDGER: Final = slots_of(Ledger)
_CONSTANT: Final = (Enum, DispatchPolicy, OperationPolicy, Course, Bounds)


def kept(mesh: SmallMesh) -> bytes:
    """The mesh as bytes, for `restored` in this process."""
    _Shell.dispatcher = mesh.broker.dispatcher
    buffer = BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(mesh)
    return buffer.getvalue()


def restored(kept: bytes) -> SmallMesh:
    """The mesh that was kept. The one that was restored before must not be used any more: both have one dispatcher."""
    mesh: SmallMesh = pickle.loads(kept)  # noqa: S301  # what was just made
    return mesh


class _Shell:
    """The dispatcher that restored meshes use in turn: all that it knows is in its slots, which are filled anew.

    Its table of handlers, functions of the code under test or of a defect in it, is not copied with each state.
    """

    dispatcher: JudgedDispatcher


def _shell() -> JudgedDispatcher:
    return _Shell.dispatcher


def _shell_ledger() -> Ledger:
    return _Shell.dispatcher.ledger


class _Constants:
    """What never changes is kept once: members of enums, policies, courses. By their identity."""

    numbers: ClassVar[dict[int, int]] = {}
    known: ClassVar[list[object]] = []

    @classmethod
    def number(cls, one: object) -> int:
        """The number of a constant, from now on."""
        number = cls.numbers.get(id(one))
        if number is None:
            number = cls.numbers[id(one)] = len(cls.known)
            cls.known.append(one)
        return number


def _constant(number: int) -> object:
    return _Constants.known[number]


class _Pickler(pickle.Pickler):
    """Everything but constants and the shell as it is."""

    def reducer_override(self, one: Any) -> Any:
        """How a dispatcher and its ledger are kept; the rest as always."""
        if isinstance(one, _CONSTANT):
            return _constant, (_Constants.number(one),)
        if type(one) is Ledger:
            return _shell_ledger, (), (None, {name: getattr(one, name) for name in _LEDGER})
        if isinstance(one, Dispatcher):
            slots = {"_active_us": one._active_us, "_has_active": one._has_active}
            return _shell, (), (one.__dict__, {**slots, "ledger": one.ledger})
        return NotImplemented
