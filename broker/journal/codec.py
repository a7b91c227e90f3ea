"""Events as JSON and back, and a digest of effects, from the annotations of their classes.

An object is written as the list of its fields in their order, an event with the name of its class in front. Bytes are
hex, enums their values, sets sorted. What a class calls opaque (payloads, results) is never written: only whether it is
there, of a dict its keys.
"""

import json
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from enum import Enum
from hashlib import blake2b
from operator import attrgetter
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

DIGEST_BYTES: Final = 8
SLICE: Final = 64
"""So many things are written at once: meanwhile no other thread runs."""

Plain = Any
"""A number, a text, `None`, or a list of these."""
Reader = Callable[[Any], Any]


class Codec:
    """Writes and reads objects of these dataclasses, and digests what is made of them and of named tuples.

    `events` are those that can be read again by name, `others` what they and effects are made of.
    """

    def __init__(self, events: Iterable[type], others: Iterable[type], opaque: frozenset[str]) -> None:
        self._events = {kind.__name__: kind for kind in events}
        kinds = (*self._events.values(), *others)
        self._opaque = opaque
        self._fields = {kind: tuple(field.name for field in fields(kind)) for kind in kinds}
        self._writers = {kind: self._writer(kind) for kind in kinds}
        self._named = {kind: name for name, kind in self._events.items()}
        self._encode = json.JSONEncoder(
            default=self._plain, separators=(",", ":"), check_circular=False, ensure_ascii=True
        ).encode
        self._readers: dict[type, tuple[Reader | None, ...]] = {}

    def shape(self) -> list[list[str]]:
        """Names of classes with their fields: two programs with the same shape can read each other's events."""
        return [[kind.__name__, *names] for kind, names in self._fields.items()]

    # --- writing ----------------------------------------------------------------------------------------------------

    def text(self, value: object) -> str:
        """The value as JSON on one line; events anywhere in it are written as `Event.class, fields...`."""
        return self._encode(value)

    def digest(self, effects: object) -> str:
        """A short digest of all that these effects say, hex. Same effects, same digest, in every process."""
        digest = blake2b(digest_size=DIGEST_BYTES)
        for part in self._parts(effects):
            digest.update(part.encode())
        return digest.hexdigest()

    def _parts(self, value: Any) -> Iterator[str]:
        """All lists that are not empty, and the rest, in parts: none is so long that other threads wait for it."""
        kind = type(value)
        for name, part in zip(self._fields[kind], self._writers[kind](value)[1:], strict=True):
            if type(part) in self._fields:
                yield from self._parts(part)
            elif type(part) is list:
                for at in range(0, len(part), SLICE):
                    yield name + self._encode(part[at : at + SLICE])
            else:
                yield name + self._encode(part)

    def _writer(self, kind: type) -> Callable[[Any], Plain]:
        names = self._fields[kind]
        name = kind.__name__
        if not names:
            return lambda _: [name]
        values_of = attrgetter(*names) if len(names) > 1 else lambda one: (getattr(one, names[0]),)
        hidden = [index for index, field in enumerate(names, 1) if field in self._opaque]
        if not hidden:
            return lambda one: [name, *values_of(one)]

        def write(one: object) -> Plain:
            written = [name, *values_of(one)]
            for index in hidden:
                value = written[index]
                written[index] = list(value) if isinstance(value, dict) else value is not None
            return written

        return write

    def _plain(self, value: object) -> Plain:
        """What JSON does not know."""
        writer = self._writers.get(type(value))
        if writer is not None:
            return writer(value)
        if isinstance(value, bytes):
            return value.hex()
        assert isinstance(value, frozenset), f"a journal cannot have a {type(value).__name__}"
        return sorted(value)

    # --- reading ----------------------------------------------------------------------------------------------------

    def event(self, plain: Plain) -> Any:
        """The event that was written so. Raises ValueError."""
        try:
            return self._object(self._events[plain[0]], plain)
        except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
            raise ValueError(f"this is not an event: {error!r}") from error

    def _object(self, kind: type, plain: Plain) -> Any:
        readers = self._readers.get(kind)
        if readers is None:
            readers = self._readers[kind] = self._readers_of(kind)
        values = [value if reader is None else reader(value) for reader, value in zip(readers, plain[1:], strict=True)]
        return kind(*values)

    def _readers_of(self, kind: type) -> tuple[Reader | None, ...]:
        hints = get_type_hints(kind)
        return tuple(
            (lambda is_there: is_there or None) if name in self._opaque else self._reader(hints[name])
            for name in self._fields[kind]
        )

    def _reader(self, hint: Any) -> Reader | None:
        """How a field with this annotation is read; None: it is what JSON gives."""
        hint = _bare(hint)
        if hint is bytes:
            return bytes.fromhex
        if hint in self._fields:
            return lambda plain: self._object(hint, plain)
        origin = get_origin(hint)
        if origin in (tuple, frozenset):
            item = self._reader(get_args(hint)[0])
            return origin if item is None else lambda plain: origin(map(item, plain))
        if origin in (Union, types.UnionType):
            (one,) = (arg for arg in get_args(hint) if arg is not type(None))
            inner = self._reader(one)
            return None if inner is None else lambda plain: None if plain is None else inner(plain)
        if isinstance(hint, type) and issubclass(hint, tuple):
            readers = [self._reader(one) for one in get_type_hints(hint).values()]
            return lambda plain: hint(
                *(one if reader is None else reader(one) for reader, one in zip(readers, plain, strict=True))
            )
        return hint if isinstance(hint, type) and issubclass(hint, Enum) else None


def _bare(hint: Any) -> Any:
    """The type behind a `NewType`."""
    while hasattr(hint, "__supertype__"):
        hint = hint.__supertype__
    return hint
