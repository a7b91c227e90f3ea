"""Numbers over time."""

from simulator.levels import Level, Spells


def test_level_has_its_mean_and_peak_over_the_window_only() -> None:
    level = Level()
    level.add(0, 10)
    level.add(100, -8)
    level.mark(200)
    level.add(250, 3)
    level.add(300, -4)
    level.mark(400)
    level.add(500, 1)
    assert level.mean == (50 * 2 + 50 * 5 + 100 * 1) / 200
    assert (level.peak, level.peak_us) == (5, 250)


def test_level_drains_from_its_peak_to_nothing() -> None:
    level = Level()
    level.mark(0)
    for at_us, change in ((10, 5), (20, -5), (30, 9), (50, -4), (90, -5), (95, 2), (99, -2)):
        level.add(at_us, change)
    assert level.drain_us == 60


def test_level_that_never_drains_says_so() -> None:
    level = Level()
    level.mark(0)
    assert level.drain_us == 0
    level.add(10, 5)
    assert level.drain_us == float("inf")


def test_spells_measure_how_long_it_is_enough_and_how_long_not() -> None:
    spells = Spells(need=2)
    spells.hear(0, 2)
    spells.begin(100)
    for at_us, value in ((150, 1), (160, 0), (170, 2), (190, 1)):
        spells.hear(at_us, value)
    spells.end(200)
    assert (spells.up_us, spells.down_us) == (50 + 20, 20 + 10)
    assert (spells.ups, spells.downs) == (2, 1)
    assert spells.share == 0.7
