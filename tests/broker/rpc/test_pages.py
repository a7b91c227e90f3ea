from __future__ import annotations

import pytest

from broker.dispatch.model import GroupNo, JobKey
from broker.errors import MalformedError
from broker.rpc.pages import encoded, keys_of, keys_token, page_of

ROWS = list(range(120))


def test_pages_together_are_the_list() -> None:
    found: list[int] = []
    token = ""
    while True:
        page, token = page_of(ROWS, 7, token, "parent", "filter")
        found += page
        if not token:
            break
    assert found == ROWS


def test_page_has_fifty_rows_when_nobody_asks_for_another_number() -> None:
    page, token = page_of(ROWS, 0, "")
    assert (len(page), bool(token)) == (50, True)


def test_last_page_has_no_token() -> None:
    assert page_of(ROWS, 120, "") == (ROWS, "")


def test_keys_come_back_out_of_their_token() -> None:
    before = {GroupNo(1): JobKey(2**40), GroupNo(7): JobKey(2**43 + 1)}
    assert keys_of(keys_token(before, "q"), "q") == before
    assert keys_of("", "q") == {}


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
    ],
)
def test_token_that_this_list_did_not_give_is_refused(token: str) -> None:
    with pytest.raises(MalformedError) as caught:
        keys_of(token, "q")
    assert (caught.value.reason, caught.value.details["field"]) == ("MALFORMED_PAGE_TOKEN", "page_token")
