"""A bar for people who wait: on a terminal only, with rich where it is installed, else in one line of text."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final, TextIO

from mesh_client.mapping import Progress, Tell

EVERY_S: Final = 0.1
"""Time between two drawings of the line of text."""


@contextmanager
def bar(label: str, total: int | None) -> Iterator[Tell]:
    """What a map tells how far it is; drawn on standard error, or nowhere if that is no terminal."""
    stream = sys.stderr
    if not stream.isatty():
        yield lambda _: None
        return
    try:
        import rich.progress
    except ImportError:
        line = Line(label, stream)
        try:
            yield line.tell
        finally:
            line.end()
        return
    from rich.console import Console

    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("{task.fields[failed]}"),
        rich.progress.TimeElapsedColumn(),
    )
    with rich.progress.Progress(*columns, console=Console(file=stream)) as drawn:
        task = drawn.add_task(label, total=total, failed="")
        yield lambda now: drawn.update(task, completed=now.done, failed=f"{now.failed} failed" if now.failed else "")


class Line:
    """One line of text that is written over and over."""

    def __init__(self, label: str, stream: TextIO) -> None:
        self._label = label
        self._stream = stream
        self._drawn_s = 0.0
        self._latest: Progress | None = None

    def tell(self, now: Progress) -> None:
        """Draw it, unless it was just drawn."""
        self._latest = now
        if monotonic() - self._drawn_s >= EVERY_S:
            self._draw()

    def end(self) -> None:
        """Draw the last state and go to the next line."""
        if self._latest is not None:
            self._draw()
            self._stream.write("\n")
            self._stream.flush()

    def _draw(self) -> None:
        assert self._latest is not None
        now = self._latest
        self._drawn_s = monotonic()
        of = f" of {now.total}" if now.total is not None else ""
        failed = f", {now.failed} failed" if now.failed else ""
        self._stream.write(f"\r{self._label}: {now.done}{of}{failed}")
        self._stream.flush()
