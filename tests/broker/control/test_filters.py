from __future__ import annotations

import ipaddress
import json
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.control.filters import Condition, Order, address_key, conditions_of, select, version_key
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


@pytest.mark.req("R07")
@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("B", ["b"]),
        ('"x=1" AND name != b', ["c"]),
        ("name = c AND y", ["c"]),
        ("nowhere", []),
        ("b AND c", []),
    ],
)
def test_value_alone_is_searched_for_in_several_fields(text: str, names: list[str]) -> None:
    searched = (lambda row: row.name, lambda row: " ".join(row.labels))
    assert [row.name for row in select(ROWS, text, FIELDS, searched)] == names
    with pytest.raises(MalformedError):
        select(ROWS, text, FIELDS)


@pytest.mark.req("R08")
@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ["a", "b", "c", ""]),
        ("name", ["a", "b", "c", ""]),
        ("name desc", ["c", "b", "a", ""]),
        ("number", ["", "b", "c", "a"]),
        ("number desc, name", ["c", "b", "", "a"]),
    ],
)
def test_rows_are_ordered_with_empty_values_last(text: str, names: list[str]) -> None:
    assert [row.name for row in Order(text, ORDERS, "name").sort(ROWS)] == names


@pytest.mark.req("R08")
def test_ties_are_ordered_by_name_in_both_directions() -> None:
    rows = [Row("b", 1), Row("a", 1), Row("c", 0)]
    assert [row.name for row in Order("number", ORDERS, "name").sort(rows)] == ["c", "a", "b"]
    assert [row.name for row in Order("number desc", ORDERS, "name").sort(rows)] == ["a", "b", "c"]


@pytest.mark.parametrize("text", ["colour", "name down", "name,, ,colour"])
def test_order_that_is_wrong_is_refused(text: str) -> None:
    with pytest.raises(MalformedError, match="cannot order by"):
        Order(text, ORDERS, "name")


NUMBERED = st.builds(Row, st.text(min_size=1, max_size=3), st.none() | st.integers(0, 3))


@pytest.mark.req("R08")
@given(
    st.lists(NUMBERED, unique_by=lambda row: row.name),
    st.sampled_from(["", "number", "number desc", "number desc, name desc", "name desc"]),
)
def test_rows_after_the_place_of_a_row_are_those_that_follow_it(rows: list[Row], text: str) -> None:
    order = Order(text, ORDERS, "name")
    found = order.sort(rows)
    for index, row in enumerate(found):
        place = json.loads(json.dumps(order.place(row)))
        assert [other for other in found if order.is_after(other, place)] == found[index + 1 :]


@pytest.mark.parametrize("place", [[], [1], ["a", 1, "b"], [1, "a"], [{}, "a"]])
def test_place_of_another_order_is_a_type_error(place: list[object]) -> None:
    order = Order("name", ORDERS, "name")
    with pytest.raises(TypeError):
        order.is_after(Row("a"), place)


@pytest.mark.req("R08")
def test_versions_are_compared_by_their_numbers() -> None:
    wanted = ["0.9", "9.2", "9.2.1", "9.10", "10.0rc1", "10.0-rc2", "10.0", "10.0.1"]
    assert sorted(wanted[4:] + wanted[:4], key=lambda version: version_key(version) or []) == wanted
    assert version_key("") is None


@pytest.mark.req("R08")
def test_addresses_are_compared_by_their_numbers() -> None:
    wanted = ["10.0.0.9", "10.0.0.10", "10.0.0.10:443", "10.0.0.10:1000", "::1", "[::1]:80", "fe80::2", "nonsense"]
    assert sorted(wanted[4:] + wanted[:4], key=lambda address: address_key(address) or []) == wanted
    assert address_key("") is None


@given(st.ip_addresses(v=4), st.ip_addresses(v=4))
def test_addresses_have_the_order_of_addresses(one: ipaddress.IPv4Address, other: ipaddress.IPv4Address) -> None:
    keys = address_key(str(one)), address_key(str(other))
    assert keys[0] is not None
    assert keys[1] is not None
    assert (keys[0] < keys[1]) == (one < other)
