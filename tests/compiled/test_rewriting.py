"""What is compiled means what it meant: classes are rewritten so that nobody outside can tell, or refused."""

import dataclasses
import typing
from types import SimpleNamespace
from typing import Any

import pytest

from compiled.modules import MODULES
from compiled.rewriting import NotCompilableError, rewritten
from tests.meta.check import ROOT

SOURCE = '''
"""A module."""

from dataclasses import dataclass, field


@dataclass(slots=True, frozen=True)
class Place:
    """Where."""

    row: int
    seat: int = 2 + 1  # the third


@dataclass(slots=True)
class Visit:
    """Who was where."""

    name: str
    """As it is written."""
    places: list[Place] = field(default_factory=list)
    before: "Visit | None" = field(default=None, repr=False)

    @property
    def count(self) -> int:
        """How many places."""
        return len(self.places)


@dataclass(slots=True, eq=False)
class Seat:
    number: int


class Row:
    __slots__ = ("first", "last")
'''


def loaded(source: str) -> Any:
    """What a module of this source defines."""
    names: dict[str, Any] = {"__name__": __name__}
    exec(compile(source, "loaded.py", "exec"), names)  # noqa: S102 - our own text
    return SimpleNamespace(**names)


@pytest.fixture(params=["as it is written", "for the copy"])
def module(request: pytest.FixtureRequest) -> Any:
    return loaded(SOURCE if request.param == "as it is written" else rewritten(SOURCE, "loaded.py"))


def test_class_of_the_copy_is_made_and_compared_and_shown_as_the_dataclass_that_it_was(module: Any) -> None:
    place, visit = module.Place, module.Visit
    first = visit("ann", before=visit("bob"))

    assert (place(1), place(1, 3), hash(place(1))) == (place(1, 3), place(1, 3), hash((1, 3)))
    assert place(1) != place(2)
    assert place(1) != (1, 3)
    assert first != visit("ann")
    assert first.places is not visit("ann").places
    assert repr(visit("ann", [place(1)])) == "Visit(name='ann', places=[Place(row=1, seat=3)])"
    assert visit("ann", [place(1)]).count == 1
    assert module.Seat(1) != module.Seat(1)


def test_class_of_the_copy_is_known_to_what_knows_dataclasses_and_slots(module: Any) -> None:
    assert [one.name for one in dataclasses.fields(module.Visit)] == ["name", "places", "before"]
    assert typing.get_type_hints(module.Place) == {"row": int, "seat": int}
    assert dataclasses.fields(module.Place)[1].default == 3
    assert dataclasses.fields(module.Visit)[1].default_factory is list
    assert dataclasses.replace(module.Place(1), row=5) == module.Place(5)
    assert module.Place.__slots__ == ("row", "seat")
    assert module.Row.__slots__ == ("first", "last")


def test_copy_keeps_what_it_does_not_rewrite_line_by_line() -> None:
    source = '"""A module."""\n\nimport os  # kept\n\n\ndef here() -> str:\n    return os.curdir  # and this\n'

    assert rewritten(source, "x.py") == source


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("from itertools import chain\nx = chain(n for n in range(3))\n", "x.py:2: a generator expression"),
        ("@dataclass(order=True)\nclass A:\n    n: int\n", "of a kind"),
        ("@dataclass\nclass A(B):\n    n: int\n", "of a kind"),
        ("@dataclass\nclass A:\n    n: int = field(init=False)\n", "a field of a kind"),
        ("@dataclass\nclass A:\n    n: int\n    K = 3\n", "more than fields"),
        ("@dataclass\nclass A:\n    n: int\n    def __post_init__(self): ...\n", "what would be written"),
    ],
)
def test_what_would_mean_something_else_is_refused(source: str, why: str) -> None:
    with pytest.raises(NotCompilableError, match=why):
        rewritten(source, "x.py")


@pytest.mark.parametrize("name", MODULES)
def test_module_that_is_compiled_can_be_rewritten(name: str) -> None:
    compile(rewritten((ROOT / name).read_text("utf-8"), name), name, "exec")
