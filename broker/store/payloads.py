"""Payloads that will soon be sent, kept in memory: bounded by bytes, the one used longest ago goes first.

What is not here is on disk. The cache decides nothing and fetches nothing.
"""

from collections import OrderedDict
from typing import Final

from broker.dispatch.model import JobKey
from broker.store.base import Body

ENTRY_BYTES: Final = 256
"""What an entry costs besides its bytes, counted so that a million empty payloads are bounded too."""


class PayloadCache:
    """Bodies by job key, at most `bytes_max` in all, `ENTRY_BYTES` an entry included."""

    def __init__(self, bytes_max: int = 64 << 20) -> None:
        self._bytes_max = bytes_max
        self._bytes_used = 0
        self._bodies: OrderedDict[JobKey, Body] = OrderedDict()

    @property
    def bytes_used(self) -> int:
        """Bytes of all entries as they count against the bound."""
        return self._bytes_used

    def put(self, key: JobKey, body: Body) -> None:
        """Keep a body, in place of an earlier one; one that is larger than the whole bound is not kept."""
        self.drop(key)
        cost = _cost(body)
        if cost > self._bytes_max:
            return
        self._bodies[key] = body
        self._bytes_used += cost
        while self._bytes_used > self._bytes_max:
            self._bytes_used -= _cost(self._bodies.popitem(last=False)[1])

    def get(self, key: JobKey) -> Body | None:
        """The body, which now counts as just used, or None."""
        body = self._bodies.get(key)
        if body is not None:
            self._bodies.move_to_end(key)
        return body

    def drop(self, key: JobKey) -> None:
        """Forget the body of this job, if it is here."""
        body = self._bodies.pop(key, None)
        if body is not None:
            self._bytes_used -= _cost(body)


def _cost(body: Body) -> int:
    cost = ENTRY_BYTES + len(body.content) + len(body.content_type)
    return cost + sum(len(name) + len(value) for name, value in body.metadata) if body.metadata else cost
