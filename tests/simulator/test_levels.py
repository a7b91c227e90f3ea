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
    assert level.window()[:2] == ((50 * 2 + 50 * 5 + 100 * 1) / 200, 5)


def test_level_drains_from_its_peak_to_nothing() -> None:
    level = Level()
    level.mark(0)
    for at_us, change in ((10, 5), (20, -5), (30, 9), (50, -4), (90, -5), (95, 2), (99, -2)):
        level.add(at_us, change)
    level.mark(100)
    assert level.window().drain_us == 60


def test_level_that_never_drains_says_so() -> None:
    level = Level()
    level.mark(0)
    level.mark(5)
    assert level.window().drain_us == 0
    level.add(10, 5)
    level.mark(20)
    assert level.window().drain_us == float("inf")


def test_level_has_a_mean_a_peak_and_a_drain_for_each_phase() -> None:
    level = Level()
    level.mark(0)
    for at_us, change in ((10, 4), (30, -4), (60, 9)):
        level.add(at_us, change)
    level.mark(100)
    for at_us, change in ((120, -3), (140, -6), (150, 2)):
        level.add(at_us, change)
    level.mark(200)
    assert level.phase(0) == ((20 * 4 + 40 * 9) / 100, 9, 80)
    assert level.phase(1) == ((20 * 9 + 20 * 6 + 50 * 2) / 100, 9, 40)
    assert level.window() == ((20 * 4 + 40 * 9 + 20 * 9 + 20 * 6 + 50 * 2) / 200, 9, 80)


def test_level_that_drains_after_the_window_is_seen_to_drain() -> None:
    level = Level()
    level.mark(0)
    level.add(10, 5)
    level.mark(100)
    level.add(130, -5)
    assert level.window().drain_us == 120


def test_spells_measure_how_long_it_is_enough_and_how_long_not() -> None:
    spells = Spells(need=2)
    spells.hear(0, 2)
    spells.begin(100)
    for at_us, value in ((150, 1), (160, 0), (170, 2)):
        spells.hear(at_us, value)
    assert spells.up_until(180) == 50 + 10
    spells.hear(190, 1)
    spells.end(200)
    assert (spells.up_us, spells.down_us) == (50 + 20, 20 + 10)
    assert (spells.ups, spells.downs) == (2, 1)
    assert spells.share == 0.7
