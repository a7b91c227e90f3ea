from __future__ import annotations

import pytest

from broker.cli import main
from broker.cli.durations import seconds_of
from tests.broker.cli.conftest import Mesh
from tests.mesh_client.broker import MemoryBroker


@pytest.mark.parametrize(
    ("text", "expected_s"),
    [
        ("5", 5),
        ("0.25", 0.25),
        ("500ms", 0.5),
        ("90s", 90),
        ("1.5h", 5_400),
        ("2m", 120),
        ("7d", 604_800),
        ("1w", 604_800),
    ],
)
def test_duration_is_a_number_of_seconds_or_has_a_unit(text: str, expected_s: float) -> None:
    assert seconds_of(text) == expected_s


@pytest.mark.parametrize("text", ["", "s", "5x", "5 s", "-5s", "1h30m", "five"])
def test_duration_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="could not convert"):
        seconds_of(text)


def test_option_takes_a_unit(mesh: Mesh, broker: MemoryBroker) -> None:
    assert mesh("jobs", "submit", "load", "--delay", "2m", "--run-timeout", "1.5h").code == 0
    [spec] = broker.specs.values()
    assert (spec.delay.ToSeconds(), spec.run_timeout.ToSeconds()) == (120, 5_400)


@pytest.mark.parametrize("option", ["--delay", "--run-timeout", "--wait-timeout", "--api-timeout"])
def test_option_that_is_no_duration_is_refused_with_those_that_are(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["jobs", "submit", "load", option, "5x"]) == 2
    written = capsys.readouterr().err
    assert option in written
    assert "give seconds, or 500ms, 90s, 5m" in written
