"""The classes of events and effects, for whoever writes them down: journals."""

from typing import Final, get_args

from broker.dispatch.messages import Effects, Event, Notice, Reply, Send
from broker.dispatch.model import OperationPolicy
from broker.dispatch.rows import Writes

EVENTS: Final[tuple[type, ...]] = get_args(Event)
OTHERS: Final[tuple[type, ...]] = (
    *(OperationPolicy, Effects, Writes),
    *get_args(Reply),
    *get_args(Send),
    *get_args(Notice),
)
"""What events and effects are made of."""
OPAQUE: Final = frozenset({"body", "checkpoints", "payloads", "results"})
"""Fields with bytes of customers: a dispatcher hands them on and never looks inside."""
