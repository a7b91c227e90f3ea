"""Bounds what streams have under way in the engine: those of submissions together, that of an agent by itself."""

import asyncio


class Room:
    """Jobs or reports, and the bytes of peers in them, that may be under way; who comes first gets room first."""

    def __init__(self, jobs_max: int, bytes_max: int) -> None:
        self._jobs_max = jobs_max
        self._bytes_max = bytes_max
        self._jobs = 0
        self._bytes = 0
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    async def enter(self, jobs: int, size: int) -> None:
        """Wait until so many fit. More than there can ever be fit when nothing else is under way."""
        async with self._turn:
            while self._jobs and (self._jobs + jobs > self._jobs_max or self._bytes + size > self._bytes_max):
                self._freed.clear()
                await self._freed.wait()
            self._jobs += jobs
            self._bytes += size

    def leave(self, jobs: int, size: int) -> None:
        """They are under way no longer."""
        self._jobs -= jobs
        self._bytes -= size
        self._freed.set()
