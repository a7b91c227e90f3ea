from __future__ import annotations

import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import pytest
from hyperframe.frame import Frame as ParsedFrame

from tests.broker.rpc.http2 import ACK, HEADERS, PREFACE, SETTINGS, frame
from tests.chaos import frames
from tests.chaos.frames import GOAWAY, TAME, WILD, Frame, Mutation, Wire, mutants

NUMBER = 400


def honest(seed: int) -> list[Frame]:
    generator = random.Random(seed)
    return [frames._honest(generator, 1 + 2 * at) for at in range(NUMBER)]


def test_attacker_sends_the_same_frames_of_the_same_seed() -> None:
    def wire(seed: int) -> bytes:
        return b"".join(one.wire for one in islice(mutants(random.Random(seed)), NUMBER))

    assert wire(1) == wire(1)
    assert wire(1) != wire(2)


def test_frames_are_those_of_http2_before_they_are_changed() -> None:
    for one in honest(3):
        parsed, length = ParsedFrame.parse_frame_header(memoryview(one.wire[:9]))
        parsed.parse_body(memoryview(one.wire[9:]))
        assert (parsed.type, parsed.stream_id, length) == (one.kind, one.stream, len(one.content))


@pytest.mark.parametrize("mutation", [*TAME, *WILD], ids=lambda mutation: mutation.__name__.strip("_"))
def test_mutation_changes_frames_and_lies_about_their_length_only_where_it_says_so(mutation: Mutation) -> None:
    generator = random.Random(5)
    pairs = [(one, mutation(generator, one)) for one in honest(4)]

    assert any(before != after for before, after in pairs)
    has_lied = any(after.length != len(after.content) for _, after in pairs)
    assert has_lied is (mutation.__name__ == "_any_length")


def test_connections_are_tame_and_wild_so_that_much_is_read_and_much_is_refused() -> None:
    kinds: Counter[int] = Counter()
    for seed in range(40):
        kinds.update(one.kind for one in islice(mutants(random.Random(seed)), NUMBER))
    assert kinds[HEADERS] > NUMBER
    assert len(kinds) > 200  # types that nobody knows


@contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """A server of one connection: its SETTINGS, then these bytes, and the end."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            accepted, _ = server.accept()
            with accepted:
                accepted.recv(len(PREFACE) + 9, socket.MSG_WAITALL)
                accepted.sendall(frame(SETTINGS, 0, 0) + b"".join(answers))
                accepted.shutdown(socket.SHUT_WR)
                while accepted.recv(1 << 12):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def test_wire_knows_what_was_acknowledged_and_refused_until_it_is_closed() -> None:
    acknowledged = frame(SETTINGS, ACK, 0)
    with answering(acknowledged, acknowledged, frame(GOAWAY, 0, 0, bytes(8))) as address, Wire(address) as wire:
        while wire.hear(5.0):
            pass
        assert wire.acknowledged == 1  # the first is of the SETTINGS that a connection begins with
        assert wire.refused == {"goaways": 1}


def test_wire_stops_waiting_when_it_was_acknowledged_and_says_when_the_server_has_gone() -> None:
    acknowledged = frame(SETTINGS, ACK, 0)
    with answering(acknowledged, acknowledged) as address, Wire(address) as wire:
        while wire.hear(5.0):
            pass
        assert wire.heard(1)
        assert not wire.heard(2)


FIRST = frame(SETTINGS, ACK, 0)


@pytest.mark.parametrize(
    ("attack", "answers", "worked"),
    [
        (frames.pings, [FIRST], 0),
        (frames.pings, [FIRST, frame(SETTINGS, ACK, 0)], frames.BLOCK_FRAMES),
        (frames.settings, [FIRST, frame(SETTINGS, ACK, 0)], 1),
        (frames.continuation, [FIRST], 0),
        (frames.continuation, [FIRST, frame(GOAWAY, 0, 0, bytes(8))], 1),
    ],
    ids=["unread", "read", "read-in-part", "unread-block", "refused-block"],
)
def test_flood_counts_as_worked_only_what_the_server_has_read(
    attack: frames.Attack, answers: list[bytes], worked: int
) -> None:
    with answering(*answers) as address:
        counts = attack(address, 1, frames.BLOCK_FRAMES)

    assert (counts["frames"], counts["worked"]) == (frames.BLOCK_FRAMES, worked)
