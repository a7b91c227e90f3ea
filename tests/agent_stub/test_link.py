from __future__ import annotations

import io

import pytest

from agent_stub.link import BrokenLinkError, Message, Unpacker, pack, read_one

MESSAGES = [
    Message("order", {"attempt": 1, "text": "ä"}, (b"payload", b"")),
    Message("cancel", {}),
    Message("outcome", {"status": 1}, (bytes(range(256)),)),
]
STREAM = b"".join(pack(one.kind, one.facts, *one.pieces) for one in MESSAGES)


@pytest.mark.parametrize("size", [1, 2, 7, 64, len(STREAM)])
def test_messages_arrive_whole_however_they_are_cut(size: int) -> None:
    unpacker = Unpacker()
    parts = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
    assert [message for part in parts for message in unpacker.feed(part)] == MESSAGES


@pytest.mark.parametrize(
    "crooked",
    [
        b"\xff" * 8,
        (5).to_bytes(4, "big") + b"nojsn",
        (2).to_bytes(4, "big") + b"[]",
        (3).to_bytes(4, "big") + b"123",
        (22).to_bytes(4, "big") + b'["x",{},[999999999999]]'[:22],
    ],
)
def test_what_is_no_message_is_refused(crooked: bytes) -> None:
    with pytest.raises(BrokenLinkError):
        list(Unpacker().feed(crooked))


def test_message_that_would_not_fit_into_memory_is_refused() -> None:
    head = b'["x", {}, [9999999999]]'
    with pytest.raises(BrokenLinkError, match="bytes"):
        list(Unpacker().feed(len(head).to_bytes(4, "big") + head))


def test_one_message_is_read_from_a_stream_and_a_part_of_one_is_not() -> None:
    one = pack("order", {}, b"x")
    assert read_one(io.BytesIO(one)) == Message("order", {}, (b"x",))
    with pytest.raises(BrokenLinkError, match="cut off"):
        read_one(io.BytesIO(one[:-1]))
