"""The page in a real browser: everything is drawn, nothing is fetched, nothing sticks out."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from simulator.document import document
from simulator.report.gallery import charts_of
from simulator.report.page import DocumentError, page_of
from tests.simulator.test_answer import FAULT, asked

BYTES_MAX = 3_000_000
FIGURE = {"value": 1.5, "half_width": 0.2, "n": 4}
MET = {"objective": "orders.latency.p99 < 2 s", "figure": "orders.latency.p99", "bound": 2.0, "margin": 0.25}
MET |= {**FIGURE, "verdict": "met"}
SWEEP: dict[str, Any] = {
    "kind": "sweep",
    "scenario": "sizing",
    "seed": 7,
    "axes": ["groups.erp.agents.count", "groups.erp.policy"],
    "asked": 3,
    "partial": False,
    "exit_code": 3,
    "points": [
        {
            "changes": {"groups.erp.agents.count": count, "groups.erp.policy": "random"},
            "replications": 4,
            "partial": False,
            "unstable": "UNSTABLE: backlog grows 2 jobs/s" if count == 1 else None,
            "figures": {}
            if count == 1
            else {"orders.latency.p99": FIGURE, "cost.per-hour": {**FIGURE, "value": count}},
            "objectives": [] if count == 1 else [MET],
        }
        for count in (1, 2, 3)
    ],
}
COMPARE: dict[str, Any] = {
    "kind": "compare",
    "first": "steady",
    "second": "faster",
    "verdict": "faster differs from steady.",
    "exit_code": 0,
    "figures": {
        "orders.latency.p99": {
            "first": 2.0,
            "second": 1.5,
            "difference": -0.5,
            "half_width": 0.1,
            "n": 4,
            "share": -0.25,
            "clear": True,
        }
    },
    "days": {"orders.latency.p99": [-0.4, -0.6, -0.5, -0.5]},
    "objectives": ["orders.latency.p99 < 2 s"],
}
SOLVE: dict[str, Any] = {
    "scenario": "sizing",
    "group": "erp",
    "agents": 18,
    "exit_code": 0,
    "evaluated": [
        {"n": 15, "p99_s": None, "half_width": None, "met": False, "unstable": True},
        {"n": 18, "p99_s": 1.8, "half_width": 0.05, "met": True, "unstable": False},
    ],
}
EMULATE: dict[str, Any] = {
    "figures": {
        "orders.throughput": {"real": 200.0, "real_n": 3, "simulated": 201.0, "error": 0.005, "bar": 0.01, "met": True},
        "orders.latency.p99": {"real": 0.2, "real_n": 3, "simulated": 0.1, "error": -0.5, "bar": 0.15, "met": False},
    },
    "calibrated_on": ["one"],
    "evaluated_on": ["another"],
}
VERIFY: dict[str, Any] = {
    "passed": 1,
    "failed": 0,
    "seed": 1,
    "cases": [
        {
            "id": "Q01",
            "figure": "wait_mean",
            "truth": 4.0,
            "simulated": 3.99,
            "half_width": 0.01,
            "bound": 0.08,
            "pass": True,
        }
    ],
}


@pytest.fixture(scope="module")
def answer() -> dict[str, Any]:
    found = asked(
        2, faults=[FAULT], objectives=("orders.latency.p99 < 9 s", "lost == 0"), cost={"agent-hour": "0.21 EUR"}
    )
    return document(found)


@pytest.fixture(scope="module")
def text(answer: dict[str, Any]) -> str:
    return page_of([answer, SWEEP, COMPARE, SOLVE, EMULATE, VERIFY])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        yield found
        found.close()


Open = Callable[..., tuple[Page, list[str]]]


@pytest.fixture
def opened(browser: Browser, text: str, tmp_path: Path) -> Iterator[Open]:
    """Opens the page, offline; the page, and what it complained of or asked for."""
    path = tmp_path / "page.html"
    path.write_text(text)
    contexts = []

    def open_page(width: int, scheme: Any = "light") -> tuple[Page, list[str]]:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        contexts.append(context)
        page, complaints = context.new_page(), []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url) if request.url != path.as_uri() else None)
        page.goto(path.as_uri())
        page.wait_for_selector("body[data-ready=yes]", timeout=60_000)
        return page, complaints

    yield open_page
    for context in contexts:
        context.close()


def test_answer_has_every_picture_that_it_has_data_for(answer: dict[str, Any]) -> None:
    names = [chart.name for chart in charts_of(answer)]
    assert names == ["latency", "backlog", "capacity", "failover", "ccdf", "shares", "theory"]
    bare = answer | {"shares": {}, "theory": [], "distributions": {}}
    assert [chart.name for chart in charts_of(bare)] == ["latency", "backlog", "capacity", "failover"]
    assert [chart.name for chart in charts_of(SWEEP)] == ["curve-orders.latency.p99", "cost"]


def test_page_is_one_file_that_is_small_enough(text: str) -> None:
    assert len(text.encode()) < BYTES_MAX
    assert "src=" not in text.split("<script", 1)[0]
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\'' in text


@pytest.mark.slow
@pytest.mark.system("chromium")
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")], ids=["desktop", "phone"])
def test_every_picture_is_drawn_and_nothing_is_fetched(opened: Open, width: int, scheme: str) -> None:
    page, complaints = opened(width, scheme)
    assert complaints == []
    wanted, drawn = page.locator(".chart").count(), page.locator(".chart[data-drawn=yes]").count()
    assert wanted == drawn == 13
    for place in page.locator(".chart svg").all():
        box = place.bounding_box()
        assert box is not None
        assert 250 <= box["width"] <= width
        assert place.locator("path, line, rect").count() > 3
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
@pytest.mark.system("chromium")
def test_page_fits_paper_and_a_window_that_changes(opened: Open) -> None:
    page, complaints = opened(1280, "dark")
    page.set_viewport_size({"width": 420, "height": 800})
    page.wait_for_function("document.querySelector('.chart svg').getBoundingClientRect().width < 400")
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 720, "height": 1000})
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.scrollWidth") <= 720
    assert page.pdf(format="A4").startswith(b"%PDF")
    assert complaints == []


@pytest.mark.slow
@pytest.mark.system("chromium")
def test_text_of_a_scenario_is_text_on_the_page(answer: dict[str, Any], browser: Browser, tmp_path: Path) -> None:
    evil = "</script><script>document.title='taken'</script><!--"
    changed = json.loads(json.dumps(answer))
    changed["scenario"]["name"] = evil
    changed["faults"][0]["name"] = evil
    path = tmp_path / "page.html"
    path.write_text(page_of([changed]))
    page = browser.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-ready=yes]", timeout=60_000)
    assert page.title() == evil
    assert page.locator("h1").inner_text() == evil
    assert page.locator(".chart[data-drawn=yes]").count() == 7
    page.close()


def test_unstable_answer_has_a_page(answer: dict[str, Any]) -> None:
    bare = answer | {"figures": {}, "phases": [], "objectives": [], "theory": [], "exit_code": 3}
    text = page_of([bare | {"verdict": "UNSTABLE: backlog grows 4.1 jobs/s"}])
    assert "UNSTABLE: backlog grows 4.1 jobs/s" in text
    assert "Figures, whole and by phase" not in text


@pytest.mark.parametrize("broken", [{}, {"kind": "run"}, {"kind": "nothing"}], ids=["empty", "cut", "other"])
def test_document_that_is_no_answer_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(DocumentError, match="not what a command of mesh-sim prints"):
        page_of([broken])
