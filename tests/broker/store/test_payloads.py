from __future__ import annotations

from broker.dispatch.model import JobKey
from broker.store.base import Body
from broker.store.payloads import ENTRY_BYTES, PayloadCache

ONE, TWO, THREE = (JobKey(number) for number in (1, 2, 3))


def _body(size: int) -> Body:
    return Body(b"x" * size)


def test_cache_gives_back_what_was_put() -> None:
    cache = PayloadCache()
    body = Body(b"content", "text/plain", (("a", "b"),))

    cache.put(ONE, body)

    assert cache.get(ONE) is body
    assert cache.get(TWO) is None


def test_cache_counts_all_bytes_of_a_body() -> None:
    cache = PayloadCache()

    cache.put(ONE, Body(b"12345", "text", (("ab", "cde"), ("f", ""))))

    assert cache.bytes_used == ENTRY_BYTES + 5 + 4 + 6


def test_cache_lets_the_one_used_longest_ago_go_when_it_is_full() -> None:
    cache = PayloadCache(2 * (ENTRY_BYTES + 100))
    cache.put(ONE, _body(100))
    cache.put(TWO, _body(100))
    cache.get(ONE)

    cache.put(THREE, _body(100))

    assert [key for key in (ONE, TWO, THREE) if cache.get(key)] == [ONE, THREE]
    assert cache.bytes_used == 2 * (ENTRY_BYTES + 100)


def test_cache_lets_several_go_for_a_large_one() -> None:
    cache = PayloadCache(3 * (ENTRY_BYTES + 100))
    for key in (ONE, TWO):
        cache.put(key, _body(100))

    cache.put(THREE, _body(3 * 100 + 2 * ENTRY_BYTES))

    assert [key for key in (ONE, TWO, THREE) if cache.get(key)] == [THREE]


def test_cache_does_not_keep_what_is_larger_than_its_bound() -> None:
    cache = PayloadCache(ENTRY_BYTES + 100)
    cache.put(ONE, _body(100))

    cache.put(TWO, _body(101))

    assert cache.get(TWO) is None
    assert cache.get(ONE) == _body(100)


def test_cache_forgets_the_former_body_when_the_new_one_is_too_large() -> None:
    cache = PayloadCache(ENTRY_BYTES + 100)
    cache.put(ONE, _body(100))

    cache.put(ONE, _body(101))

    assert cache.get(ONE) is None
    assert cache.bytes_used == 0


def test_cache_counts_a_body_once_when_it_is_put_again() -> None:
    cache = PayloadCache()
    cache.put(ONE, _body(100))

    cache.put(ONE, _body(7))

    assert cache.get(ONE) == _body(7)
    assert cache.bytes_used == ENTRY_BYTES + 7


def test_cache_bounds_empty_bodies_too() -> None:
    cache = PayloadCache(10 * ENTRY_BYTES)

    for number in range(1_000):
        cache.put(JobKey(number), _body(0))

    assert cache.bytes_used == 10 * ENTRY_BYTES
    assert cache.get(JobKey(990)) is not None
    assert cache.get(JobKey(989)) is None


def test_cache_is_empty_after_all_were_dropped() -> None:
    cache = PayloadCache()
    cache.put(ONE, _body(100))

    cache.drop(ONE)
    cache.drop(ONE)

    assert cache.get(ONE) is None
    assert cache.bytes_used == 0
