from __future__ import annotations

import pytest

from mesh_client import MeshTimeoutError, UnavailableError
from tests.chaos.limits import refused_of

AWAY = UnavailableError("nobody there").reason.lower()
SLOW = MeshTimeoutError("nothing came").reason.lower()


@pytest.mark.parametrize(
    ("answers", "refused"),
    [
        ([], ""),
        (["", ""], ""),
        (["", SLOW, AWAY], ""),
        ([SLOW, "mailbox_full", "unknown"], "mailbox_full"),
        (["malformed_message"], "malformed_message"),
    ],
    ids=["nothing", "accepted", "slow-and-away", "refused", "blamed"],
)
def test_submitter_is_refused_by_the_word_of_the_broker_and_not_by_its_silence(
    answers: list[str], refused: str
) -> None:
    assert refused_of(answers) == refused
