"""How long to try again, and how long to wait in between: full jitter, from 0.1 s, doubling to 2 s."""

import asyncio
from random import Random
from time import monotonic
from typing import Final

from mesh_client.errors import MeshClientError

DELAY_FIRST_S: Final = 0.1
DELAY_MAX_S: Final = 2.0


class Retry:
    """The tries of one request. `generator` gives the jitter; all clients that lost a broker come back spread out."""

    def __init__(self, retry_for_s: float, generator: Random) -> None:
        self._retry_for_s = retry_for_s
        self._generator = generator
        self.restart()

    def restart(self) -> None:
        """Begin again: there was progress, so an old failure says nothing about the next."""
        self.extend()
        self._delay_max_s = DELAY_FIRST_S

    def extend(self) -> None:
        """Begin the time anew, because nothing waited for an answer until now; the pace stays."""
        self._ends_s = monotonic() + self._retry_for_s

    @property
    def remaining_s(self) -> float:
        """Time left until the deadline, never negative."""
        return max(0.0, self._ends_s - monotonic())

    async def wait(self, error: MeshClientError) -> None:
        """Wait before the next try. Raises `error` when there is no time for one."""
        delay_s = max(self._generator.uniform(0.0, self._delay_max_s), error.retry_after_s or 0.0)
        self._delay_max_s = min(2 * self._delay_max_s, DELAY_MAX_S)
        if delay_s >= self.remaining_s:
            raise error
        await asyncio.sleep(delay_s)
