"""How long jobs waited for their acceptance and for their first run, during the faults of a run and after them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from tests.e2e.stored import percentile

Span = tuple[float, float]
"""From when until when, in seconds on the wall clock."""
SHARE: Final = 0.99
SECOND_MS: Final = 1_000.0


def latency_p99_ms(
    submitted_s: Mapping[str, float], reached_s: Mapping[str, Mapping[str, float]], faults: Sequence[Span]
) -> dict[str, float]:
    """Figures such as `accepted_p99_during_ms`: for each of `reached_s`, when every job (by its id) came to that.

    *During*: it waited for it while a fault lasted. *After*: it was submitted when one had ended and none lasted, and
    met none. What a job never reached has no figure, and so has what no job reached, or a run without faults.
    """
    figures = {}
    for name, at_s in reached_s.items():
        waits = [(since_s, at_s[key]) for key, since_s in submitted_s.items() if key in at_s]
        for when, waits_ms in (("during", _during(waits, faults)), ("after", _after(waits, faults))):
            if found := list(waits_ms):
                figures[f"{name}_p99_{when}_ms"] = percentile(found, SHARE)
    return figures


def _during(waits: Sequence[Span], faults: Sequence[Span]) -> Iterator[float]:
    return (_ms(wait) for wait in waits if _meets(wait, faults))


def _after(waits: Sequence[Span], faults: Sequence[Span]) -> Iterator[float]:
    first_s = min((until_s for _, until_s in faults), default=float("inf"))
    return (_ms(wait) for wait in waits if wait[0] >= first_s and not _meets(wait, faults))


def _meets(wait: Span, faults: Sequence[Span]) -> bool:
    return any(wait[0] < until_s and since_s < wait[1] for since_s, until_s in faults)


def _ms(wait: Span) -> float:
    return (wait[1] - wait[0]) * SECOND_MS
