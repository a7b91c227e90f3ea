"""What a real broker tells of itself: its metrics page, and what the kernel knows of its process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from broker import series
from broker.series import Series
from tests.e2e.counters import COMPARED, GROUP, Page, Samples
from tests.e2e.processes import Mesh
from tests.e2e.stored import SECOND_US

ANSWER_S: Final = 60.0
AT_REST_S: Final = 0.5
WITHIN_S: Final = 30.0


async def told(mesh: Mesh, one: Series) -> Mapping[tuple[str, ...], float]:
    """The samples of a series, by its labels but the group."""
    return (await samples(mesh)).get(one.name, {})


async def samples(mesh: Mesh, group: str = "") -> Samples:
    """The whole page: of the broker, and of one group (`organisation/group`) or, without a name, of any."""
    text = await asyncio.to_thread(_page, mesh.addresses.metrics)
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not group or sample.labels.get("group", group) == group:
                labels = tuple(value for name, value in sample.labels.items() if name != "group")
                found.setdefault(sample.name, {})[labels] = sample.value
    return found


async def page_of(mesh: Mesh) -> Page | None:
    """The page once it stands still: the last commit is counted a moment after it can be seen. None without a broker.

    What does not answer, or never stands still, is given as it was last: then it does not agree with the store.
    """
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + WITHIN_S
    before: Samples = {}
    while mesh.broker.is_running:
        try:
            found = await samples(mesh, GROUP)
        except (OSError, HTTPException):
            found = {}
        shown = {name: of_name for name, of_name in found.items() if name in COMPARED}
        if (shown == before and _is_true_now(found)) or loop.time() > ends_s:
            return Page(int(mesh.broker.started_s * SECOND_US), shown)
        before = shown
        await asyncio.sleep(AT_REST_S)
    return None


def _is_true_now(found: Samples) -> bool:
    """Whether the figures are of this moment, and no commit waits for the store."""
    age_s, stalled = (
        found.get(one.name, {}).get((), 1.0) for one in (series.SNAPSHOT_AGE_SECONDS, series.STORE_STALLED)
    )
    return age_s < AT_REST_S / 2 and not stalled


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
