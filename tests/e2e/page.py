"""What a real broker tells of itself: its metrics page, and what the kernel knows of its process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from broker.series import Series
from tests.e2e.processes import Mesh

ANSWER_S: Final = 60.0


async def told(mesh: Mesh, one: Series) -> Mapping[tuple[str, ...], float]:
    """The samples of a series, by its labels but the group."""
    text = await asyncio.to_thread(_page, mesh.addresses.metrics)
    return {
        tuple(value for name, value in sample.labels.items() if name != "group"): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == one.name
    }


def rss_kib(pid: int) -> int:
    """The memory that a process has now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ProcessLookupError(f"process {pid} has no memory")


def descriptors(pid: int) -> int:
    """How many files, sockets and pipes a process has open now."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _page(address: str) -> str:
    connection = HTTPConnection(address, timeout=ANSWER_S)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()
