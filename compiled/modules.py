"""What is compiled: what runs several times a job. All else of the packages is copied as it is."""

from typing import Final

DISPATCH: Final = (
    *("batch", "deadlines", "dispatcher", "lane", "ledger", "liveness", "matching", "messages", "model", "placement"),
    *("placing", "projection", "queue", "reports", "rows", "table", "transitions"),
)
SESSION: Final = ("attempts", "messages", "outbox", "session")
SIMULATOR: Final = (
    "agent_frames",
    "agents",
    "clock",
    "driver",
    "gauges",
    "levels",
    "network",
    "recorder",
    "workload",
    "world",
)

MODULES: Final = (
    *(f"broker/dispatch/{name}.py" for name in DISPATCH),
    *(f"agent_stub/session/{name}.py" for name in SESSION),
    *(f"simulator/{name}.py" for name in SIMULATOR),
)
"""Their files, from the root of the tree."""

DERIVED: Final = frozenset({"Batcher", "Dispatcher", "Workload", "World"})
"""Classes of these modules that others derive from, which are not compiled."""

BASES: Final = {"Placement": "Sampled", "SimAgent": "SessionAgent"}
"""Classes with slots that compiled classes derive from, and the last one that does."""
