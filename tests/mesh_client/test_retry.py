from __future__ import annotations

from random import Random

import pytest

from mesh_client import UnavailableError
from mesh_client.retry import Retry


async def test_retry_raises_the_error_when_the_broker_wants_more_time_than_there_is() -> None:
    failure = UnavailableError("away", retry_after_s=60.0)
    with pytest.raises(UnavailableError) as caught:
        await Retry(30.0, Random(1)).wait(failure)
    assert caught.value is failure


async def test_retry_has_its_whole_time_again_when_there_was_progress() -> None:
    retry = Retry(0.0, Random(1))
    assert retry.remaining_s == 0.0
    retry = Retry(50.0, Random(1))
    spent = retry.remaining_s
    retry.restart()
    assert spent <= retry.remaining_s <= 50.0


async def test_retry_waits_at_least_as_long_as_the_broker_says() -> None:
    retry = Retry(30.0, Random(1))
    before = retry.remaining_s
    await retry.wait(UnavailableError("away", retry_after_s=0.15))
    assert before - retry.remaining_s >= 0.14
