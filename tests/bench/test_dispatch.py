from __future__ import annotations

from bench.dispatch import BATCH, Bench


def test_bench_takes_jobs_through_while_its_backlog_stays() -> None:
    bench = Bench(agents=10, queued=1_000)
    waiting = len(bench.dispatcher.ledger.jobs)

    us_per_job = bench.run(4 * BATCH)

    assert bench.finished == 4 * BATCH
    assert len(bench.dispatcher.ledger.jobs) == waiting
    assert us_per_job > 0


def test_bench_submits_jobs_with_all_that_costs_time() -> None:
    [job] = Bench(agents=1, queued=0).submissions(1)

    assert job.labels
    assert job.fairness
    assert job.idempotency_key
    assert job.schedule_to_start_us
    assert job.run_timeout_us
    assert job.total_timeout_us
