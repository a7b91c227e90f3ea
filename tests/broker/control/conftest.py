from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.broker.control.running import Control, running


@pytest_asyncio.fixture
async def control(tmp_path: Path) -> AsyncIterator[Control]:
    """With the defaults of a first start."""
    async with running(tmp_path) as parts:
        await parts.resources.create_defaults()
        yield parts
