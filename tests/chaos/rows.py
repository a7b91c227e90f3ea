"""All rows of the matrix, in the order of the table."""

from __future__ import annotations

from typing import Final

from tests.chaos import agents, broker, corruption, disk, herd, limits, network, peers, power
from tests.chaos.row import Row

ROWS: Final[tuple[Row, ...]] = (
    *agents.ROWS,
    *network.ROWS,
    *broker.ROWS,
    *disk.ROWS,
    *power.ROWS,
    *corruption.ROWS,
    *limits.ROWS,
    *peers.ROWS,
    *herd.ROWS,
)
BY_ID: Final = {row.id: row for row in ROWS}
