from __future__ import annotations

import io
import os
import signal
import sys
from datetime import UTC, datetime, timedelta

import pytest

from broker.cli.agent_views import busy, heard
from mesh_client.convert import agent_view
from protos.mesh.v1 import admin_service_pb2 as admin
from tests.broker.cli.conftest import Mesh
from tests.broker.cli.sheets import facts
from tests.mesh_client.broker import MemoryBroker, away

LOADERS = ("--group", "loaders")


def test_agents_are_listed_of_all_groups_or_of_one(mesh: Mesh) -> None:
    every, some = mesh("agents", "list"), mesh("agents", "list", "--group", "default")
    assert [line.split()[:4] for line in every.lines] == [
        ["AGENT", "STATUS", "GROUP", "BUSY"],
        ["a1", "active", "loaders", "1/4"],
        ["a2", "active", "default", "1/4"],
    ]
    assert [line.split()[0] for line in some.lines] == ["AGENT", "a2"]


def test_agent_is_shown_with_its_operations_and_labels(mesh: Mesh) -> None:
    shown = facts(mesh("agents", "get", "a1", *LOADERS))
    assert (shown["Operations"], shown["Labels"], shown["Busy"]) == ("done", "site=north", "1/4")


@pytest.mark.req("R62")
def test_what_an_older_agent_does_not_say_is_a_dash(mesh: Mesh) -> None:
    shown = facts(mesh("agents", "get", "a1", *LOADERS))
    assert [shown[name] for name in ("Host", "Process", "User", "System", "Address", "Uptime")] == ["-"] * 6


@pytest.mark.req("R43", "R44", "R45")
def test_added_agent_awaits_its_setup_and_says_nothing_of_a_machine(live_mesh: Mesh) -> None:
    added = live_mesh("agents", "add", "a1", "--display-name", "host-1.example.org", "--description", "new")
    assert added.words == "It has never connected: start its process on its machine.\n"
    shown = facts(added)
    assert (shown["Name"], shown["Status"], shown["Description"]) == ("host-1.example.org", "awaiting_setup", "new")
    assert shown["Elsewhere called"] == "Unregistered, Awaiting setup"
    assert "Host" not in shown
    assert [line.split() for line in live_mesh("agents", "list").lines] == [
        ["AGENT", "STATUS", "GROUP", "BUSY", "HEARD", "VERSION", "HOST", "IP", "OS"],
        ["a1", "awaiting_setup", "default", "-"],
    ]
    again = live_mesh("agents", "create", "a1")
    assert (again.code, "exists already" in again.words) == (6, True)


@pytest.mark.req("R87")
def test_agent_gets_another_name_and_rank(live_mesh: Mesh) -> None:
    live_mesh("agents", "add", "a1")
    shown = facts(live_mesh("agents", "update", "a1", "--rank", "2", "--display-name", "Host 1"))
    assert (shown["Rank"], shown["Name"]) == ("2", "Host 1")
    for rank in ("-1", "1000001", "99999999999"):
        wrong = live_mesh("agents", "update", "a1", "--rank", rank)
        assert (wrong.code, "rank" in wrong.words) == (2, True)


@pytest.mark.req("R84")
def test_explain_says_what_is_in_an_agents_way_and_what_would_end_that(mesh: Mesh) -> None:
    said = facts(mesh("agents", "explain", "a2"))
    assert said == {"Now": "gets nothing new", "Until": "resume it", "Reason 1": "it is paused by ann"}
    told = mesh("agents", "explain", "a2", "-o", "json").json
    assert (told["placeable"], told["obstacles"]) == (False, [["paused", "it is paused by ann"]])


def test_list_of_nothing_says_so(mesh: Mesh) -> None:
    ended = mesh("agents", "list", "--group", "empty")
    assert (ended.code, ended.out, ended.words) == (0, "", "No agents.\n")


# --- drain ----------------------------------------------------------------------------------------------------------


@pytest.mark.req("R52")
def test_drain_says_what_happens_next_and_that_nothing_starts_it_from_here(mesh: Mesh) -> None:
    options = ["--then", "requeue", "--deadline", "60", "--reason", "new disk"]
    ended = mesh("agents", "drain", "a1", *options, *LOADERS)
    assert ended.code == 0
    shown = facts(ended)
    assert shown["Status"] == "draining"
    assert shown["Drain"].startswith("to stop since ")
    assert "1 attempt left; requeue at " in shown["Drain"]
    assert shown["Drain"].endswith("; by operator: new disk")
    assert "started again on its machine only" in ended.words
    assert "`mesh agents cancel-drain a1 --group loaders` takes it back" in ended.words


