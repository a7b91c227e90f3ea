"""What commands write: tables and sheets for people, JSON or YAML for programs, words on standard error.

Which of the two programs get is chosen once for a command line (`choose`); whoever writes does not care. Colours are
for terminals, and for none where NO_COLOR is set. Text that comes from jobs and agents is shown without its control
characters: it must not steer a terminal.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from rich.table import Table

    from mesh_client import JobResult

Form = Literal["json", "yaml"]

_form: ContextVar[Form] = ContextVar("form", default="json")
UNLIMITED_COLUMNS: Final = 10_000
STYLES: Final[Mapping[str, str]] = {
    "succeeded": "green",
    "active": "green",
    "running": "cyan",
    "assigned": "cyan",
    "held": "yellow",
    "no_response": "yellow",
    "draining": "yellow",
    "paused": "yellow",
    "failed": "red",
    "dead": "red",
    "cancelled": "dim",
    "disabled": "dim",
    "stopped": "dim",
    "inactive": "dim",
}
"""Words of a column `STATE` or `STATUS` that stand out on a terminal."""


def say(words: str) -> None:
    """Tell the person, not the program that reads the output."""
    print(words, file=sys.stderr)


def choose(form: Form) -> None:
    """Write documents in this form from now on."""
    _form.set(form)


def write_json(value: object, *, indent: int | None = 2) -> None:
    """One document for programs, in the form that was chosen; `indent` None: one of a stream, in JSON on one line."""
    is_one_of_many = indent is None
    if _form.get() == "yaml":
        print(f"---\n{_yaml(plain(value))}" if is_one_of_many else _yaml(plain(value)), end="", flush=is_one_of_many)
    else:
        print(json.dumps(plain(value), indent=indent), flush=is_one_of_many)


def write_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table in columns. On a terminal long cells wrap, except in the first column, which one copies."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, head in enumerate(heads):
        is_whole = number == 0 or head in ("STATE", "STATUS")
        table.add_column(head, no_wrap=is_whole, min_width=len(head), overflow="fold")  # heads are never broken
    for row in rows:
        table.add_row(*(Text(shown(cell), style=_style(head, cell)) for head, cell in zip(heads, row, strict=True)))
    _print(table)


def write_sheet(facts: Mapping[str, str]) -> None:
    """One thing, a line a fact; facts that are empty are left out."""
    from rich.table import Table
    from rich.text import Text

    sheet = Table(box=None, show_header=False, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    sheet.add_column(no_wrap=True, style="bold")
    sheet.add_column(overflow="fold")
    for name, fact in facts.items():
        if fact:
            sheet.add_row(name, Text(shown(fact, "\n\t"), style=_style(name.upper(), fact)))
    _print(sheet)


def write_list(
    noun: str, found: Sequence[object], heads: Sequence[str], rows: Sequence[Sequence[str]], *, is_json: bool
) -> None:
    """All that was found, for people or for programs; `noun` is what there is none of."""
    if is_json:
        write_json(found)
    elif rows:
        write_table(heads, rows)
    else:
        say(f"No {noun}.")


def write_one(view: object, facts: Mapping[str, str], *, is_json: bool) -> None:
    """One thing, for people as a sheet of facts, or for programs as it is."""
    if is_json:
        write_json(view)
    else:
        write_sheet(facts)


@contextmanager
def telling() -> Iterator[Callable[[str], None]]:
    """Tell the person how far something is: on a terminal in one line that changes, else in a line for each change."""
    if not sys.stderr.isatty():
        yield say
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status("") as status:
        yield lambda words: status.update(Text(shown(words)))


def shown(text: str, kept: str = "") -> str:
    r"""The text with control characters written out (`\x1b`), except those in `kept`."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in kept else ascii(letter)[1:-1] for letter in text)


def plain(value: object) -> object:
    """A value as documents have it: times in RFC 3339, bytes in base64, results decoded as far as their type says."""
    from mesh_client import JobResult

    if isinstance(value, JobResult):
        return _plain_result(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def local_time(at: datetime | None) -> str:
    """A point in time on the clock of whoever reads, "" for none."""
    return at.astimezone().isoformat(" ", "seconds") if at is not None else ""


def age(since: datetime | None, now: datetime | None = None) -> str:
    """How long ago, in its largest unit: `42s`, `3m`, `5h`, `12d`; "" for never."""
    if since is None:
        return ""
    return duration(float(max(0, int(((now or datetime.now(UTC)) - since).total_seconds()))))


def duration(seconds: float) -> str:
    """A duration in its largest unit: `7ms`, `1.5s`, `42s`, `3m`, `5h`, `12d`."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    if 0 < seconds < 1:
        return f"{round(seconds * 1_000)}ms"
    return f"{int(seconds)}s" if seconds >= 10 or seconds.is_integer() else f"{seconds:.1f}s"


def pairs(labels: Mapping[str, str]) -> str:
    """`a=1, b=2`."""
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))


def joined(names: Iterable[str]) -> str:
    """`a, b`."""
    return ", ".join(names)


def result_text(result: JobResult) -> str:
    """A result for people: text as it is, other bytes as their number."""
    try:
        return result.content.decode()
    except UnicodeDecodeError:
        return f"{len(result.content)} bytes of {result.content_type or 'unknown type'}; -o json shows them"


def _yaml(value: object) -> str:
    """YAML 1.2 in blocks, keys in the order of the value."""
    from io import StringIO

    from ruamel.yaml import YAML

    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.representer.sort_base_mapping_type_on_output = False
    writer.width = UNLIMITED_COLUMNS
    written = StringIO()
    writer.dump(value, written)
    # A document that is one value is closed by a mark that nobody needs.
    return written.getvalue().removesuffix("...\n")


def _plain_result(result: JobResult) -> dict[str, object]:
    known: dict[str, object] = {"content_type": result.content_type}
    try:
        if result.content_type.partition(";")[0].strip() == "application/json":
            return {**known, "json": result.json()}
        return {**known, "text": result.content.decode()}
    except ValueError:
        return {**known, "base64": plain(result.content)}


def _style(head: str, cell: str) -> str:
    return STYLES.get(cell, "") if head in ("STATE", "STATUS") else ""


def _print(table: Table) -> None:
    from rich.console import Console

    # What is piped is read by a program or a pager: nothing wraps there.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else UNLIMITED_COLUMNS)
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        print(line.rstrip())
