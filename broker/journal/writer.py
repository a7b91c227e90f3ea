"""Writes a journal in a thread of its own: whoever has something to write never waits for it.

What is to be written waits in a bounded queue. When that is full the segment ends and what comes is left out, until the
writer asks for a new segment (`wants_segment`) and gets one, with a snapshot. A segment that has its part of the bytes
of the whole journal asks for the next one, and ends by itself when it has twice as many; the oldest segments are
removed. If the disk refuses, the segment ends too, and the next one is asked for a while later: a journal is never why
a broker stops. Written is what waited for at most `GATHER_S`; nothing is synced.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, NamedTuple

from broker.journal.segment import SUFFIX, frame, name_of, opening

EVENTS_MAX: Final = 32_768
"""Events that may wait."""
BYTES_MAX: Final = 64 << 20
"""What they carry: payloads are not written, but they are in memory until their event is."""
FRAME_EVENTS: Final = 1_024
FRAME_CHARACTERS: Final = 1 << 20
"""A frame ends with the line that brings it so far."""
GATHER_S: Final = 0.1
"""How long a few events wait for more of them."""
PARTS: Final = 8
RETRY_S: Final = 10.0
"""After a refusal of the disk the next segment is asked for so much later."""
STOP_S: Final = 5.0

STOPPED: Final = "stopped"
QUEUE_FULL: Final = "queue_full"
NEXT: Final = "next_segment"
TOO_LARGE: Final = "too_large"

Tell = Callable[[str, dict[str, object]], None]
"""Hears `began` and `ended` of segments, and `failed`, in the thread of the writer."""


class Entry(NamedTuple):
    """Something to write. `lines` are made in the thread of the writer; a `number` begins that segment."""

    lines: Iterable[str]
    events: int = 0
    size: int = 0
    number: int = 0
    ends: str = ""


class JournalWriter:
    """The journal in `folder`. Public methods are for one thread, that of the event loop."""

    def __init__(
        self, folder: Path, bytes_max: int, tell: Tell, *, events_max: int = EVENTS_MAX, retry_s: float = RETRY_S
    ) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._events_max = events_max
        self._retry_s = retry_s
        self._tell = tell
        self._wake = threading.Condition()
        self._queue: deque[Entry] = deque()
        self._events = 0
        self._size = 0
        self._is_open = False
        self._is_large = False
        self._is_closing = False
        self._not_before_s = 0.0
        self._number = 0
        self._segments: dict[int, int] = {}
        self._current = 0
        self._lines: list[str] = []
        self._characters = 0
        self._file: IO[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._refused = 0
        self._dropped = 0

    def start(self) -> None:
        """Make the folder, count what is there, begin to write. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            if path.stem.isdecimal():
                self._segments[int(path.stem)] = path.stat().st_size
        self._number = max(self._segments, default=0)
        self._thread.start()

    def close(self) -> None:
        """End the segment, and wait for what waits to be written, but not for a disk that hangs."""
        with self._wake:
            self._end(STOPPED)
            self._is_closing = True
            self._wake.notify()
        self._thread.join(STOP_S)

    @property
    def is_open(self) -> bool:
        """Whether what is added now is written."""
        return self._is_open

    @property
    def wants_segment(self) -> bool:
        """Whether `begin` should be called."""
        is_needed = self._is_large or not self._is_open
        return is_needed and self._events * 2 < self._events_max and time.monotonic() >= self._not_before_s

    @property
    def left_out(self) -> int:
        """Entries that were not written."""
        return self._refused + self._dropped

    @property
    def total_bytes(self) -> int:
        """Of all segments."""
        return sum(self._segments.copy().values())

    def begin(self, lines_of: Callable[[int], Iterable[str]]) -> None:
        """Begin the next segment with these lines; they get its number. What was open ends before it."""
        with self._wake:
            self._end(NEXT)
            self._number += 1
            self._is_open, self._is_large = True, False
            self._put(Entry(lines_of(self._number), number=self._number))

    def add(self, lines: Iterable[str], events: int, size: int) -> None:
        """Have these lines written, or left out if there is no segment or too much waits."""
        with self._wake:
            if not self._is_open:
                self._refused += 1
            elif self._queue and (self._events + events > self._events_max or self._size + size > BYTES_MAX):
                self._end(QUEUE_FULL)
                self._refused += 1
            else:
                self._put(Entry(lines, events, size))

    def _end(self, why: str) -> None:
        if self._is_open:
            self._is_open = False
            self._put(Entry((), ends=why))

    def _put(self, entry: Entry) -> None:
        before = self._events
        self._queue.append(entry)
        self._events += entry.events
        self._size += entry.size
        if len(self._queue) == 1 or before < FRAME_EVENTS <= self._events:
            self._wake.notify()

    # --- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while entries := self._take():
            try:
                for entry in entries:
                    self._work(entry)
                self._flush()
            except OSError as error:
                self._fail(error)

    def _take(self) -> list[Entry]:
        """What waits, up to a frame; nothing once the journal is closed and all is written."""
        with self._wake:
            while not self._queue and not self._is_closing:
                self._wake.wait()
            if self._events < FRAME_EVENTS and not self._is_closing:
                self._wake.wait(GATHER_S)
            taken: list[Entry] = []
            events = 0
            while self._queue and events < FRAME_EVENTS:
                taken.append(self._queue.popleft())
                events += taken[-1].events
                self._size -= taken[-1].size
            self._events -= events
            return taken

    def _work(self, entry: Entry) -> None:
        if entry.number:
            self._open(entry.number)
        if entry.ends:
            self._close(entry.ends)
            return
        for line in entry.lines if self._file is not None else ():
            self._lines.append(line)
            self._characters += len(line)
            time.sleep(0)  # who waits for the interpreter gets it now, and not when it has waited long enough
            if self._characters >= FRAME_CHARACTERS:
                self._flush()
        self._dropped += self._file is None

    def _open(self, number: int) -> None:
        self._current = number
        path = self._folder / name_of(number)
        path.touch(mode=0o600, exist_ok=False)
        self._file = path.open("wb")
        self._segments[number] = 0
        self._append(opening())
        self._tell("began", {"segment": number})

    def _close(self, why: str) -> None:
        if self._file is None:
            return
        self._lines.append(f'["end","{why}"]')
        self._write()
        self._drop()
        self._tell("ended", {"segment": self._current, "why": why})

    def _drop(self) -> None:
        file, self._file = self._file, None
        self._lines.clear()
        self._characters = 0
        if file is not None:
            file.close()

    def _flush(self) -> None:
        """Write the lines as a frame; ask for the next segment, or end this one, when it has grown enough."""
        if self._file is None or not self._lines:
            return
        self._write()
        size, part = self._segments[self._current], self._bytes_max // PARTS
        with self._wake:
            if self._current == self._number:  # else the next one waits already
                self._is_large = size >= part
                self._is_open = self._is_open and size < 2 * part
        if size >= 2 * part:
            self._close(TOO_LARGE)

    def _write(self) -> None:
        self._append(frame(self._lines))
        self._lines.clear()
        self._characters = 0

    def _append(self, written: bytes) -> None:
        """Write these bytes, and make room for them before."""
        total = sum(self._segments.values()) + len(written)
        for number in sorted(self._segments):
            if total <= self._bytes_max or number == self._current:
                break
            (self._folder / name_of(number)).unlink(missing_ok=True)
            total -= self._segments.pop(number)
        assert self._file is not None
        self._file.write(written)
        self._file.flush()
        self._segments[self._current] += len(written)

    def _fail(self, error: OSError) -> None:
        """The disk refuses: what follows is left out until there is another segment."""
        with suppress(OSError):
            self._drop()
        with self._wake:
            if self._current == self._number:
                self._is_open = False
            self._not_before_s = time.monotonic() + self._retry_s
        self._tell("failed", {"why": str(error)})