@pytest.mark.parametrize("deadline", ["inf", "1e300", "nan"])
def test_deadline_that_never_comes_is_refused(mesh: Mesh, deadline: str) -> None:
    ended = mesh("agents", "drain", "a1", "--deadline", deadline, *LOADERS)
    assert (ended.code, "deadline" in ended.words) == (2, True)
    assert facts(mesh("agents", "get", "a1", *LOADERS))["Status"] == "active"


@pytest.mark.req("R52")
def test_drain_that_waits_shows_how_far_it_is_until_it_is_done(mesh: Mesh, broker: MemoryBroker) -> None:
    broker.agents[1].live = 2
    broker.steps.extend([lambda: None, lambda: broker.work(1, 1), lambda: broker.work(1, 0)])
    ended = mesh("agents", "drain", "a2", "--wait")
    assert (ended.code, facts(ended)["Status"]) == (0, "stopped")
    assert ended.words.splitlines() == [
        "Draining a2: 2 attempts left.",
        "Draining a2: 1 attempt left.",
        "It has left in good order. Nothing starts it from here: start its process on its machine.",
    ]


@pytest.mark.req("R52")
@pytest.mark.parametrize("words", [("drain", "a2", "--mode", "pause"), ("pause", "a2")])
def test_drain_to_pause_that_waits_ends_with_the_pause_and_resume_ends_that(
    mesh: Mesh, broker: MemoryBroker, words: tuple[str, ...]
) -> None:
    broker.steps.append(lambda: broker.work(1, 0))
    ended = mesh("agents", *words, "--wait")
    assert (ended.code, facts(ended)["Status"]) == (0, "paused")
    assert "`mesh agents resume a2` gives it work again" in ended.words
    assert facts(mesh("agents", "resume", "a2"))["Status"] == "active"


def test_drain_that_was_taken_back_while_somebody_waits_ends_with_1(mesh: Mesh, broker: MemoryBroker) -> None:
    broker.steps.extend([lambda: None, lambda: broker.activate(broker.agents[1])])
    ended = mesh("agents", "drain", "a2", "--wait")
    assert (ended.code, facts(ended)["Status"]) == (1, "active")
    assert "It is not stopped: the drain was taken back" in ended.words


@pytest.mark.req("R52")
def test_interrupt_ends_the_waiting_and_not_the_drain(mesh: Mesh, broker: MemoryBroker) -> None:
    broker.steps.extend([lambda: None, lambda: os.kill(os.getpid(), signal.SIGINT)])
    ended = mesh("agents", "drain", "a2", "--wait")
    assert (ended.code, ended.out) == (130, "")
    assert "Draining a2: 1 attempt left." in ended.words
    assert "Nobody waits any more; the drain goes on." in ended.words
    assert "`mesh agents cancel-drain a2` takes it back" in ended.words
    assert broker.agents[1].status == admin.AGENT_STATUS_DRAINING


def test_drain_whose_broker_goes_away_says_that_it_goes_on(mesh: Mesh, broker: MemoryBroker) -> None:
    broker.fail_next("GetAgent", *[away(retry_after_s=0.05)] * 100)
    ended = mesh("agents", "drain", "a2", "--wait", "--api-timeout", "0.3")
    assert ended.code == 5
    assert "the drain goes on" in ended.words


def test_drain_is_taken_back(mesh: Mesh) -> None:
    mesh("agents", "drain", "a2")
    ended = mesh("agents", "cancel-drain", "a2")
    assert (ended.code, facts(ended)["Status"], ended.words) == (0, "active", "It is given work.\n")


@pytest.mark.req("R49")
@pytest.mark.parametrize("act", ["cancel-drain", "resume", "enable"])
def test_act_that_the_status_forbids_ends_with_6_and_shows_the_way(act: str, mesh: Mesh) -> None:
    ended = mesh("agents", act, "a1", *LOADERS)
    assert (ended.code, ended.out) == (6, "")
    assert ended.words.endswith("(AGENT_WRONG_STATE)\nTry: mesh agents get a1 --group loaders\n")


