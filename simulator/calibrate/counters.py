"""What a broker counts and spends, read from its metrics page and from the kernel."""

import math
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from broker import series

TIMEOUT_S = 10.0


@dataclass(slots=True, frozen=True)
class Counters:
    """A moment of a broker. `loop_s` is processor time of its event loop's thread; `buckets` of commits by bound."""

    loop_s: float
    turns: float
    events: float
    submissions: float
    finished: float
    frames: float
    commits: float
    commit_s: float
    buckets: dict[float, float] = field(default_factory=dict)

    def __sub__(self, before: "Counters") -> "Counters":
        """What happened in between."""
        return Counters(
            self.loop_s - before.loop_s,
            self.turns - before.turns,
            self.events - before.events,
            self.submissions - before.submissions,
            self.finished - before.finished,
            self.frames - before.frames,
            self.commits - before.commits,
            self.commit_s - before.commit_s,
            {bound: count - before.buckets[bound] for bound, count in self.buckets.items()},
        )


def read(metrics: str, pid: int) -> Counters:
    """The broker with this metrics address and process. Raises OSError."""
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=TIMEOUT_S) as response:
        page = response.read().decode()
    sums: dict[str, float] = {}
    buckets: dict[float, float] = {}
    for line in page.splitlines():
        if line.startswith("#") or " " not in line:
            continue
        key, _, value = line.rpartition(" ")
        name, _, labels = key.partition("{")
        sums[name] = sums.get(name, 0.0) + float(value)
        if name == f"{series.COMMIT_SECONDS.name}_bucket":
            bound = labels.partition('le="')[2].partition('"')[0]
            buckets[math.inf if bound == "+Inf" else float(bound)] = float(value)
    return Counters(
        loop_seconds(pid),
        sums[f"{series.COMMIT_EVENTS.name}_count"],
        sums[f"{series.COMMIT_EVENTS.name}_sum"],
        sums.get(series.JOBS_SUBMITTED.name, 0.0),
        sums.get(series.JOBS_FINISHED.name, 0.0),
        sums.get(series.FRAMES.name, 0.0),
        sums[series.COMMITS.name],
        sums[f"{series.COMMIT_SECONDS.name}_sum"],
        buckets,
    )


def loop_seconds(pid: int) -> float:
    """Processor time of the first thread of a process, which is where its event loop runs. Raises OSError."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9
