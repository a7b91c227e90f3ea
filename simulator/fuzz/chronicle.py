"""What happens in a run: its digest, how often, and on demand the story of one job."""

from collections import Counter
from hashlib import blake2b
from typing import Final

from simulator.fuzz.timeline import START_US, Timeline

DIGEST_BYTES: Final = 16


class Chronicle:
    """`counts` says how often what happened, `digest` whether two runs were the same.

    Args:
        timeline: the clock of the run.
        keeps: whether every line is kept, for a story.
    """

    def __init__(self, timeline: Timeline, *, keeps: bool = False) -> None:
        self.counts: Counter[str] = Counter()
        self.lines: list[tuple[int, int, str]] = []
        self._timeline = timeline
        self._keeps = keeps
        self._hash = blake2b(digest_size=DIGEST_BYTES)

    def note(self, text: str, job_key: int = 0) -> None:
        """Something has happened, to a job (0: to the mesh)."""
        at_us = self._timeline.now_us - START_US
        self._hash.update(f"{at_us} {job_key} {text}\n".encode())
        if self._keeps:
            self.lines.append((at_us, job_key, text))

    def count(self, name: str, times: int = 1) -> None:
        """One more of these."""
        self.counts[name] += times

    @property
    def digest(self) -> str:
        """Of all notes so far, in hexadecimal."""
        return self._hash.hexdigest()

    def story(self, job_key: int) -> list[str]:
        """The lines of one job, with what happened to the whole mesh in its time."""
        own = [index for index, (_, key, _) in enumerate(self.lines) if key == job_key]
        if not own:
            return []
        told = self.lines[own[0] : own[-1] + 1]
        return [f"{at_us / 1e6:9.3f} s  {text}" for at_us, key, text in told if key in (0, job_key)]
