"""What a native class lacks to be taken for the class with slots, or the dataclass, that it was written as.

The copy's modules call it below each class; it is interpreted. `same`, `hashed` and `shown`
are what `dataclass` writes; nothing that runs several times a job calls them.
"""

from collections.abc import Callable, Mapping
from dataclasses import field, make_dataclass
from operator import attrgetter
from typing import Any, Final

from compiled.modules import BASES

_WAITING: Final[dict[type, tuple[str, ...]]] = {}
_VALUES: Final[dict[type, Callable[[Any], object]]] = {}
_SHOWN: Final[dict[type, tuple[str, ...]]] = {}


def shaped(
    kind: type,
    annotations: dict[str, str],
    defaults: Mapping[str, object],
    factories: Mapping[str, Callable[[], object]],
    hidden: tuple[str, ...],
) -> None:
    """The class has these fields, in order: `fields`, `replace`, `asdict` and `get_type_hints` know them, and
    `__slots__` names them.
    """
    names = tuple(annotations)
    made: list[tuple[str, type, Any]] = []
    for name in names:
        if name in factories:
            made.append((name, object, field(default_factory=factories[name])))
        elif name in defaults:
            made.append((name, object, field(default=defaults[name])))
        else:
            made.append((name, object, field()))
    twin: Any = make_dataclass(kind.__name__, made)
    told: Any = kind
    told.__dataclass_fields__ = twin.__dataclass_fields__
    told.__annotations__ = annotations
    slotted(kind, names)
    _VALUES[kind] = attrgetter(*names) if names else _nothing
    _SHOWN[kind] = tuple(name for name in names if name not in hidden)


def slotted(kind: type, names: tuple[str, ...], *, is_derived: bool = False) -> None:
    """The class was written with these slots. Of classes that others derive from it is said by the last of these:
    mypyc derives nothing from a class with slots.
    """
    if kind.__name__ in BASES and not is_derived:
        _WAITING[kind] = names
        return
    for one in kind.__mro__[1:]:
        if one in _WAITING and kind.__name__ == BASES[one.__name__]:
            slotted(one, _WAITING.pop(one), is_derived=True)
    told: Any = kind
    told.__slots__ = names


def same(one: object, other: object) -> bool:
    """`==` of a dataclass."""
    values = _VALUES[type(one)]
    return type(one) is type(other) and values(one) == values(other)


def hashed(one: object) -> int:
    """`hash` of a frozen dataclass."""
    return hash(_VALUES[type(one)](one))


def shown(one: object) -> str:
    """`repr` of a dataclass."""
    fields = ", ".join(f"{name}={getattr(one, name)!r}" for name in _SHOWN[type(one)])
    return f"{type(one).__name__}({fields})"


def _nothing(_: object) -> object:
    return ()
