"""Every scenario of the library can be used, its first minutes lose nothing, and its answer is in the docs."""

import re

import pytest

from simulator.cli import app
from simulator.incidents import KINDS
from simulator.library import names_and_titles, text_of
from simulator.objectives import parse as parse_objective
from simulator.scenario import Scenario
from simulator.scenario_file import parse
from simulator.world import simulate
from tests.meta.check import ROOT

DOCS = (ROOT / "docs/simulation.md").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", list(names_and_titles()))
def test_scenario_of_the_library_plays_and_has_all_that_its_objectives_name(name: str) -> None:
    whole = parse(text_of(name), name)
    run_s = max([30.0, *(fault.at - whole.horizon.settle + 20 for fault in whole.faults if hasattr(fault, "at"))])
    tree = whole.resolved()
    tree["horizon"] |= {"run": f"{run_s!r} s"}
    for work in tree["work"].values():  # a tenth of the work is enough to see whether it plays
        if "poisson" in work["arrivals"]:
            work["arrivals"] = {"poisson": "4/s"}
    seen = simulate(Scenario.model_validate(tree), seed=1)
    assert seen.figures["lost"] == 0
    assert seen.jobs > 0
    for objective in whole.objectives:
        assert parse_objective(objective).figure in seen.figures


def test_every_scenario_says_its_question_in_its_first_line() -> None:
    for name, title in names_and_titles().items():
        assert len(title) > 20, name


def test_docs_have_the_answer_of_every_scenario() -> None:
    answers = dict(re.findall(r"^\| `([a-z-]+)` \| [^|]+ \| ([^|]+) \|$", DOCS, re.MULTILINE))
    assert set(names_and_titles()) <= set(answers)
    assert min(map(len, answers.values())) > 20


def test_docs_name_every_fault_and_no_command_that_is_not_there() -> None:
    assert {kind for kind in KINDS if f"`{kind}`" not in DOCS} == {"random"}  # which stands there with its parts
    named = set(re.findall(r"mesh-sim ([a-z]+)", DOCS))
    assert "run" in named
    assert named <= set(app)


def test_scenario_of_the_docs_can_be_used() -> None:
    (text,) = re.findall(r"^```yaml\n(.+?)^```$", DOCS, re.MULTILINE | re.DOTALL)
    assert parse(text, "docs/simulation.md").groups["erp"].count == 18
