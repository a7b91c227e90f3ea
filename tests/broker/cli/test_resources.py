from __future__ import annotations

import pytest

from tests.broker.cli.conftest import Ended, Mesh


def facts(ended: Ended) -> dict[str, str]:
    pairs = (line.split("  ", 1) for line in ended.lines)
    return {name: fact.strip() for name, fact in pairs}


def test_groups_are_listed_with_their_agents(mesh: Mesh) -> None:
    ended = mesh("groups", "list")
    assert [line.split() for line in ended.lines] == [
        ["GROUP", "STATUS", "AGENTS", "KIND", "NAME"],
        ["default", "inactive", "0/0", "private", "default"],
        ["loaders", "inactive", "0/0", "private", "loaders"],
    ]


def test_group_is_created_shown_and_created_once(mesh: Mesh) -> None:
    options = ["--display-name", "Load it", "--description", "Nightly", "--no-central-logging"]
    made = mesh("groups", "create", "etl", *options)
    assert made.code == 0
    assert (
        facts(made).items()
        >= {
            "Group": "etl",
            "Name": "Load it",
            "Description": "Nightly",
            "Central logging": "off",
            "Agents": "0 active of 0",
        }.items()
    )
    assert mesh("groups", "get", "etl").out == made.out
    again = mesh("groups", "create", "etl")
    assert (again.code, again.out) == (6, "")
    assert "exists already (ALREADY_EXISTS)" in again.words


def test_group_logs_centrally_by_default(mesh: Mesh) -> None:
    assert facts(mesh("groups", "create", "etl"))["Central logging"] == "on"


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


def test_organization_is_created_shown_and_listed(mesh: Mesh) -> None:
    made = mesh("organizations", "create", "acme", "--display-name", "Acme")
    assert facts(made) == {"Organization": "acme", "Name": "Acme"}
    assert mesh("organizations", "get", "acme").out == made.out
    assert [line.split()[0] for line in mesh("organizations", "list").lines] == ["ORGANIZATION", "default", "acme"]


@pytest.mark.parametrize("collection", ["groups", "environments", "organizations", "agents"])
def test_what_does_not_exist_ends_with_3_and_shows_the_way(collection: str, mesh: Mesh) -> None:
    ended = mesh(collection, "get", "nope")
    assert (ended.code, ended.out) == (3, "")
    assert ended.words.endswith(f"(NOT_FOUND)\nTry: mesh {collection} list\n")
