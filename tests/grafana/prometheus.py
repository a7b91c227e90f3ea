"""A real Prometheus that reads one broker: its own process, configuration and data, gone when it is left.

async with Prometheus(tmp_path, "127.0.0.1:7403") as prometheus:
    await prometheus.until('mesh_sessions == 3')
"""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import time
from collections import deque
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from mesh_client.loopback import Addresses

SCRAPE_S = 0.25
RATE_S = 4 * SCRAPE_S
"""What Grafana makes of `$__rate_interval` for such a scrape interval."""
WAIT_S = 40.0
STOP_WAIT_S = 10.0
POLL_S = 0.1
READY = "Server is ready to receive web requests"
CONFIGURATION = """\
global: {{scrape_interval: {ms}ms, scrape_timeout: {ms}ms}}
scrape_configs:
  - job_name: mesh
    static_configs: [{{targets: ["{target}"]}}]
"""


class PrometheusError(Exception):
    """It did not start, or does not understand a query; the text is what it says."""


class Prometheus:
    """Reads `target` four times a second, from entering on."""

    def __init__(self, folder: Path, target: str) -> None:
        self._folder = folder
        self._target = target
        self._address = Addresses.free().metrics
        self._said: deque[str] = deque(maxlen=20)

    async def __aenter__(self) -> Self:
        configuration = self._folder / "prometheus.yml"
        configuration.write_text(CONFIGURATION.format(ms=round(SCRAPE_S * 1_000), target=self._target))
        program = shutil.which("prometheus")
        if program is None:
            raise PrometheusError("prometheus is not installed (make system)")
        self._process = await asyncio.create_subprocess_exec(
            program,
            f"--config.file={configuration}",
            f"--storage.tsdb.path={self._folder / 'prometheus'}",
            f"--web.listen-address={self._address}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self._ready = asyncio.Event()
        self._reader = asyncio.create_task(self._read(), name="read-prometheus")
        try:
            async with asyncio.timeout(WAIT_S):
                await self._ready.wait()
            self._check_runs()
        except BaseException:
            await self._stop()
            raise
        self.began_s = time.time()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def query(self, expression: str) -> list[float]:
        """The values of an instant query, those that are no numbers left out. Raises PrometheusError."""
        found = await self._ask("query", {"query": expression})
        return _numbers([sample["value"]] for sample in found)

    async def history(self, expression: str) -> list[float]:
        """The values since the start. Raises PrometheusError."""
        asked = {"query": expression, "start": self.began_s, "end": time.time(), "step": SCRAPE_S}
        return _numbers(sample["values"] for sample in await self._ask("query_range", asked))

    async def until(self, expression: str) -> None:
        """Return when the query gives something. Raises TimeoutError that names it."""
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    if await self.query(expression):
                        return
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise TimeoutError(f"Prometheus never saw {expression}") from None

    async def _ask(self, path: str, parameters: Mapping[str, object]) -> list[dict[str, Any]]:
        answer = await asyncio.to_thread(self._get, f"/api/v1/{path}?{urlencode(parameters)}")
        if answer["status"] != "success":
            raise PrometheusError(str(answer["error"]))
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def _get(self, path: str) -> Any:
        connection = HTTPConnection(self._address, timeout=WAIT_S)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    async def _read(self) -> None:
        assert self._process.stderr is not None
        try:
            async for raw in self._process.stderr:
                line = raw.decode(errors="replace").rstrip()
                self._said.append(line)
                if READY in line:
                    self._ready.set()
        finally:
            self._ready.set()  # or it has ended, and says why

    def _check_runs(self) -> None:
        if not any(READY in line for line in self._said):
            raise PrometheusError("prometheus did not start:\n" + "\n".join(self._said))

    async def _stop(self) -> None:
        if self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(STOP_WAIT_S):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        await self._reader


def _numbers(series: Any) -> list[float]:
    """The values of all samples but those that are not a number."""
    values = [float(text) for samples in series for _, text in samples]
    return [value for value in values if not math.isnan(value)]
