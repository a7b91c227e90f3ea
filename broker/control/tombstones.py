"""When what was removed is forgotten for good: its history is past its time, and nothing of it is left to end.

Until then an agent that was removed is refused, and jobs of a removed group are found; afterwards nobody knows either.
"""

from typing import Final

from broker.control.directory import Directory
from broker.engine import Engine
from broker.store.base import Store

AGENTS_MAX: Final = 500
"""So many agents are forgotten at a time: each holds up the commits a little."""


class Tombstones:
    """What organisations, groups and agents that were removed leave behind."""

    def __init__(self, store: Store, engine: Engine, directory: Directory) -> None:
        self._store = store
        self._engine = engine
        self._directory = directory

    async def purge(self, before_us: int) -> int:
        """Forget what was removed before this time and that no kept job names; how many that are.

        Raises StoreBusyError, StoreFailedError.
        """
        removed = self._directory.removed_groups()
        idle = [row.group_no for row in removed if row.removed_us < before_us and self._engine.is_over(row.group_no)]
        gone = await self._store.purge(idle, before_us, AGENTS_MAX)
        for group in gone.groups:
            self._engine.forget(group)
        self._directory.forget(gone)
        return sum(map(len, gone))
