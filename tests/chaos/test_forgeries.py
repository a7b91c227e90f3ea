from __future__ import annotations

from tests.broker.rpc.http2 import HEADERS, PREFACE, SETTINGS, frame
from tests.chaos.forgeries import kinds_of, without_pings
from tests.chaos.frames import DATA, PING

SETTING = frame(SETTINGS, 0, 0)
CALL = frame(HEADERS, 4, 1, b"call")
WORD = frame(DATA, 0, 1, b"word")


def test_replay_leaves_out_pings_and_keeps_all_else_in_its_order() -> None:
    recorded = PREFACE + SETTING + CALL + frame(PING, 0, 0, bytes(8)) + WORD + frame(PING, 1, 0, bytes(8)) + WORD[:11]

    assert without_pings(recorded) == PREFACE + SETTING + CALL + WORD + WORD[:11]
    assert without_pings(PREFACE + CALL + PREFACE + WORD) == PREFACE + CALL


def test_replay_was_answered_by_a_service_only_if_data_came_back() -> None:
    assert DATA not in kinds_of(SETTING + frame(HEADERS, 5, 1, b"refused"))
    assert DATA in kinds_of(SETTING + CALL + WORD)
