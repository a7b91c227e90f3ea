"""A network namespace for agents, and the bad weather between it and the broker: `tests.chaos.relay`, held by a hand.

    async with Namespace(folder, seed=7) as far:
        await course.start_agent("a1", slots=4, prefix=far.prefix)
        await far.weather(Weather(delay_ms=200, jitter_ms=150, loss=0.05))
        await far.cut(TO_AGENT)     # what is sent is gone, and nobody is told
        await far.heal()
        await far.reset()           # the kernel of one side ends its connections: RST

Needs root, `ip`, `ss`, `nsenter` and /dev/net/tun. Raises RowError if it cannot be made.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from mesh_client.loopback import Process, ProcessError
from tests.chaos.relay import DIRECTIONS, PACKET_BYTES_MAX, TO_AGENT, TO_BROKER, Counts, Weather
from tests.chaos.row import RowError

NEEDS: Final = ("root", "ip", "ss", "nsenter", "tun")
ANSWER_S: Final = 10.0
CLEAR: Final = Weather()


class Namespace:
    """A namespace with a wire to this one. `folder` is where its socket lies; `seed` decides what is lost and late."""

    def __init__(self, folder: Path, *, seed: int) -> None:
        self._path = folder / "relay.sock"
        self._weather: dict[str, Weather] = dict.fromkeys(DIRECTIONS, CLEAR)
        self._process = Process("relay", ["-m", "tests.chaos.relay", "--seed", f"{seed}", "--control", str(self._path)])
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.address = ""
        """Where packets of this namespace come from."""

    async def __aenter__(self) -> Self:
        await self._process.start()
        try:
            self.address = (await self._process.said("relay.ready")).split()[-1]
        except BaseException as error:
            self._control.close()
            await self._process.kill()
            if isinstance(error, ProcessError):
                raise RowError(f"no network namespace: {error}") from error
            raise
        self._control.bind("")  # a name of its own, for the answers
        self._control.connect(str(self._path))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._control.close()
        await self._process.kill()
        self._path.unlink(missing_ok=True)

    @property
    def prefix(self) -> tuple[str, ...]:
        """The words before a command that is to run in the namespace."""
        return ("nsenter", f"--net=/proc/{self._process.pid}/ns/net")

    async def weather(self, weather: Weather, *directions: str) -> None:
        """How it is from now on, in these directions (none: both)."""
        await self._set(dict.fromkeys(directions or DIRECTIONS, weather))

    async def cut(self, *directions: str) -> None:
        """Lose every packet in these directions (none: both). Nobody is told: no end, no reset."""
        await self._set({name: replace(self._weather[name], is_cut=True) for name in directions or DIRECTIONS})

    async def heal(self) -> None:
        """Carry everything again, at once. Connections that were cut go on if both ends still have them."""
        await self._set(dict.fromkeys(DIRECTIONS, CLEAR))

    async def counts(self) -> Mapping[str, Counts]:
        """What the wires have done until now."""
        return await self._set({})

    async def reset(self, side: str = TO_AGENT) -> int:
        """End connections in one kernel, which says so with RST to the other end: how many it ended.

        TO_AGENT: the broker's kernel forgets them, and the agent hears it. TO_BROKER: the other way round.
        """
        where: tuple[str, ...] = () if side == TO_AGENT else self.prefix
        other_end = self.address if side == TO_AGENT else "127.0.0.1"
        command = (*where, "ss", "-K", "-H", "-t", "-n", "state", "established", "dst", other_end)
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
        return len(said.splitlines())

    async def _set(self, weather: Mapping[str, Weather]) -> Mapping[str, Counts]:
        self._weather.update(weather)
        wish = json.dumps({name: asdict(one) for name, one in weather.items()}).encode()
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(ANSWER_S):
            await loop.sock_sendall(self._control, wish)
            answer = json.loads(await loop.sock_recv(self._control, PACKET_BYTES_MAX))
        return {name: Counts(**fields) for name, fields in answer.items()}


__all__ = ["CLEAR", "NEEDS", "TO_AGENT", "TO_BROKER", "Counts", "Namespace", "Weather"]
