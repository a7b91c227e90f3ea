from __future__ import annotations

import io
import sys

import pytest

from tests.broker.cli.conftest import Mesh
from tests.broker.cli.sheets import columns, facts

PLANNED = "on (planned: nothing is collected yet)"


def test_groups_are_listed_with_their_agents(mesh: Mesh) -> None:
    ended = mesh("groups", "list")
    assert [line.split() for line in ended.lines] == [
        [
            *("GROUP", "STATUS", "AGENTS", "WAITING", "RUNNING"),
            *("PLACING", "KIND", "LOGGING", "ENVIRONMENTS", "NAME", "DESCRIPTION"),
        ],
        ["default", "inactive", "0/0", "0", "0", "default", "private", "planned", "(none)", "default"],
        ["loaders", "inactive", "0/0", "0", "0", "default", "private", "planned", "(none)", "loaders"],
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
    assert facts(mesh("groups", "create", "etl"))["Central logging"] == PLANNED


@pytest.mark.parametrize("collection", ["groups", "environments", "organizations", "agents"])
def test_what_does_not_exist_ends_with_3_and_shows_the_way(collection: str, mesh: Mesh) -> None:
    ended = mesh(collection, "get", "nope")
    assert (ended.code, ended.out) == (3, "")
    assert ended.words.endswith(f"(NOT_FOUND)\nTry: mesh {collection} list\n")


@pytest.mark.req("R07", "R09", "R12", "R17")
def test_group_is_made_changed_and_listed_with_all_that_was_said(live_mesh: Mesh) -> None:
    made = facts(live_mesh("groups", "create", "etl", "--mode", "spill", "--inactive-jobs", "refuse"))
    assert (made["Mode"], made["While inactive"], made["Central logging"]) == ("spill", "jobs are refused", PLANNED)
    assert made["Environments"] == "(none: jobs sent to it are refused)"
    assert made["Warning 1"].startswith("no environment names it")
    options = ["--display-name", "Load it", "--description", "Nightly", "--no-central-logging", "--mode", "balanced"]
    changed = facts(live_mesh("groups", "update", "etl", *options))
    assert (changed["Name"], changed["Description"], changed["Central logging"]) == ("Load it", "Nightly", "off")
    assert (changed["Mode"], changed["While inactive"]) == ("balanced", "jobs are refused")
    listed = live_mesh("groups", "list", "--order-by", "display_name desc")
    heads = ("GROUP", "STATUS", "AGENTS", "LOGGING", "ENVIRONMENTS", "NAME")
    assert columns(listed, *heads) == [
        ["etl", "inactive", "0/0", "off", "(none)", "Load it"],
        ["default", "inactive", "0/0", "planned", "default", "Default"],
    ]


def test_change_of_nothing_or_of_something_older_says_what_to_do(live_mesh: Mesh) -> None:
    nothing = live_mesh("groups", "update", "default")
    assert (nothing.code, "nothing to change: give one of --display-name" in nothing.words) == (2, True)
    assert ("--placing," in nothing.words, "policy." in nothing.words) == (True, False)
    older = live_mesh("groups", "update", "default", "--display-name", "New", "--etag", "0123")
    assert (older.code, "has changed since it was read" in older.words) == (6, True)


@pytest.mark.req("R10")
@pytest.mark.parametrize("command", [("create", "new"), ("update", "default")])
def test_forbidden_character_is_named_with_its_position(live_mesh: Mesh, command: tuple[str, str]) -> None:
    for collection in ("groups", "environments"):
        ended = live_mesh(collection, *command, "--display-name", "A&B")
        assert (ended.code, "'&' at position 2" in ended.words) == (2, True)


@pytest.mark.req("R17")
def test_removal_of_a_group_names_what_goes_with_it_and_asks(
    live_mesh: Mesh, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    live_mesh("agents", "add", "a1")
    live_mesh("jobs", "submit", "echo", "--count", "3")
    question = (
        "Remove group default for good? 1 agent goes with it: default/a1. 3 live jobs are cancelled."
        " Environments that lose it: default."
    )
    unasked = live_mesh("groups", "remove", "default")
    assert (unasked.code, unasked.words) == (2, f"mesh: {question} Say so with --yes.\n")
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    refused = live_mesh("groups", "remove", "default")
    assert (refused.code, refused.words) == (1, f"{question} [y/N] mesh: Nothing was changed.\n")
    assert live_mesh("groups", "get", "default").code == 0
    monkeypatch.setattr(sys, "stdin", Terminal("yes\n"))
    removed = live_mesh("groups", "remove", "default", "-o", "json")
    assert removed.json == {"groups": [], "environments": ["default"], "agents": ["default/a1"], "jobs": 3}
    assert removed.words.endswith("Group default is removed; 1 agent went with it, 3 live jobs cancelled.\n")
    assert live_mesh("groups", "get", "default").code == 3
    assert columns(live_mesh("jobs", "list"), "STATE") in ([["cancelled"]] * 3, [])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.req("R87")
def test_group_is_told_how_to_place_and_what_it_may_hold(live_mesh: Mesh) -> None:
    made = facts(live_mesh("groups", "create", "etl", "--placing", "power-of-d", "--placing-choices", "3"))
    assert (made["Placing"], "Policy" in made) == ("power-of-d (3)", False)
    limits = ["--attempts-max", "5", "--backoff-first", "0.5", "--queue-jobs-max", "9"]
    changed = facts(live_mesh("groups", "update", "etl", "--placing", "round-robin", *limits))
    assert changed["Placing"] == "round-robin"
    assert changed["Policy"] == "attempts-max 5, backoff-first 0.5 s, queue-jobs-max 9"
    listed = live_mesh("groups", "list", "--order-by", "placing")
    assert columns(listed, "GROUP", "PLACING") == [["etl", "round-robin"], ["default", "default"]]
    back = facts(live_mesh("groups", "update", "etl", "--placing", "default", "--attempts-max", "0"))
    assert (back["Placing"], back["Policy"]) == ("default", "backoff-first 0.5 s, queue-jobs-max 9")
    ahead = facts(live_mesh("groups", "update", "etl", "--prefetch", "0.5"))
    assert ahead["Policy"] == "backoff-first 0.5 s, queue-jobs-max 9, prefetch 0.5"
    back = facts(live_mesh("groups", "update", "etl", "--prefetch", "default", "--queue-jobs-max", "0"))
    assert back["Policy"] == "backoff-first 0.5 s"
    for wrong in (["--prefetch", "much"], ["--prefetch", "17"]):
        assert live_mesh("groups", "update", "etl", *wrong).code == 2
    for wrong in (["--placing", "best"], ["--attempts-max", "2000"], ["--placing-choices", "-1"]):
        refused = live_mesh("groups", "update", "etl", *wrong)
        assert (refused.code, bool(refused.words)) == (2, True)
