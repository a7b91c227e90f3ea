from __future__ import annotations

import pytest

from tests.broker.cli.conftest import Mesh
from tests.broker.cli.sheets import columns, facts


def test_organization_is_created_shown_and_listed(mesh: Mesh) -> None:
    made = mesh("organizations", "create", "acme", "--display-name", "Acme")
    assert facts(made).items() >= {"Organization": "acme", "Name": "Acme"}.items()
    assert mesh("organizations", "get", "acme").out == made.out
    assert [line.split()[0] for line in mesh("organizations", "list").lines] == ["ORGANIZATION", "default", "acme"]


@pytest.mark.req("R16")
def test_organization_shows_its_limits_is_changed_and_removed(live_mesh: Mesh) -> None:
    live_mesh("organizations", "create", "acme", "--description", "old")
    shown = facts(live_mesh("organizations", "update", "acme", "--description", "new"))
    assert (shown["Description"], shown["Private groups"], shown["Their agents"]) == ("new", "0 of 1000", "0 of 10000")
    assert shown["For more ask"] == "ops@example.org"
    live_mesh("groups", "create", "g", "--organization", "acme")
    asked = live_mesh("organizations", "remove", "acme")
    assert (asked.code, "1 group goes with it: g." in asked.words) == (2, True)
    removed = live_mesh("organizations", "remove", "acme", "--yes")
    assert (removed.code, removed.words) == (0, "Organization acme is removed; 0 live jobs cancelled.\n")
    assert live_mesh("organizations", "get", "acme").code == 3
    listed = columns(live_mesh("organizations", "list"), "ORGANIZATION", "GROUPS", "NAME")
    assert listed == [["default", "1 of 1000", "Default"]]
