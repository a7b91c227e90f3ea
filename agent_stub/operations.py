"""What an agent can run: functions with a name, and what they are given.

    @operation("orders.copy")
    def copy_orders(job: JobContext) -> dict[str, int]:
        order = job.json()
        ...
        return {"rows": 3}

A handler is a function or a coroutine function of one `JobContext`. It returns bytes (`Content` if it knows of what
kind they are), text, None, or anything that JSON can say. It raises `OperationError` to say whether trying again
makes sense; any other exception is a retryable failure. Functions run in threads, coroutine functions on an event
loop that all of them share. A thread cannot be killed, so what must end when it is told to runs in a process of its
own: `process=True`, and everything exclusive.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from agent_stub.context import Content, JobCancelledError, JobContext, OperationError

__all__ = [
    "Content",
    "JobCancelledError",
    "JobContext",
    "Operation",
    "OperationError",
    "OperationLoadError",
    "Operations",
    "operation",
    "resolve",
]

NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")
NAME_CHARACTERS_MAX = 128
ATTRIBUTE = "__mesh_operation__"

Handler = Callable[[JobContext], object]
HandlerT = TypeVar("HandlerT", bound=Handler)


class OperationLoadError(Exception):
    """An operation cannot be registered or found: the text says which and why."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A handler under its name.

    Attributes:
        is_exclusive: never beside another attempt of the same job, whatever the broker's policy says.
        is_inline: run where the agent talks to its broker. For handlers of microseconds that never block: a thread
            costs more. One that is found slow runs in threads from then on.
        is_process: each attempt in a process of its own, which can be killed.
    """

    name: str
    handler: Handler
    is_exclusive: bool = False
    is_inline: bool = False
    is_process: bool = False

    @property
    def is_async(self) -> bool:
        """Whether the handler is a coroutine function."""
        return inspect.iscoroutinefunction(self.handler)

    @property
    def reference(self) -> str:
        """`module:name`, by which another process finds the handler.

        Raises:
            OperationLoadError: it cannot be found so.
        """
        handler: Any = self.handler
        module, name = getattr(handler, "__module__", ""), getattr(handler, "__qualname__", "<unnamed>")
        try:
            if module == "__main__" or _attribute_of(sys.modules[module], name) is not handler:
                raise AttributeError
        except (AttributeError, KeyError):
            raise OperationLoadError(
                f"{self.name} runs in a process of its own, which cannot find {module}.{name}: write it as a function "
                "at the top of a module that can be imported"
            ) from None
        return f"{module}:{name}"


def operation(
    name: str, *, exclusive: bool = False, inline: bool = False, process: bool = False
) -> Callable[[HandlerT], HandlerT]:
    """Mark a handler; `Operations` finds the mark. The function itself stays as it is."""
    if not NAME.fullmatch(name) or len(name) > NAME_CHARACTERS_MAX:
        raise OperationLoadError(f"{name!r} is no operation name: lower-case words joined by dots, `orders.copy`")

    def mark(handler: HandlerT) -> HandlerT:
        if inline and inspect.iscoroutinefunction(handler):
            raise OperationLoadError(f"{name}: a coroutine function cannot be inline")
        if inline and (process or exclusive):
            raise OperationLoadError(f"{name}: what runs in a process of its own cannot be inline")
        if not _takes_a_job(handler):
            raise OperationLoadError(f"{name}: its function must take the job as its one argument: def f(job)")
        setattr(handler, ATTRIBUTE, Operation(name, handler, exclusive, inline, process))
        return handler

    return mark


def _takes_a_job(handler: Handler) -> bool:
    try:
        inspect.signature(handler).bind(None)
    except TypeError:
        return False
    except ValueError:  # something built in, which does not say what it takes
        return True
    return True


class Operations:
    """The operations of one agent, by name."""

    def __init__(self, handlers: Iterable[Handler | Operation] = ()) -> None:
        self._by_name: dict[str, Operation] = {}
        for handler in handlers:
            self.register(handler)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[Operation]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def register(self, handler: Handler | Operation) -> None:
        """Add a marked handler.

        Raises:
            OperationLoadError: it is not marked, or another handler has its name.
        """
        found = handler if isinstance(handler, Operation) else getattr(handler, ATTRIBUTE, None)
        if not isinstance(found, Operation):
            raise OperationLoadError(f"{handler!r} is not marked with @operation(...)")
        known = self._by_name.setdefault(found.name, found)
        if known.handler is not found.handler:
            raise OperationLoadError(f"two operations are called {found.name}")

    def get(self, name: str) -> Operation | None:
        """The operation of this name, if the agent has it."""
        return self._by_name.get(name)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._by_name)

    def remove(self, name: str) -> None:
        """Leave out an operation; one that is not there is left alone."""
        self._by_name.pop(name, None)

    def load(self, reference: str) -> None:
        """Add what `module` or `module:attribute` names: a marked handler, an `Operations`, or a module of such.

        Raises:
            OperationLoadError: it cannot be imported, or holds no operation.
        """
        for found in _found_in(resolve(reference), reference):
            self.register(found)


def resolve(reference: str) -> object:
    """What `module` or `module:attribute` names.

    Raises:
        OperationLoadError: it cannot be imported, or has no such attribute.
    """
    module_name, _, attribute = reference.partition(":")
    try:
        found: object = importlib.import_module(module_name)
    except Exception as error:
        raise OperationLoadError(f"{module_name} cannot be imported: {type(error).__name__}: {error}") from error
    try:
        return _attribute_of(found, attribute)
    except AttributeError:
        raise OperationLoadError(f"{module_name} has no {attribute}") from None


def _attribute_of(found: object, path: str) -> object:
    for part in path.split(".") if path else ():
        found = getattr(found, part)
    return found


def _found_in(holder: object, reference: str) -> list[Operation]:
    if isinstance(holder, Operations):
        found = list(holder)
    elif isinstance(holder, ModuleType):
        marks = (getattr(value, ATTRIBUTE, None) for value in vars(holder).values())
        found = [mark for mark in marks if isinstance(mark, Operation)]
    else:
        mark = getattr(holder, ATTRIBUTE, None)
        found = [mark] if isinstance(mark, Operation) else []
    if not found:
        raise OperationLoadError(f"{reference} holds no operation: mark a function with @operation(...)")
    return found
