"""Who says little: what each source (a connection, a session) has said in this second and the one before.

One look at what waits does not tell: the end of a bulk load's batch is as short as anybody's.
"""

from collections import Counter
from collections.abc import Hashable
from typing import Final

LITTLE: Final = 1_000
"""Jobs or reports: whoever has had no more in this window and the one before says little."""
WINDOW_S: Final = 1.0


class Tally:
    """Counts by source. The windows follow the times that `note` is given, of one clock that never goes back."""

    def __init__(self) -> None:
        self._said = Counter[Hashable]()
        self._said_before = Counter[Hashable]()
        self._modest: set[Hashable] = set()
        self._since_s = 0.0

    def note(self, source: Hashable, size: int, now_s: float) -> bool:
        """Add what the source says now; whether it says little, with that."""
        if now_s - self._since_s >= WINDOW_S:
            is_next = now_s - self._since_s < 2 * WINDOW_S
            self._said_before = self._said if is_next else Counter()
            self._said = Counter()
            self._modest &= self._said_before.keys()
            self._since_s = now_s
        self._said[source] += size
        is_modest = self.says_little(source)
        if is_modest:
            self._modest.add(source)
        else:
            self._modest.discard(source)
        return is_modest

    def says_little(self, source: Hashable) -> bool:
        """As of the last note, whoever it was of."""
        return self._said[source] + self._said_before[source] <= LITTLE

    def is_anybody_modest(self) -> bool:
        """Whether somebody is about who says something, and little."""
        return bool(self._modest)
