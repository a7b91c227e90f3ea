"""What passes on agent streams, counted where it is written and read: one addition a frame, never one a job."""

from collections import Counter
from typing import Final

from broker.dispatch import reasons

NOT_LATEST: Final = "not_latest"
"""A report that an attempt runs which is not the job's latest, or whose job is over."""
REPORT_REASONS: Final = (reasons.OUTCOME_FINAL, reasons.OUTCOME_SUPERSEDED, reasons.OUTCOME_FOREIGN, NOT_LATEST)
"""Why a report does not count: its job is final or unknown; a later attempt exists; it is another agent's; or that."""


class Traffic:
    """The streams of one group's agents. Use from one event loop only."""

    __slots__ = ("received", "refused", "sent")

    def __init__(self) -> None:
        self.received = 0
        self.sent = 0
        self.refused: Counter[str] = Counter(dict.fromkeys(REPORT_REASONS, 0))
