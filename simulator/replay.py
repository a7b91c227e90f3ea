"""A journal of a live broker, put through the dispatcher again: the same events must lead to the same effects.

Each segment stands for itself: its dispatchers are restored from its snapshots, every turn is run as the engine ran it,
and the digest of what each group ordered is held against the one that was written. What a segment has lost at its end
is not replayed, and said.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final, Protocol

from broker.dispatch.batch import Batch, Batcher
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.messages import Effects, Event
from broker.dispatch.model import GroupNo
from broker.dispatch.snapshot import Snapshot, restore, shape
from broker.dispatch.vocabulary import EVENTS, OPAQUE, OTHERS
from broker.journal.codec import Codec
from broker.journal.segment import Head, JournalError, Line, SegmentReader, segments_of, shape_of

Posted = tuple[GroupNo, Event]
NOTED_MAX: Final = 20
"""So many differences are named; all are counted."""


@dataclass(slots=True)
class Report:
    """What came of a replay. `effects` are writes, replies, sends and notices; `differing` are those of turns and
    groups whose digest is another one, or that one side only has (at least 1 each); `skipped` are segments that could
    not be read to their end. `notes` say which, in words.
    """

    segments: int = 0
    events: int = 0
    effects: int = 0
    differing: int = 0
    skipped: int = 0
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Keep this text, unless there are many."""
        if len(self.notes) < NOTED_MAX:
            self.notes.append(text)


class Listener(Protocol):
    """Hears a journal while it is replayed."""

    def on_group(self, group: GroupNo, dispatcher: Dispatcher) -> None:
        """A group is as it was here: where a segment begins, and where the group was added."""

    def on_turn(self, at_us: int, events: Sequence[Posted], batch: Batch) -> None:
        """A turn was done again."""


def replay(folder: Path, listener: Listener | None = None) -> Report:
    """Put every segment of the journal in `folder` through the dispatcher. Raises JournalError: it cannot be read."""
    report = Report()
    for path in segments_of(folder):
        reader = SegmentReader(path)
        replayer = _Replayer(path.name, report, listener)
        replayer.run(reader.lines())
        report.segments += 1
        if reader.damage:
            report.skipped += 1
            report.note(f"{path.name}: {reader.damage}; all before it was replayed")
        elif not replayer.has_ended:
            report.note(f"{path.name}: the segment has no end: its broker was killed, or is writing it")
    return report


class _DivergedError(Exception):
    """The dispatcher came into a state in which what happened next cannot have happened."""


class _Replayer:
    """One segment."""

    def __init__(self, name: str, report: Report, listener: Listener | None) -> None:
        self._name = name
        self._report = report
        self._listener = listener
        self._codec = Codec(EVENTS, OTHERS, OPAQUE)
        self._batcher = Batcher(0)
        self.has_ended = False
        self._waited_for: tuple[dict[str, Any], list[Any]] | None = None

    def run(self, lines: Iterator[Line]) -> None:
        """Work all lines. Raises JournalError."""
        first = next(lines, None)
        if first is None:
            self._report.note(f"{self._name}: there is not even a head: the writer had just begun")
            return
        self._check(first)
        for line in lines:
            try:
                self._work(line)
            except _DivergedError as error:
                self._report.differing += 1
                self._report.skipped += 1
                self._report.note(f"{self._name}: {error}; what follows was not replayed")
                return
            except (ValueError, KeyError, TypeError, IndexError) as error:
                raise JournalError(f"{self._name}: a line makes no sense: {error}") from error

    def _check(self, line: Line) -> None:
        if line[0] != "head":
            raise JournalError(f"{self._name}: the segment does not begin with its head")
        head = Head(**line[1])
        if head.shape != shape_of(self._codec.shape(), shape()):
            raise JournalError(
                f"{self._name}: jobmesh {head.program} wrote it, and its events or its state have other fields than "
                "those of this version: replay it with the version that wrote it"
            )

    def _work(self, line: Line) -> None:
        match line:
            case ["turn", at_us, lag_us, events, digests]:
                self._turn(at_us, lag_us, events, digests)
            case ["group", said]:
                self._waited_for = (said, [])
            case ["nodes", *nodes]:
                self._restore(nodes)
            case ["lost", groups]:
                for group in groups:
                    self._batcher.drop(GroupNo(group))
            case ["end", _]:
                self.has_ended = True
            case _:
                raise ValueError(f"no line begins with {line[0]!r}")

    def _restore(self, nodes: list[Any]) -> None:
        """Gather the nodes of a snapshot; make its dispatcher when all are there."""
        if self._waited_for is None:
            raise ValueError("nodes of no group")
        said, gathered = self._waited_for
        gathered += nodes
        if len(gathered) < said["nodes"]:
            return
        self._waited_for = None
        version, state, gauss = said["random"]
        random = Random()
        random.setstate((version, tuple(state), gauss))
        group = GroupNo(said["group"])
        dispatcher = restore(Snapshot(group, said["epoch"], gathered), random)
        self._batcher.add(group, dispatcher)
        if self._listener is not None:
            self._listener.on_group(group, dispatcher)

    def _turn(self, at_us: int, lag_us: int, events: list[Any], digests: dict[str, str]) -> None:
        given = [(GroupNo(group), self._codec.event(plain)) for group, plain in events]
        try:
            batch = self._batcher.run(at_us, given, lag_us)
        except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise _DivergedError(f"at {at_us} us the dispatcher cannot follow: {error!r}") from error
        self._report.events += len(given)
        self._compare(batch, digests)
        if self._listener is not None:
            self._listener.on_turn(at_us, given, batch)
        if batch.seq:
            self._batcher.committed()

    def _compare(self, batch: Batch, digests: dict[str, str]) -> None:
        ours = {str(group): effects for group, effects in batch.effects.items()}
        for group in sorted(ours.keys() | digests.keys(), key=int):
            effects = ours.get(group, Effects())
            count = _count(effects)
            self._report.effects += count
            if group not in ours or self._codec.digest(effects) != digests.get(group):
                self._report.differing += max(1, count)
                self._report.note(f"{self._name}: at {batch.at_us} us group {group} ordered something else")


def _count(effects: Effects) -> int:
    writes = effects.writes
    rows: Iterable[Any] = (
        *(writes.inserts, writes.updates, writes.attempts, writes.transitions, writes.label_sets, writes.policies),
        *(writes.keys, writes.agents, writes.checkpoints),
    )
    return sum(map(len, rows)) + len(effects.replies) + len(effects.sends) + len(effects.notices)
