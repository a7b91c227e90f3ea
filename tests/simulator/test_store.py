"""How long commits take."""

from simulator.scenario import Commits
from simulator.store import SimStore
from simulator.streams import Streams


def store(**parts: object) -> SimStore:
    return SimStore(Commits.model_validate({"time": "2 ms", **parts}), Streams(1, 0))


def test_commit_takes_its_time_and_some_take_longer() -> None:
    slow = store(tail="10 %", **{"tail-time": "100 ms"})
    times = [slow.commit_us(0) for _ in range(5_000)]
    assert set(times) == {2_000, 102_000}
    assert 400 < times.count(102_000) < 600
    assert slow.commits == 5_000


def test_commit_waits_for_the_end_of_a_stall() -> None:
    one = store()
    one.stall(until_us=1_000_000)
    one.stall(until_us=500_000)
    assert one.commit_us(400_000) == 600_000 + 2_000
    assert one.commit_us(2_000_000) == 2_000
