"""The committed dashboards: up to date, and built as all of them must be."""

from __future__ import annotations

import json
import re
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from broker import series
from grafana import generate
from tests.grafana.panels import ALLOWED_EMPTY, dashboards, panels_of, queries

GRID = 24
BOARDS = dashboards()
EMPTY_MAX = 5
SUFFIXES = ("_bucket", "_sum", "_count")
board = pytest.mark.parametrize("board", [pytest.param(content, id=name) for name, content in BOARDS.items()])


def test_committed_dashboards_are_what_the_code_gives() -> None:
    assert generate.main(["--check"]) == 0


def test_check_names_every_file_that_is_stale(tmp_path: Path) -> None:
    (tmp_path / "fleet.json").write_text("{}\n")
    (tmp_path / "gone.json").write_text("{}\n")
    assert generate.stale(tmp_path) == ["fleet.json", "gone.json"]
    for name, text in generate.contents().items():
        (tmp_path / name).write_text(text)
    assert generate.stale(tmp_path) == ["gone.json"]


@board
def test_dashboard_survives_the_library_that_knows_its_form(board: Any) -> None:
    assert json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder)) == board


@board
def test_dashboard_has_a_fixed_address_and_can_be_pointed_at_any_prometheus_and_group(board: Any) -> None:
    assert re.fullmatch("mesh-[a-z]+", board["uid"])
    assert "jobmesh" in board["tags"]
    variables = {one["name"]: one for one in board["templating"]["list"]}
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    group = variables["group"]
    assert group["query"] == f"label_values({series.AGENTS.name}, group)"
    assert group["multi"]
    assert group["includeAll"]
    for part in (*panels_of(board), *board["annotations"]["list"], group):
        assert part["datasource"] == {"type": "prometheus", "uid": "$datasource"}


@board
def test_every_panel_says_what_it_shows_and_in_which_unit(board: Any) -> None:
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels_of(board):
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs), panel["title"]


@board
def test_panels_fill_the_page_and_do_not_cover_one_another(board: Any) -> None:
    cells = [
        (x, y)
        for panel in board["panels"]
        for x, y in product(
            range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"]),
            range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"]),
        )
    ]
    assert len(set(cells)) == len(cells)
    assert len(cells) == GRID * (max(y for _, y in cells) + 1)
    heights = [panel["gridPos"]["y"] for panel in board["panels"]]
    assert all(before <= after for before, after in pairwise(heights))


@board
def test_rates_fit_the_scrape_interval_whatever_it_is(board: Any) -> None:
    expressions = [target["expr"] for panel in panels_of(board) for target in panel["targets"]]
    windows = [window for text in expressions for window in re.findall(r"\[([^\]]*)\]", text)]
    assert set(windows) == {"$__rate_interval"}
    for text in expressions:
        assert text.count("rate(") + text.count("increase(") == text.count("[$__rate_interval]"), text


def test_panels_show_every_series_that_there_is_and_no_other() -> None:
    shown = {name for query in queries() for name in re.findall(r"\b(?:mesh|process)_[a-z_]+", query.expression)}
    plain = {name.removesuffix(suffix) for name in shown for suffix in SUFFIXES if name.endswith(suffix)} | shown
    known = {one.name for one in (*series.ALL, *series.PROCESS)}
    assert {name for name in shown if not _is_known(name, known)} == set()
    not_shown = {series.SNAPSHOT_SECONDS.name, series.ATTEMPTS_ASSIGNED.name}  # in numbers that are shown already
    # Nearly no broker keeps a journal; whoever switches it on looks for these.
    not_shown |= {series.JOURNAL_RECORDING.name, series.JOURNAL_BYTES.name, series.JOURNAL_LEFT_OUT.name}
    assert {one.name for one in series.ALL} - plain == not_shown


def _is_known(name: str, known: set[str]) -> bool:
    return name in known or any(name.removesuffix(suffix) in known for suffix in SUFFIXES)


def test_few_panels_may_be_empty_and_each_has_a_reason() -> None:
    assert len(ALLOWED_EMPTY) <= EMPTY_MAX
    assert set(ALLOWED_EMPTY) <= {query.name for query in queries()}
    assert all(len(reason) > 10 for reason in ALLOWED_EMPTY.values())
