"""Which pictures an answer has, in the order in which they are shown."""

from collections.abc import Callable
from typing import Final

from simulator.report import contrasts, portraits
from simulator.report.charts import Chart, Document

_PORTRAITS: Final = (
    portraits.latency,
    portraits.backlog,
    portraits.capacity,
    portraits.waterfall,
    portraits.ccdf,
    portraits.heat,
    portraits.theory,
)


def charts_of(document: Document) -> list[Chart]:
    """All pictures that a document has data for."""
    drawn: dict[str, Callable[[], list[Chart | None]]] = {
        "run": lambda: [draw(document) for draw in _PORTRAITS],
        "compare": lambda: [contrasts.differences(document)],
        "sweep": lambda: [*contrasts.curves(document), contrasts.cost(document)],
        "solve": lambda: [contrasts.fleets(document)],
        "verify": lambda: [contrasts.truth(document)],
        "emulate": lambda: [contrasts.twin(document)],
    }
    return [chart for chart in drawn[kind_of(document)]() if chart is not None]


def kind_of(document: Document) -> str:
    """What a document is the answer of. Raises KeyError for what is none."""
    if "kind" in document:
        return str(document["kind"])
    for key, kind in (("cases", "verify"), ("evaluated", "solve"), ("calibrated_on", "emulate")):
        if key in document:
            return kind
    raise KeyError("kind")
