from __future__ import annotations

import os

from bench.machine import cpu_s, loop_ns, machine, rss_bytes, rss_max_mb


def test_machine_is_described_without_a_name() -> None:
    described = machine()

    assert described["cores"]
    assert os.uname().nodename not in map(str, described.values())


def test_process_has_used_what_the_kernel_says() -> None:
    before_s = cpu_s(os.getpid())

    assert loop_ns() > 0
    assert cpu_s(os.getpid()) > before_s
    assert 0 < rss_bytes() <= rss_max_mb(os.getpid()) * 2**20 * 1.01
