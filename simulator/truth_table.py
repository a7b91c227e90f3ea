"""The table of truths: cases whose answer mathematics knows, with how far a simulation may be from it.

`simulator/truth/queueing.json` is the project's; further files of the same form may be given, whose cases may also
carry their own `scenario` and `figures` (name in the table: name in the simulation). A file that cannot be used is
refused with its name, the line, what is wrong and the nearest right form.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from broker.errors import ConfigError
from simulator.scenario_file import ScenarioError, parse
from simulator.units import nearest

BYTES_MAX: Final = 4 << 20
Text = Annotated[str, Field(min_length=1, max_length=10_000)]


class TableError(ConfigError):
    """A table that cannot be used: one line `file:line: what is wrong` for each fault that was found."""

    reason = "BAD_TABLE"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Bound(_Part):
    """How far a simulated figure may be from the truth: a share of it, or an amount."""

    rel: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] | None = None
    abs: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.rel is None) == (self.abs is None):
            raise ValueError('give either `rel`, a share such as {"rel": 0.02}, or `abs`, such as {"abs": 0.005}')
        return self

    def of(self, truth: float) -> float:
        """The amount."""
        return self.abs if self.abs is not None else (self.rel or 0.0) * abs(truth)


class Case(_Part):
    """One case of the table. Figures without a bound are there to be read, not judged."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    name: Text
    setup: str
    truth: Annotated[dict[str, Any], Field(min_length=1)]
    bounds: dict[str, Bound]
    tolerance: str = ""
    how: str = ""
    note: str = ""
    scenario: dict[str, Any] | None = None
    figures: dict[str, str] = {}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        try:
            truth = dict(_flat(self.truth))
        except (TypeError, ValueError) as error:
            raise ValueError("every truth is a number, or a list or table of numbers") from error
        if wrong := [name for name, value in truth.items() if not isfinite(value)]:
            raise ValueError(f"truth `{wrong[0]}` is {truth[wrong[0]]}: a finite number is wanted")
        known = {*truth, *(name.partition("[")[0] for name in truth)}
        for what, names in (("bounds", self.bounds), ("figures", self.figures)):
            for name in names:
                if name not in known:
                    raise ValueError(f"{what}: there is no truth `{name}`; {nearest(name, known)}")
        if self.figures and self.scenario is None:
            raise ValueError("`figures` read a `scenario` of the case's own, and there is none")
        return self

    def judged(self) -> Iterator[tuple[str, float, Bound]]:
        """(figure, truth, bound); members of lists and tables are named `figure[0]`, `table.figure`."""
        for name, value in _flat(self.truth):
            bound = self.bounds.get(name) or self.bounds.get(name.partition("[")[0])
            if bound is not None:
                yield name, value, bound


class Table(_Part):
    """Cases, and which of them are the quick ones."""

    note: str = ""
    cases: Annotated[list[Case], Field(min_length=1)]
    quick: list[str] = []
    quick_note: str = ""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        ids = [case.id for case in self.cases]
        if twice := {id_ for id_ in ids if ids.count(id_) > 1}:
            raise ValueError(f"case {min(twice)} is there twice: every case has an id of its own")
        for id_ in self.quick:
            if id_ not in ids:
                raise ValueError(f"quick: there is no case `{id_}`; {nearest(id_, ids)}")
        return self


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield from ((f"{prefix}{name}[{place}]", _number(one)) for place, one in enumerate(value))
        else:
            yield f"{prefix}{name}", _number(value)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def read_table(path: Path | None = None) -> Table:
    """The project's table, or another file of the same form.

    Raises:
        TableError: the file cannot be read, is not a table, or a case of it cannot be meant.
    """
    name = str(path) if path is not None else "queueing.json"
    source = path if path is not None else files("simulator") / "truth" / "queueing.json"
    try:
        if path is not None and path.stat().st_size > BYTES_MAX:
            raise TableError(f"{name}: more than {BYTES_MAX} bytes; this is no table of cases")
        text = source.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TableError(f"{name}: cannot be read: {error}") from error
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 1
        what = error.msg if isinstance(error, json.JSONDecodeError) else "this is nested too deeply"
        raise TableError(f"{name}:{line}: not JSON: {what}") from error
    return _table_of(tree, text, name)


def _table_of(tree: object, text: str, name: str) -> Table:
    if not isinstance(tree, dict):
        raise TableError(f'{name}:1: not a table of cases: {{"cases": [{{"id": ..., "name": ..., "setup": ...}}]}}')
    try:
        table = Table.model_validate(tree)
    except ValidationError as error:
        raise TableError("\n".join(_line_of(found, tree, text, name) for found in error.errors())) from error
    for case in table.cases:
        if case.scenario is not None:
            try:
                parse(json.dumps(case.scenario), f"case {case.id}: scenario", (Path(name)).parent)
            except ScenarioError as error:
                line = _line_with(case.id, text)
                raise TableError("\n".join(f"{name}:{line}: {one}" for one in error.text.splitlines())) from error
    return table


def _line_of(found: Mapping[str, Any], tree: dict[str, Any], text: str, name: str) -> str:
    """One fault of a file in words: where it is, what is wrong, and what was probably meant."""
    steps = list(found["loc"])
    id_ = _id_at(tree, steps)
    where = [f"case {id_}", *map(str, steps[2:])] if id_ else [*map(str, steps)]
    what = found["msg"].removeprefix("Value error, ")
    if found["type"] == "extra_forbidden":
        kind = Table if len(steps) == 1 else Bound if "bounds" in steps else Case
        what = f"this key is not known; {nearest(str(steps[-1]), kind.model_fields)}"
    place = ".".join(where) or "not a table of cases"
    return f"{name}:{_line_with(id_, text) if id_ else 1}: {place}: {what}"


def _id_at(tree: dict[str, Any], steps: Iterable[object]) -> str:
    """The id of the case that a fault is in, if it has one."""
    match list(steps):
        case ["cases", int(number), *_]:
            case = tree["cases"][number]
            id_ = case.get("id") if isinstance(case, dict) else None
            return id_ if isinstance(id_, str) else ""
    return ""


def _line_with(id_: str, text: str) -> int:
    """The line in which a case says its id."""
    found = re.search(rf'"id"\s*:\s*{re.escape(json.dumps(id_))}', text)
    return text.count("\n", 0, found.start()) + 1 if found else 1
