"""What one queued job takes in the dispatcher: labels, fairness key, deadlines and idempotency key included.

python -m bench.memory --jobs 200000
"""

import argparse
import gc
import json

from bench.dispatch import BATCH, Bench
from bench.machine import rss_bytes


def measure(jobs: int) -> dict[str, float]:
    """Bytes of resident memory that each of `jobs` waiting jobs adds."""
    bench = Bench(1, BATCH)  # slots are full and lanes exist: what comes now waits
    gc.collect()
    before = rss_bytes()
    bench.submit_all(jobs)
    gc.collect()
    return {"bytes_per_queued_job": round((rss_bytes() - before) / jobs, 1), "n": jobs}


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description="Memory of a queued job.")
    parser.add_argument("--jobs", type=int, default=200_000)
    print(json.dumps(measure(parser.parse_args().jobs)))


if __name__ == "__main__":
    main()
