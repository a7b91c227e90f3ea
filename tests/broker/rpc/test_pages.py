from __future__ import annotations

import base64

import pytest

from broker.control.filters import Order
from broker.errors import MalformedError
from broker.rpc.pages import decoded, encoded, page_of

ROWS = list(range(120))
ORDER = Order[int]("", {"number": lambda row: row}, "number")


def test_pages_together_are_the_list() -> None:
    found: list[int] = []
    token = ""
    while True:
        page, token = page_of(ROWS, ORDER, 7, token, "parent", "filter")
        found += page
        if not token:
            break
    assert found == ROWS


def test_page_has_fifty_rows_when_nobody_asks_for_another_number() -> None:
    page, token = page_of(ROWS, ORDER, 0, "")
    assert (len(page), bool(token)) == (50, True)


def test_last_page_has_no_token() -> None:
    assert page_of(ROWS, ORDER, 120, "") == (ROWS, "")


@pytest.mark.req("R08")
def test_page_goes_on_after_the_last_row_whatever_comes_and_goes() -> None:
    page, token = page_of(ROWS, ORDER, 7, "")
    assert page == ROWS[:7]
    later = [-2, -1, *ROWS[3:6], *ROWS[7:]]
    assert page_of(later, ORDER, 7, token)[0] == ROWS[7:14]


@pytest.mark.parametrize("token", ["x", "W1tbW1tb", encoded({"1": 1}, "q")])
def test_place_that_this_list_did_not_give_is_refused(token: str) -> None:
    for text in (token, base64.urlsafe_b64encode(b"[" * 6_000).decode()):
        with pytest.raises(MalformedError):
            page_of(ROWS, ORDER, 7, text, "q")
    _, other = page_of(["a", "b"], Order[str]("", {"name": lambda row: row}, "name"), 1, "", "q")
    with pytest.raises(MalformedError):
        page_of(ROWS, ORDER, 7, other, "q")


def test_place_comes_back_out_of_its_token() -> None:
    place = {"at": 2**62, "key": 2**43 + 1}
    assert decoded(encoded(place, "q"), ("key", "at"), "q") == place


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "é",
        "////",
        encoded({"1": 1}, "other"),
        encoded({"1": -1}, "q"),
        encoded({"1": 2**63}, "q"),
        encoded({"1": True}, "q"),
        encoded({"g": 1}, "q"),
        encoded({"1": 1, "2": 2}, "q"),
        encoded({}, "q"),
        encoded({"1": (1 << 63) - 1}, "q"),  # a store could not look for the one after it
    ],
)
def test_token_that_this_list_did_not_give_is_refused(token: str) -> None:
    with pytest.raises(MalformedError) as caught:
        decoded(token, ("1",), "q")
    assert (caught.value.reason, caught.value.details["field"]) == ("MALFORMED_PAGE_TOKEN", "page_token")
