"""Agents that follow the load."""

from tests.simulator.worlds import play

RULES = {
    "least": 2,
    "most": 10,
    "target": "70 %",
    "every": "10 s",
    "delay": "20 s",
    "cooldown": "30 s",
    "patience": "30 s",
}


def test_autoscaler_hires_what_the_load_wants_and_not_before_its_delay() -> None:
    seen = play(
        arrivals={"poisson": "40/s"},
        agents={"count": 2, "slots": 4},
        group={"autoscale": RULES},
        run="300 s",
        settle="0 s",
    )
    up, at_s = seen.timeline["up"], seen.timeline["t"]
    assert max(count for count, at in zip(up, at_s, strict=True) if at < 29) == 2
    assert 6 <= up[-1] <= 10
    assert seen.figures["lost"] == seen.figures["unfinished"] == 0


def test_autoscaler_lets_agents_go_without_losing_their_work() -> None:
    seen = play(agents={"count": 10, "slots": 4}, group={"autoscale": RULES}, arrivals={"poisson": "5/s"}, run="120 s")
    assert seen.timeline["up"][-1] == 2
    assert seen.figures["wasted.seconds"] == 0
    assert seen.figures["orders.succeeded"] == seen.figures["orders.arrived"]


def test_autoscaler_does_not_take_a_quiet_moment_for_a_trend() -> None:
    fewest = []
    for patience in ("0 s", "2 min"):
        seen = play(
            agents={"count": 3, "slots": 4},
            group={"autoscale": {**RULES, "patience": patience}},
            arrivals={"poisson": "30/s"},
            run="600 s",
            settle="100 s",
        )
        fewest.append(min(up for up, at_s in zip(seen.timeline["up"], seen.timeline["t"], strict=True) if at_s > 150))
    assert fewest[0] < fewest[1]


def test_autoscaler_never_goes_beyond_its_bounds() -> None:
    seen = play(
        arrivals={"poisson": "60/s"},
        agents={"count": 2, "slots": 1},
        group={"autoscale": {**RULES, "most": 5}},
        run="100 s",
        duration="200 ms",
    )
    assert max(seen.timeline["up"]) == 5
