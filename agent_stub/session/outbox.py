"""What waits to be sent, and how it is packed into frames.

Control goes first, then outcomes, then accepts and starts, then progress. An outcome says that its attempt was taken
and started, so those two are left out when they have not gone yet; progress that waits travels with the outcome,
because the next attempt may need its checkpoint.
"""

from agent_stub.session.messages import Frame, Key, Outcome, Progress, Rejected

PROGRESS_EVERY_US = 1_000_000


class Outbox:
    """Everything of one session that the peer has not been sent yet, by class.

    Args:
        items_max: the most outcomes, accepts, starts, refusals and progress reports of one frame, together.
        bytes_max: about the most bytes of a frame; one outcome that alone is larger goes by itself.
    """

    def __init__(self, items_max: int, bytes_max: int) -> None:
        self.items_max = items_max
        self.bytes_max = bytes_max
        self.accepts: dict[Key, None] = {}
        self.starts: dict[Key, None] = {}
        self.rejects: dict[Key, Rejected] = {}
        self.progress: dict[Key, Progress] = {}
        self.outcomes: dict[Key, Outcome] = {}
        self._progress_at_us = 0

    def __len__(self) -> int:
        return len(self.accepts) + len(self.starts) + len(self.rejects) + len(self.progress) + len(self.outcomes)

    def __bool__(self) -> bool:
        return bool(self.outcomes or self.accepts or self.starts or self.rejects or self.progress)

    def clear(self) -> None:
        """Forget what a stream that has ended did not carry; progress is as good on the next one."""
        self.accepts.clear()
        self.starts.clear()
        self.rejects.clear()
        self.outcomes.clear()

    def add_progress(self, progress: Progress) -> None:
        """Keep the latest report of an attempt, and the latest checkpoint that it gave."""
        key = (progress.job_key, progress.attempt)
        self.progress[key] = progress.after(self.progress.get(key))

    def add_outcome(self, outcome: Outcome) -> None:
        """Queue an outcome; what it implies need not be said any more."""
        key = (outcome.job_key, outcome.attempt)
        if key not in self.progress:
            self.accepts.pop(key, None)
            self.starts.pop(key, None)
        self.outcomes[key] = outcome

    def forget(self, key: Key) -> None:
        """Nothing of this attempt is worth sending."""
        for waiting in (self.accepts, self.starts, self.rejects, self.progress, self.outcomes):
            waiting.pop(key, None)

    def is_large(self, wire_bytes: int) -> bool:
        """Whether the next outcome has so many bytes: then it keeps all that follows waiting."""
        for outcome in self.outcomes.values():
            return outcome.wire_bytes >= wire_bytes
        return False

    @property
    def progress_due_us(self) -> int | None:
        """When progress that waits may leave; None without any."""
        return self._progress_at_us if self.progress else None

    def pack(self, frame: Frame, now_us: int) -> None:
        """Move what fits into `frame`, the more important first."""
        room = self._pack_outcomes(frame)
        room = _take_keys(self.accepts, frame.accepted, room)
        room = _take_keys(self.starts, frame.started, room)
        while self.rejects and room > 0:
            frame.rejected.append(self.rejects.pop(next(iter(self.rejects))))
            room -= 1
        if self.progress and room > 0 and now_us >= self._progress_at_us:
            self._pack_progress(frame, room)
            self._progress_at_us = now_us + PROGRESS_EVERY_US

    def _pack_outcomes(self, frame: Frame) -> int:
        """Fill with outcomes; the number of items that still fit."""
        room = self.items_max
        room_bytes = self.bytes_max
        taken: list[Key] = []
        for key, outcome in self.outcomes.items():
            progress = self.progress.get(key)
            room_bytes -= outcome.wire_bytes + (progress.wire_bytes if progress is not None else 0)
            if room <= 0 or (room_bytes < 0 and taken):
                break
            taken.append(key)
            frame.outcomes.append(outcome)
            room -= 1
            if progress is not None:
                self._pack_before_outcome(frame, key)
        for key in taken:
            del self.outcomes[key]
        return room

    def _pack_before_outcome(self, frame: Frame, key: Key) -> None:
        # In this order on the wire: taken, started, progress, outcome.
        if key in self.accepts:
            del self.accepts[key]
            frame.accepted.append(key)
        if key in self.starts:
            del self.starts[key]
            frame.started.append(key)
        frame.progress.append(self.progress.pop(key))

    def _pack_progress(self, frame: Frame, room: int) -> None:
        room_bytes = self.bytes_max - sum(outcome.wire_bytes for outcome in frame.outcomes)
        for key, progress in list(self.progress.items())[:room]:
            room_bytes -= progress.wire_bytes
            if room_bytes < 0 and (frame.progress or frame.outcomes):
                break
            frame.progress.append(self.progress.pop(key))


def _take_keys(waiting: dict[Key, None], into: list[Key], room: int) -> int:
    """Move up to `room` keys, oldest first; the room that is left."""
    if not waiting or room <= 0:
        return room
    if len(waiting) <= room:
        room -= len(waiting)
        into.extend(waiting)
        waiting.clear()
        return room
    taken = list(waiting)[:room]
    for key in taken:
        del waiting[key]
    into.extend(taken)
    return 0