# --- switch off, take out -------------------------------------------------------------------------------------------


@pytest.mark.req("R66")
def test_disable_and_enable_say_what_the_agent_does_now(mesh: Mesh) -> None:
    off = mesh("agents", "disable", "a2", "--reason", "broken fan")
    assert (facts(off)["Status"], facts(off)["Disabled"]) == ("disabled", "broken fan")
    assert off.words == "It ends 1 attempt, then it is sent away. `mesh agents enable a2` switches it on again.\n"
    now = mesh("agents", "disable", "a2", "--now")
    assert now.words.startswith("It is not let in.")
    on = mesh("agents", "enable", "a2", "-o", "json")
    assert (on.json["status"], on.json["disabled_reason"], on.json["drain"]) == ("stopped", "", None)


@pytest.mark.req("R50")
def test_remove_asks_first_and_needs_yes_where_nobody_can_answer(mesh: Mesh, broker: MemoryBroker) -> None:
    mesh("agents", "disable", "a2")
    asked = mesh("agents", "remove", "a2")
    assert (asked.code, asked.out) == (2, "")
    assert "Remove agent a2 of group default for good? It holds 1 attempt. Say so with --yes." in asked.words
    assert len(broker.agents) == 2
    done = mesh("agents", "remove", "a2", "--yes", "-o", "json")
    assert (done.code, done.json) == (0, {"agent": "a2", "group": "default", "attempts": 1})
    assert "is removed; 1 attempt of it will run elsewhere" in done.words
    assert [agent.name.rpartition("/")[2] for agent in broker.agents] == ["a1"]


@pytest.mark.req("R50")
@pytest.mark.parametrize(("answer", "code", "left"), [("n\n", 1, 2), ("", 1, 2), ("y\n", 0, 1), ("Yes\n", 0, 1)])
def test_remove_does_what_the_person_at_the_terminal_says(
    answer: str, code: int, left: int, mesh: Mesh, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    mesh("agents", "disable", "a2")
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    ended = mesh("agents", "remove", "a2")
    assert (ended.code, len(broker.agents)) == (code, left)
    assert "[y/N]" in ended.words
    assert ("Nothing was changed." in ended.words) == (left == 2)


def test_remove_of_an_agent_that_runs_is_refused_before_anybody_is_asked(mesh: Mesh) -> None:
    ended = mesh("agents", "remove", "a2")
    assert ended.code == 6
    assert "Remove agent" not in ended.words


def test_agent_is_given_labels_and_they_are_taken_back(live_mesh: Mesh) -> None:
    made = facts(live_mesh("agents", "add", "a1", "--rank", "2", "--label", "zone=north", "--label", "disk=ssd"))
    assert (made["Rank"], made["Given labels"], made["Labels"]) == ("2", *2 * ("disk=ssd, zone=north",))
    changed = facts(live_mesh("agents", "update", "a1", "--label", "zone=east"))
    assert (changed["Rank"], changed["Given labels"]) == ("2", "zone=east")
    assert "Given labels" not in facts(live_mesh("agents", "update", "a1", "--no-labels"))
    for wrong in (["--label", "zone"], ["--label", "a=b", "--no-labels"], ["--label", "Zone=north"]):
        refused = live_mesh("agents", "update", "a1", *wrong)
        assert (refused.code, bool(refused.words)) == (2, True)


@pytest.mark.parametrize(
    ("status", "since_s", "words"),
    [
        ("active", 2, "2s"),
        ("no_response", 60, "1m"),
        ("no_response", None, "not since restart"),
        ("stopped", None, "not since restart"),
        ("awaiting_setup", None, ""),
        ("disabled", None, ""),
    ],
)
def test_list_says_when_an_agent_was_heard_or_that_it_is_not_back_yet(
    status: str, since_s: int | None, words: str
) -> None:
    said = admin.Agent(name="organizations/default/groups/default/agents/a1")
    said.status = admin.AgentStatus.Value(f"AGENT_STATUS_{status.upper()}")
    if since_s is not None:
        said.last_heard_at.FromDatetime(datetime.now(UTC) - timedelta(seconds=since_s))
    view = agent_view(said)
    assert heard(view).replace("3s", "2s") == words
    assert busy(view) == "-"
