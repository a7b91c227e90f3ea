from __future__ import annotations

from typing import NamedTuple

import pytest

from broker.control.filters import Condition, conditions_of, once, ordered, select
from broker.errors import MalformedError


class Row(NamedTuple):
    name: str
    number: int | None = None
    labels: tuple[str, ...] = ()


ROWS = [Row("b", 2, ("x=1",)), Row("a", None), Row("c", 10, ("x=1", "y=2")), Row("", 1)]
FIELDS = {"name": lambda row: row.name, "labels": lambda row: row.labels}
ORDERS = {"name": lambda row: row.name, "number": lambda row: row.number}


def test_filter_is_taken_apart_with_positions() -> None:
    assert conditions_of(r'name = "a \"b\" c"  AND  state=x', ["name", "state"]) == [
        Condition("name", "=", 'a "b" c', 1),
        Condition("state", "=", "x", 26),
    ]
    assert conditions_of("  ", ["name"]) == []


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("colour = red", 1, "there is no field 'colour' here; fields: name, state"),
        ("name = a and state = b", 10, "expected AND, found 'and'"),
        ("name = a AND", 13, "expected `field = value`"),
        ("name", 5, "expected `field = value`"),
        ("name != a", 6, "expected =, found '!='"),
        ("name = =", 8, "expected a value"),
        ('name = "a', 7, "cannot be read from"),
        ("= = =", 1, "there is no field '='"),
    ],
)
def test_filter_that_cannot_be_read_is_refused_at_its_position(text: str, position: int, words: str) -> None:
    with pytest.raises(MalformedError) as caught:
        conditions_of(text, ["name", "state"])
    assert caught.value.details["position"] == str(position)
    assert words in caught.value.text


def test_field_given_twice_is_refused() -> None:
    text = "name = a AND name = b"
    with pytest.raises(MalformedError, match="position 14: name is given twice"):
        once(text, conditions_of(text, ["name"]))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ["b", "a", "c", ""]),
        ("name = a", ["a"]),
        ("name != a", ["b", "c", ""]),
        ("labels = x=1", None),
        ('labels = "x=1"', ["b", "c"]),
        ('labels != "x=1"', ["a", ""]),
        ("labels : y", ["c"]),
        ('labels : x AND name = "c"', ["c"]),
    ],
)
def test_rows_are_those_for_which_all_holds(text: str, names: list[str] | None) -> None:
    if names is None:
        with pytest.raises(MalformedError):
            select(ROWS, text, FIELDS)
    else:
        assert [row.name for row in select(ROWS, text, FIELDS)] == names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ["b", "a", "c", ""]),
        ("name", ["a", "b", "c", ""]),
        ("name desc", ["c", "b", "a", ""]),
        ("number", ["", "b", "c", "a"]),
        ("number desc, name", ["c", "b", "", "a"]),
    ],
)
def test_rows_are_ordered_with_empty_values_last(text: str, names: list[str]) -> None:
    assert [row.name for row in ordered(ROWS, text, ORDERS)] == names


def test_order_keeps_ties_as_they_were() -> None:
    rows = [Row("b", 1), Row("a", 1), Row("c", 0)]
    assert [row.name for row in ordered(rows, "number", ORDERS)] == ["c", "b", "a"]
    assert [row.name for row in ordered(rows, "number desc", ORDERS)] == ["b", "a", "c"]


@pytest.mark.parametrize("text", ["colour", "name down", "name,, ,colour"])
def test_order_that_is_wrong_is_refused(text: str) -> None:
    with pytest.raises(MalformedError, match="cannot order by"):
        ordered(ROWS, text, ORDERS)
