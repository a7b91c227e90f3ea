"""Following jobs: what each watcher has not been told yet, bounded, and what it may go on from.

The feed is an observer of the engine: it notes job keys after their commit. A watcher holds each changed key once, so a
slow one gets the latest state of a job instead of a backlog; beyond its bound it is told that there was a gap.
A resume token is the number of the last commit told. The feed remembers the keys of recent commits; what is older,
or from before this broker took over, is a gap too.
"""

import asyncio
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final

from broker.dispatch.messages import Notice, Transition
from broker.dispatch.model import GroupNo, JobKey, group_of
from broker.errors import FullError, MalformedError

REMEMBERED_MAX: Final = 200_000
"""Changes that the feed remembers for those who resume."""
FORGOTTEN: Final = 16
"""One in so many more is remembered before the oldest are forgotten, all at once."""
RESUMED_MAX: Final = 2_000
"""Remembered changes that one turn of the loop looks at for somebody who resumes."""


class Watcher:
    """Changed jobs of some groups that were not taken yet, each once, the one that changed first is taken first.

    `taken_seq` is the commit up to which all was taken. `wants_new`: jobs that are new pass although they are not
    among those that it was narrowed to, for their ids may have been asked for.
    """

    def __init__(self, groups: frozenset[GroupNo], keys_max: int, seq: int) -> None:
        self.groups = groups
        self.wants_new = False
        self.taken_seq = seq
        self._only: set[JobKey] | None = None
        self._seq = seq
        self._is_gap = False
        self._keys_max = keys_max
        self._changed: dict[JobKey, bool] = {}
        self._ready = asyncio.Event()

    def narrow(self, only: Iterable[JobKey], *, wants_new: bool) -> None:
        """Tell of these jobs only, from what is noted already on."""
        self._only = set(only)
        self.wants_new = wants_new
        self._changed = {key: is_new for key, is_new in self._changed.items() if self._passes(key, is_new=is_new)}

    def note(self, key: JobKey, *, is_new: bool) -> None:
        """This job changed."""
        if not self._passes(key, is_new=is_new):
            return
        if key not in self._changed and len(self._changed) >= self._keys_max:
            del self._changed[next(iter(self._changed))]
            self._is_gap = True
        self._changed[key] = is_new or self._changed.get(key, False)

    def miss(self) -> None:
        """Something cannot be told."""
        self._is_gap = True

    def settle(self, seq: int) -> None:
        """All changes up to this commit were noted."""
        self._seq = seq
        if self._changed or self._is_gap:
            self._ready.set()

    async def take(self, most: int) -> tuple[list[JobKey], bool]:
        """Wait for changes: up to `most` keys, and whether something before them was left out."""
        await self._ready.wait()
        keys = list(self._changed)[:most]
        for key in keys:
            del self._changed[key]
        is_gap, self._is_gap = self._is_gap, False
        if not self._changed:
            self._ready.clear()
            # Only now: whoever resumes from here would miss what was not taken.
            self.taken_seq = self._seq
        return keys, is_gap

    def _passes(self, key: JobKey, *, is_new: bool) -> bool:
        return self._only is None or key in self._only or (is_new and self.wants_new)


class JobFeed:
    """An `Observer` that tells watchers. `seq` is the last commit before it began to listen."""

    def __init__(self, seq: int, watchers_max: int, remembered_max: int = REMEMBERED_MAX) -> None:
        self._seq = seq
        self._since_seq = seq
        # Numbers side by side, or a busy broker has 20 MiB more after a while: of each change its commit and the key of
        # its job, negative if that is new.
        self._commits = array("q")
        self._keys = array("q")
        self._watchers_max = watchers_max
        self._remembered_max = remembered_max
        self._watchers: set[Watcher] = set()

    async def watch(self, groups: frozenset[GroupNo], keys_max: int, resume_token: str) -> Watcher:
        """Tell of changes from now on, or from a token on; call `leave` in the end.

        Raises MalformedError for what is no token, FullError for one watcher too many.
        """
        since_seq = _seq_of(resume_token) if resume_token else self._seq
        if len(self._watchers) >= self._watchers_max:
            text = f"{self._watchers_max} watches are open, as many as may be; end one, or try again later"
            raise FullError(text, reason="WATCHERS_FULL")
        watcher = Watcher(groups, keys_max, self._seq)
        self._watchers.add(watcher)
        try:
            if resume_token:
                await self._resume(watcher, since_seq)
        except BaseException:
            self.leave(watcher)
            raise
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """The watcher is gone."""
        self._watchers.discard(watcher)

    async def _resume(self, watcher: Watcher, seq: int) -> None:
        """Note what was missed, a part at a time: the engine shares this loop. What is new is noted meanwhile."""
        if not self._since_seq <= seq <= self._seq:
            watcher.miss()
        watcher.taken_seq = min(seq, self._seq)
        missed = self._keys[bisect_right(self._commits, seq) :]
        for at in range(0, len(missed), RESUMED_MAX):
            for number in missed[at : at + RESUMED_MAX]:
                key = JobKey(abs(number))
                if group_of(key) in watcher.groups:
                    watcher.note(key, is_new=number < 0)
            await asyncio.sleep(0)
        watcher.settle(self._seq)

    def on_batch(self, notices: Sequence[Notice], commit_seq: int) -> None:
        """Note what changed in this commit."""
        for notice in notices:
            if type(notice) is Transition:
                self._commits.append(commit_seq)
                self._keys.append(-notice.job_key if notice.from_state is None else notice.job_key)
        if len(self._keys) > self._remembered_max + self._remembered_max // FORGOTTEN:
            self._forget(len(self._keys) - self._remembered_max)
        self._seq = commit_seq
        for watcher in self._watchers:
            self._tell(watcher, notices, commit_seq)

    def _forget(self, count: int) -> None:
        """The oldest."""
        self._since_seq = self._commits[count - 1]
        del self._commits[:count]
        del self._keys[:count]

    @staticmethod
    def _tell(watcher: Watcher, notices: Sequence[Notice], commit_seq: int) -> None:
        for notice in notices:
            if type(notice) is Transition and notice.group in watcher.groups:
                watcher.note(notice.job_key, is_new=notice.from_state is None)
        watcher.settle(commit_seq)

    def on_commit(self, seconds: float, events: int, rows: int) -> None:
        """Nothing: the batch tells."""

    def on_full(self, queue: str) -> None:
        """Nothing: metrics count it."""


def _seq_of(token: str) -> int:
    if not token.isdecimal():
        raise MalformedError(
            f"resume_token {token!r} is none: take the one of the last message that was read",
            reason="MALFORMED_RESUME_TOKEN",
            field="resume_token",
        )
    return int(token)
