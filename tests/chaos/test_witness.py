from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import witness
from tests.chaos.witness import Witness
from tests.e2e.course import until
from tests.e2e.processes import Mesh


async def test_witness_says_that_nobody_is_served_when_no_broker_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness, "SERVED_S", 0.1)
    one = Witness(Mesh(tmp_path))

    async def have_all_failed() -> bool:
        return {text.partition(":")[0] for text in one.failures} == {"group", "api", "mesh"}

    async with one.watching():
        await until(have_all_failed, "each of its calls has failed")

    assert not one.call_ms
    assert not one.dial_ms
