"""The journal of an engine: every turn, with what the dispatchers ordered, so that it can be done again.

A segment begins with a snapshot of every group, taken between two batches. That stops the engine for some microseconds
a job, so while more than `snapshot_jobs_max` jobs live none is taken: the segment that is open goes on, and if there is
none the journal waits, and says so. Everything else (text, digests, compression, disk) happens in the writer's thread.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Final

import structlog

from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.messages import AttemptFinished, AttemptProgressed, Effects, Event, JobSubmitted
from broker.dispatch.model import GroupNo
from broker.dispatch.snapshot import Snapshot, capture, shape
from broker.dispatch.vocabulary import EVENTS, OPAQUE, OTHERS
from broker.journal.codec import SLICE, Codec
from broker.journal.segment import Head, shape_of
from broker.journal.writer import JournalWriter
from broker.settings import JournalSettings
from broker.store.base import Body

NODES_LINE: Final = 256
ASK_AGAIN_US: Final = 1_000_000
"""How long after it was too much a snapshot is thought of again."""
GROUP_COST: Final = 50
"""A snapshot of an empty group costs about as much as one of so many jobs."""

log = structlog.get_logger()


class Recording:
    """Keeps the journal in `folder`. Use from the engine's event loop only."""

    def __init__(self, settings: JournalSettings, folder: Path, *, seed: int, program: str) -> None:
        self._jobs_max = settings.snapshot_jobs_max
        self._seed = seed
        self._program = program
        self._codec = Codec(EVENTS, OTHERS, OPAQUE)
        self._shape = shape_of(self._codec.shape(), shape())
        self._writer = JournalWriter(folder, settings.max_bytes, _tell)
        self._is_waiting = False
        self._not_before_us = 0

    def start(self) -> None:
        """Begin to write. Raises OSError."""
        self._writer.start()

    def stop(self) -> None:
        """End the segment; what was recorded is written. Blocks, for seconds at most."""
        self._writer.close()

    @property
    def is_recording(self) -> bool:
        """Whether turns are written now."""
        return self._writer.is_open

    @property
    def total_bytes(self) -> int:
        """How large the journal is."""
        return self._writer.total_bytes

    @property
    def left_out(self) -> int:
        """Turns that are not in the journal, since the start."""
        return self._writer.left_out

    # --- what the engine tells --------------------------------------------------------------------------------------

    def before(self, now_us: int, dispatchers: Callable[[], Iterable[Dispatcher]]) -> None:
        """A turn is about to begin: the last one is settled, so a segment may begin here."""
        if not self._writer.wants_segment or now_us < self._not_before_us:
            return
        known = list(dispatchers())
        jobs = sum(len(one.ledger.jobs) + len(one.ledger.agents) + GROUP_COST for one in known)
        if jobs > self._jobs_max:
            if not (self._is_waiting or self._writer.is_open):
                log.warning("journal.waiting", live=jobs, snapshot_jobs_max=self._jobs_max)
            self._is_waiting = True
            self._not_before_us = now_us + ASK_AGAIN_US
            return
        self._is_waiting = False
        groups = [_Captured(one) for one in known]
        self._writer.begin(lambda number: self._opening(number, now_us, groups))

    def turn(
        self, at_us: int, lag_us: int, events: Sequence[tuple[GroupNo, Event]], effects: Mapping[GroupNo, Effects]
    ) -> None:
        """What one turn was given, and what it ordered; neither may change afterwards."""
        size = sum(_bytes_of(event) for _, event in events)
        self._writer.add(self._turn(at_us, lag_us, events, dict(effects)), len(events) + 1, size)

    def added(self, dispatcher: Dispatcher) -> None:
        """A group is driven from the next turn on."""
        if self._writer.is_open:
            self._writer.add(self._group(_Captured(dispatcher)), GROUP_COST, 0)

    def lost(self, groups: Iterable[GroupNo]) -> None:
        """These groups are driven no more."""
        if self._writer.is_open:
            self._writer.add([self._codec.text(["lost", list(groups)])], 1, 0)

    # --- lines, made in the thread of the writer --------------------------------------------------------------------

    def _opening(self, number: int, at_us: int, groups: "list[_Captured]") -> Iterator[str]:
        head = Head(number, at_us, self._program, self._shape, self._seed)
        yield self._codec.text(["head", head._asdict()])
        for group in groups:
            yield from self._group(group)

    def _group(self, captured: "_Captured") -> Iterator[str]:
        snapshot, nodes = captured.snapshot, captured.snapshot.nodes
        said = {
            "group": snapshot.group,
            "epoch": snapshot.epoch,
            "policy": captured.policy,
            "random": captured.random,
            "nodes": len(nodes),
        }
        yield self._codec.text(["group", said])
        for at in range(0, len(nodes), NODES_LINE):
            yield self._codec.text(["nodes", *nodes[at : at + NODES_LINE]])

    def _turn(
        self,
        at_us: int,
        lag_us: int,
        events: Sequence[tuple[GroupNo, Event]],
        effects: Mapping[GroupNo, Effects],
    ) -> Iterator[str]:
        text = self._codec.text
        slices = (text(events[at : at + SLICE])[1:-1] for at in range(0, len(events), SLICE))
        digests = {group: self._codec.digest(one) for group, one in effects.items()}
        yield f'["turn",{at_us},{lag_us},[{",".join(slices)}],{text(digests)}]'


class _Captured:
    """One group as it was between two turns."""

    __slots__ = ("policy", "random", "snapshot")

    def __init__(self, dispatcher: Dispatcher) -> None:
        random = dispatcher.ledger.random
        assert isinstance(random, Random)
        self.snapshot: Snapshot = capture(dispatcher)
        self.policy: str = dispatcher.ledger.policy.placing
        self.random = random.getstate()


def _bytes_of(event: Event) -> int:
    if type(event) is JobSubmitted:
        return event.payload_bytes
    if type(event) is AttemptFinished or type(event) is AttemptProgressed:
        body = event.body
        return len(body.content) if isinstance(body, Body) else len(body) if isinstance(body, bytes) else 0
    return 0


def _tell(event: str, fields: Mapping[str, object]) -> None:
    if event == "began":
        log.info("journal.began", **fields)
    elif event == "ended":
        log.info("journal.ended", **fields)
    else:
        log.error("journal.failed", **fields)
