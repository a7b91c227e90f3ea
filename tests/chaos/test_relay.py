"""A wire loses, delays, doubles and throttles what its weather says, and the same seed does the same again."""

from __future__ import annotations

import pytest

from tests.chaos.relay import Counts, Weather, Wire, inner_address

PACKETS = 2_000
PACKET_BYTES = 1_000


def sent(weather: Weather, *, seed: str = "1", every_s: float = 0.01) -> tuple[list[tuple[float, ...]], Counts]:
    """How late each of many packets came out, and what the wire counted."""
    wire = Wire(seed)
    wire.weather = weather
    late = []
    for number in range(PACKETS):
        now_s = number * every_s
        late.append(tuple(at_s - now_s for at_s in wire.arrivals_s(now_s, PACKET_BYTES)))
    return late, wire.counts


def test_wire_in_fair_weather_passes_everything_at_once() -> None:
    late, counts = sent(Weather())

    assert late == [(0.0,)] * PACKETS
    assert counts == Counts(passed=PACKETS, passed_bytes=PACKETS * PACKET_BYTES)


def test_wire_that_is_cut_passes_nothing() -> None:
    late, counts = sent(Weather(is_cut=True))

    assert late == [()] * PACKETS
    assert counts == Counts(cut=PACKETS)


def test_wire_loses_and_doubles_the_share_that_it_is_told() -> None:
    late, counts = sent(Weather(loss=0.05, twice=0.1))

    assert 0.03 < counts.lost / PACKETS < 0.07
    assert 0.07 < counts.doubled / PACKETS < 0.13
    assert [late.count(()), sum(len(one) == 2 for one in late)] == [counts.lost, counts.doubled]
    assert counts.passed == sum(map(len, late))


def test_wire_delays_within_its_jitter_so_that_packets_overtake() -> None:
    late, counts = sent(Weather(delay_ms=200, jitter_ms=150))

    (lowest, *_), (*_, highest) = min(late), max(late)
    assert 0.05 <= lowest < 0.06
    assert 0.34 < highest <= 0.35
    assert counts.delayed == PACKETS
    arrivals_s = [number * 0.01 + one[0] for number, one in enumerate(late)]
    assert arrivals_s != sorted(arrivals_s)


def test_wire_passes_no_more_than_its_rate_and_drops_what_its_queue_does_not_hold() -> None:
    weather = Weather(rate_bytes_s=50_000, queue_bytes=10_000)

    late, counts = sent(weather)  # twice as much

    over_s = max(number * 0.01 + at_s for number, one in enumerate(late) for at_s in one)
    assert counts.passed_bytes / over_s == pytest.approx(50_000, rel=0.01)
    assert counts.overflowed == late.count(()) > 0
    assert max(at_s for one in late for at_s in one) <= (10_000 + PACKET_BYTES) / 50_000 + 1e-9


def test_wire_does_the_same_again_with_the_same_seed_only() -> None:
    weather = Weather(loss=0.1, twice=0.1, delay_ms=10, jitter_ms=10)

    assert sent(weather) == sent(weather)
    assert sent(weather) != sent(weather, seed="2")


def test_address_of_a_namespace_is_its_own_and_in_the_range_for_tests() -> None:
    addresses = {inner_address(pid) for pid in range(30_000, 35_000)}

    assert len(addresses) == 5_000
    assert {address.rsplit(".", 2)[0] for address in addresses} <= {"198.18"}
    assert inner_address((1 << 17) - 1) == "198.19.255.255"
