"""One HTML page of one or several answers, to open or to send: nothing in it is fetched, and nothing leaves it.

The page carries the drawing library in itself and forbids itself every request. Pictures are drawn when it is opened,
as wide as there is room; their colours follow the reader's light or dark setting, and paper.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from io import StringIO
from typing import Any, Final

from jinja2 import Environment, StrictUndefined
from ruamel.yaml import YAML

from broker.errors import ConfigError
from simulator.report.charts import Chart
from simulator.report.gallery import charts_of, kind_of
from simulator.report.tables import Table, facts_of, tables_of

TITLES: Final = {
    "run": "Simulation",
    "compare": "Comparison",
    "sweep": "Sweep",
    "solve": "Smallest fleet",
    "verify": "Truth table",
    "emulate": "Twin error",
}
_TONES: Final = {0: "met", 3: "missed"}


class DocumentError(ConfigError):
    """A file that holds no answer of `mesh-sim`."""

    reason = "NOT_AN_ANSWER"


def page_of(documents: Sequence[Mapping[str, Any]]) -> str:
    """The page. Sections are in the order of the documents; pictures without data are left out.

    Raises:
        DocumentError: one of them is not what a command of `mesh-sim` prints with `--json`.
    """
    try:
        sections = [_Section(document, charts_of(document)) for document in documents]
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise DocumentError(f"this is not what a command of mesh-sim prints with --json: {error!r}") from error
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("simulator.report") / "page.html.jinja").read_text("utf-8"))
    charts = {
        f"chart-{number}-{place}": chart.spec for number, one in enumerate(sections) for place, chart in one.charts
    }
    return template.render(
        title=" · ".join(dict.fromkeys(one.name for one in sections)),
        sections=sections,
        # Inside a script, no text of a scenario may look like the end of it.
        specs=json.dumps(charts, separators=(",", ":")).replace("<", "\\u003c"),
        library=_library().replace("</script", "<\\/script"),
    )


class _Section:
    """One answer on the page."""

    def __init__(self, document: Mapping[str, Any], charts: Sequence[Chart]) -> None:
        kind = kind_of(document)
        self.kind = TITLES[kind]
        self.name = str(_name_of(document))
        self.verdict = str(document.get("verdict") or _sentence(kind, document))
        self.tone = _tone(kind, document)
        self.facts = facts_of(document)
        self.tables: Sequence[Table] = tables_of(document)
        self.charts = list(enumerate(charts))
        self.assumptions: Sequence[str] = document.get("assumptions", ())
        self.footer = _footer(document)
        self.scenario = _yaml(document["scenario"]) if isinstance(document.get("scenario"), dict) else ""


def _tone(kind: str, document: Mapping[str, Any]) -> str:
    """Whether the verdict is good news."""
    if kind == "verify":
        return "missed" if document["failed"] else "met"
    if kind == "emulate":
        return "missed" if any(one["met"] is False for one in document["figures"].values()) else "met"
    return _TONES.get(int(document.get("exit_code", 4)), "unsure")


def _footer(document: Mapping[str, Any]) -> str:
    """What somebody needs to get the same answer again."""
    known = (("seed", "seed {}"), ("replications", "{} replications"), ("jobs", "{} jobs"), ("digest", "digest {}"))
    return ", ".join(text.format(document[key]) for key, text in known if document.get(key) is not None)


def _name_of(document: Mapping[str, Any]) -> object:
    scenario = document.get("scenario", "")
    if isinstance(scenario, dict):
        return scenario["name"]
    if "second" in document:
        return f"{document['second']} against {document['first']}"
    return scenario or TITLES[kind_of(document)]


def _sentence(kind: str, document: Mapping[str, Any]) -> str:
    """What an answer says that has no verdict of its own."""
    if kind == "solve":
        return f"{document['group']} needs {document['agents']} agents."
    if kind == "sweep":
        points = document["points"]
        met = sum(
            not point["unstable"] and all(one["verdict"] == "met" for one in point["objectives"]) for point in points
        )
        return f"{met} of {len(points)} points meet all objectives."
    if kind == "emulate":
        barred = [bool(one["met"]) for one in document["figures"].values() if one["met"] is not None]
        return f"{sum(barred)} of {len(barred)} figures of the simulation are as near to the real broker as asked."
    return f"{document['passed']} cases pass, {document['failed']} fail."


def _yaml(scenario: Mapping[str, Any]) -> str:
    yaml = YAML()
    yaml.default_flow_style = False
    stream = StringIO()
    yaml.dump(dict(scenario), stream)
    return stream.getvalue()


@cache
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that defines `vegaEmbed`, from the wheel of vl-convert."""
    import vl_convert

    code: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    # Comments of other people's licences name addresses; nothing here is to look like a request.
    return re.sub(r"^//# sourceMappingURL=.*$", "", code, flags=re.MULTILINE)
