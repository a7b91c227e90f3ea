from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pydantic import BaseModel

from broker import settings
from tests.meta import reference
from tests.meta.check import ROOT


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return reference.pages(ROOT)


def test_reference_is_what_it_is_generated_from() -> None:
    assert reference.drift(ROOT) == [], "run `python -m tests.meta.reference --write`"


def test_drift_names_pages_that_are_missing_changed_or_left_over(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    reference.write(tmp_path)
    assert reference.drift(tmp_path) == []
    folder = tmp_path / reference.FOLDER
    (folder / "cli.md").unlink()
    (folder / "settings.md").write_text("something else")
    (folder / "old.md").write_text("of an earlier version")
    errors = tmp_path / reference.ERRORS
    errors.write_text(errors.read_text().replace("| `NOT_FOUND` |", "| `GONE` |"))
    stale = [f"{reference.FOLDER}/{name}" for name in ("cli.md", "old.md", "settings.md")]
    assert reference.drift(tmp_path) == [reference.ERRORS, *stale]
    reference.write(tmp_path)
    assert reference.drift(tmp_path) == []
    assert not (folder / "old.md").exists()


def test_page_of_refusals_keeps_its_words() -> None:
    page = (ROOT / reference.ERRORS).read_text()
    broken = page.replace("| `NOT_FOUND` |", "| `GONE` |")
    assert broken != page
    assert reference.refusals(broken) == page


def test_every_setting_has_a_meaning() -> None:
    meanings = reference.written_meanings()
    models = [one for one in vars(settings).values() if isinstance(one, type) and issubclass(one, settings.Section)]
    assert len(models) >= 5
    without = [
        f"{model.__name__}.{name}"
        for model in models
        for name, field in model.model_fields.items()
        if not _is_section(field.annotation) and not reference.meaning_of(model.__name__, name, meanings)
    ]
    assert without == []


def _is_section(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("cli.md", ["mesh jobs submit", "mesh agents drain", "mesh config show", "--wait-timeout", "[env: MESH_API]"]),
        ("settings.md", ["`[dispatch]`", "`lease_s`", "`[operations.NAME]`", "`FULL`, `NORMAL`"]),
        ("protocol.md", ["service JobService", "service AgentService", "stream SubmitStreamRequest", "map of string"]),
        ("client-errors.md", ["`JobFailedError`", "`UnavailableError`"]),
    ],
)
def test_page_names_what_people_look_for(page: str, words: list[str], pages: dict[str, str]) -> None:
    text = pages[f"{reference.FOLDER}/{page}"]
    assert [word for word in words if word not in text] == []


def test_every_rpc_of_the_contract_says_what_it_does(pages: dict[str, str]) -> None:
    rows = [line for line in pages[f"{reference.FOLDER}/protocol.md"].splitlines() if line.startswith("| `")]
    assert len(rows) >= 20
    assert [row for row in rows if row.endswith("|  |")] == []
