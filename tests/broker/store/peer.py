"""Another process with a store: `python -m tests.broker.store.peer ROLE FILE`. It speaks on standard output.

hold     open the file, say `open`, wait for the end of standard input
commit   open it and commit batch after batch, saying the number of each when it is acknowledged, until killed
limit    commit once, then let no file grow, commit again and say how each call ends
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from pathlib import Path

from broker.dispatch.model import JobKey
from broker.dispatch.rows import Writes
from broker.errors import MeshError
from broker.store.base import Body, CommitStatus, JobQuery
from broker.store.sqlite import SqliteStore
from tests.conformance.bench import StoreBench

BATCH = 7
"""Jobs in a batch of `commit`."""


def start(role: str, path: Path) -> subprocess.Popen[str]:
    """Start a peer; the caller reads what it says and ends it."""
    command = [sys.executable, "-m", "tests.broker.store.peer", role, str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def bench_of(path: Path) -> StoreBench:
    """A store on this file that is not open yet."""
    return StoreBench(lambda: SqliteStore(path), SqliteStore(path))


async def resume(path: Path) -> StoreBench:
    """Open the store in this file and go on where it was left; fill it if it is new or was never filled."""
    bench = bench_of(path)
    await bench.store.open()
    groups = await bench.store.groups()
    if not groups:
        await bench.fill()
        return bench
    bench.org_no, bench.group, bench.other_group = groups[0].org_no, groups[0].group_no, groups[1].group_no
    await bench.own()
    return bench


async def _hold(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    _say("open")
    await asyncio.to_thread(sys.stdin.read)
    await store.close()


async def _commit(path: Path) -> None:
    bench = await resume(path)
    while True:
        first = bench.seq * BATCH + 1
        rows = [bench.job(number) for number in range(first, first + BATCH)]
        payloads: dict[JobKey, object] = {row.job_key: Body(b"%d" % row.job_key) for row in rows}
        outcome = await bench.commit(Writes(inserts=rows, payloads=payloads))
        assert outcome.status is CommitStatus.COMMITTED, outcome
        _say(str(bench.seq))


async def _limit(path: Path) -> None:
    bench = bench_of(path)
    await bench.start()
    await bench.insert(bench.job(1))
    longest = max(file.stat().st_size for file in path.parent.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (longest, resource.RLIM_INFINITY))
    large = Writes(inserts=[bench.job(2)], payloads={bench.job(2).job_key: Body(b"x" * 4 * longest)})
    for call in (bench.commit(large), bench.store.jobs(JobQuery((bench.group,)))):
        try:
            _say(str(await call))
        except MeshError as error:
            _say(f"{type(error).__name__} {error}")


def _say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


if __name__ == "__main__":
    asyncio.run({"hold": _hold, "commit": _commit, "limit": _limit}[sys.argv[1]](Path(sys.argv[2])))
