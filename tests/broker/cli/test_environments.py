from __future__ import annotations

from tests.broker.cli.conftest import Mesh
from tests.broker.cli.sheets import facts


def test_environment_is_created_and_listed(mesh: Mesh) -> None:
    made = mesh("environments", "create", "test", "--group", "loaders", "--group", "default")
    assert facts(made)["Runs in"] == "loaders"
    assert facts(mesh("environments", "get", "test"))["Groups"] == "loaders, default"
    listed = mesh("environments", "list", "-o", "json").json
    assert [(one["environment"], one["target_group"], one["groups"]) for one in listed] == [
        ("prod", "loaders", ["loaders"]),
        ("test", "loaders", ["loaders", "default"]),
    ]


def test_environment_without_a_group_says_what_that_means(mesh: Mesh) -> None:
    assert "refused" in facts(mesh("environments", "create", "empty"))["Runs in"]


def test_environment_is_changed_and_removed(live_mesh: Mesh) -> None:
    live_mesh("groups", "create", "second")
    changed = facts(live_mesh("environments", "update", "default", "--target-group", "second", "--description", "new"))
    assert (changed["Runs in"], changed["Groups"], changed["Description"]) == ("second", "default, second", "new")
    kept = live_mesh("environments", "update", "default", "--group", "default")
    assert (kept.code, "name another target first" in kept.words) == (2, True)
    none = facts(live_mesh("environments", "update", "default", "--no-groups"))
    assert (none["Runs in"], "Groups" in none) == ("(no group: jobs sent to it are refused)", False)
    again = facts(live_mesh("environments", "update", "default", "--group", "second"))
    assert again["Runs in"] == "second"
    asked = live_mesh("environments", "remove", "default")
    assert (asked.code, "Groups that no other one names: second." in asked.words) == (2, True)
    removed = live_mesh("environments", "remove", "default", "--yes")
    assert removed.words == "Environment default is removed. Groups that no other one names: second.\n"
    assert live_mesh("environments", "list").words == "No environments.\n"
