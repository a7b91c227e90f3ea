"""Lines between agents and the broker."""

from types import SimpleNamespace
from typing import Any, cast

from simulator.clock import Clock
from simulator.network import Connection, GrpcBackoff, Network
from simulator.streams import Streams
from tests.simulator.worlds import scenario


class Half:
    """A generator in the middle of its range."""

    def random(self) -> float:
        return 0.5


class Bench:
    """One line with random delays."""

    def __init__(self, **laws: Any) -> None:
        whole = scenario(fidelity="network", network={"same-zone": {"exponential": "10 ms"}, **laws})
        self.clock = Clock()
        self.network = Network(self.clock, whole, Streams(1, 0))
        self.line = self.network.line("zone-a", 1)
        self.connection = Connection(cast("Any", SimpleNamespace(line=self.line)))
        self.arrived: list[tuple[int, int]] = []

    def send(self, *numbers: int) -> None:
        for number in numbers:
            self.network.to_broker(self.connection, self.hear, number)

    def hear(self, number: int) -> None:
        self.arrived.append((self.clock.now_us, number))


def test_frames_of_a_stream_arrive_late_and_in_order() -> None:
    bench = Bench()
    bench.send(*range(50))
    bench.clock.advance(10_000_000)
    assert [number for _, number in bench.arrived] == list(range(50))
    assert bench.arrived[0][0] > 0


def test_zones_have_delays_of_their_own() -> None:
    bench = Bench(**{"other-zone": "30 ms"})
    line = bench.network.line("zone-b", 2)
    assert (next(line.delays_up), next(line.delays_down)) == (30_000, 30_000)


def test_lost_frame_is_sent_again_later_and_holds_up_what_comes_behind_it() -> None:
    bench = Bench(**{"same-zone": "10 ms"})
    bench.line.lose(0.3, up=True, down=False)
    bench.send(*range(2_000))
    bench.clock.advance(600_000_000)
    assert [number for _, number in bench.arrived] == list(range(2_000))
    delays = [next(bench.line.delays_up) for _ in range(20_000)]
    # Sent k times again with the chance 0.7 * 0.3^k, after 200 ms, 600 ms, 1.4 s in all.
    for resent, wait_us in enumerate((10_000, 210_000, 610_000)):
        assert abs(delays.count(wait_us) / 20_000 - 0.7 * 0.3**resent) < 0.02
    assert {next(bench.line.delays_down) for _ in range(100)} == {10_000}


def test_line_is_as_before_when_its_losses_are_over() -> None:
    bench = Bench(**{"same-zone": "10 ms"}, loss="20 %")
    bench.line.lose(0.3, up=True, down=True)
    bench.line.keep(0.3, up=True, down=True)
    bench.line.keep(0.2, up=True, down=True)
    assert {next(bench.line.delays_up) for _ in range(100)} == {10_000}


def test_frames_wait_while_the_line_is_cut_and_leave_when_it_heals() -> None:
    bench = Bench()
    bench.network.cut(bench.line, up=True, down=False)
    assert bench.line.is_cut
    bench.send(1, 2)
    bench.clock.advance(5_000_000)
    assert bench.arrived == []
    bench.network.heal(bench.line, up=True, down=False)
    bench.clock.advance(10_000_000)
    assert [number for _, number in bench.arrived] == [1, 2]
    assert bench.arrived[0][0] > 5_000_000


def test_line_that_was_cut_twice_heals_with_the_second() -> None:
    bench = Bench()
    for _ in range(2):
        bench.network.cut(bench.line, up=True, down=True)
    bench.network.heal(bench.line, up=True, down=True)
    assert bench.line.is_cut
    bench.network.heal(bench.line, up=True, down=True)
    assert not bench.line.is_cut


def test_grpc_backoff_grows_as_its_paper_says() -> None:
    backoff = GrpcBackoff(Half())
    delays = [backoff.next_delay_s() for _ in range(15)]
    assert delays[:4] == [1.0, 1.6, 1.6**2, 1.6**3]
    assert delays[-1] == 120.0
    assert backoff.next_delay_s(retry_after_s=500.0) == 500.0
    backoff.reset()
    assert backoff.next_delay_s() == 1.0
