from __future__ import annotations

from typing import Any

import pytest

from broker.control.lint import warnings_of
from broker.control.presence import Machine

NORTH = Machine("2.1.0", "north", os="Linux 6", time_zone="UTC")
SOUTH = NORTH._replace(host="south")


def codes(*machines: Machine, has_environment: bool = True) -> list[str]:
    return [warning.code for warning in warnings_of(machines, has_environment=has_environment)]


@pytest.mark.req("R65")
def test_group_of_two_equal_agents_on_two_hosts_is_fine() -> None:
    assert codes(NORTH, SOUTH) == []


@pytest.mark.req("R65", "R73")
@pytest.mark.parametrize(("machines", "words"), [((), "no active agent"), ((NORTH,), "only one active agent")])
def test_group_with_fewer_than_two_active_agents_is_warned_about(machines: tuple[Machine, ...], words: str) -> None:
    (warning,) = warnings_of(machines, has_environment=True)
    assert warning.code == "few_agents"
    assert words in warning.text


@pytest.mark.req("R65")
def test_group_on_one_host_is_warned_about() -> None:
    (warning,) = warnings_of([NORTH, NORTH], has_environment=True)
    assert (warning.code, "north" in warning.text) == ("one_host", True)
    assert codes(NORTH, NORTH._replace(host="")) == []  # an agent that does not say where it is may be elsewhere


@pytest.mark.req("R65")
@pytest.mark.parametrize(
    ("other", "code"),
    [
        (SOUTH._replace(os="Windows 11"), "mixed_os"),
        (SOUTH._replace(version="2.2.0"), "mixed_version"),
        (SOUTH._replace(time_zone="Europe/Berlin"), "mixed_time_zone"),
    ],
)
def test_group_of_different_agents_is_warned_about(other: Machine, code: str) -> None:
    (warning,) = warnings_of([NORTH, other], has_environment=True)
    assert warning.code == code
    field = code.removeprefix("mixed_")
    assert all(getattr(machine, field) in warning.text for machine in (NORTH, other))
    silent: dict[str, Any] = {field: ""}
    assert codes(NORTH, other._replace(**silent)) == []


@pytest.mark.req("R04")
def test_group_that_no_environment_names_is_marked() -> None:
    assert codes(NORTH, SOUTH, has_environment=False) == ["no_environment"]
