from __future__ import annotations

import pytest
from google.rpc import code_pb2

from broker.cli import main
from tests.broker.cli.conftest import Mesh
from tests.mesh_client.broker import BrokerThread, MemoryBroker, away, broker_thread, status


def test_flag_wins_over_the_environment(
    threaded: BrokerThread, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MESH_API", "127.0.0.1:1")
    assert main(["groups", "list", "--api", threaded.broker.address]) == 0
    assert "loaders" in capsys.readouterr().out


def test_organization_comes_from_the_flag_or_the_environment(
    mesh: Mesh, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no group default of organization acme" in mesh("jobs", "submit", "load", "--organization", "acme").words
    monkeypatch.setenv("MESH_ORGANIZATION", "other")
    assert "no group default of organization other" in mesh("jobs", "submit", "load").words


@pytest.mark.parametrize(
    ("reason", "text", "words"),
    [
        ("NOT_FOUND", "there is no organizations/default/groups/g/agents/a-1", "there is no agent a-1 of group g"),
        (
            "NOT_FOUND",
            "there is no organizations/acme/environments/e",
            "there is no environment e of organization acme",
        ),
        ("NOT_FOUND", "there is no organizations/acme", "there is no organization acme"),
        ("GROUP_IN_USE", "organizations/default/groups/g is in use (2 agents)", "group g is in use (2 agents)"),
        (
            "INVALID_MESSAGE",
            "name: must be a name like organizations/default/groups/default",
            "a letter first, no - at",
        ),
        ("INVALID_MESSAGE", "group_id: must be an id: 1 to 63 of a-z", "mesh: group: must be an id: 1 to 63 of a-z"),
    ],
)
def test_errors_call_things_as_people_do(reason: str, text: str, words: str, mesh: Mesh, broker: MemoryBroker) -> None:
    broker.fail_next("ListJobs", status(code_pb2.NOT_FOUND, text, reason))
    said = mesh("jobs", "list").words
    assert words in said
    assert "organizations/" not in said


@pytest.mark.parametrize(
    ("resource", "reason", "next_step"),
    [
        ("groups/g", "GROUP_WITHOUT_ENVIRONMENT", "mesh environments create g --group g"),
        ("groups/default/agents/a1", "AGENT_WRONG_STATE", "mesh agents get a1"),
        ("groups/g/agents/a1", "AGENT_WRONG_STATE", "mesh agents get a1 --group g"),
    ],
)
def test_wrong_state_says_what_to_do_first(
    resource: str, reason: str, next_step: str, mesh: Mesh, broker: MemoryBroker
) -> None:
    resource = f"organizations/default/{resource}"
    broker.fail_next("ListJobs", status(code_pb2.FAILED_PRECONDITION, "not now", reason, resource=resource))
    assert mesh("jobs", "list").words == f"mesh: not now ({reason})\nTry: {next_step}\n"


@pytest.mark.parametrize("api", ["", "nowhere"])
def test_api_that_is_no_address_is_refused_before_it_is_looked_up(api: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["groups", "list", "--api", api]) == 2
    assert "give one like 127.0.0.1:7402" in capsys.readouterr().err


def test_command_without_a_broker_ends_with_5_and_says_how_to_start_one(capsys: pytest.CaptureFixture[str]) -> None:
    with broker_thread() as running:
        address = running.broker.address
    assert main(["jobs", "list", "--api", address, "--api-timeout", "0.2"]) == 5
    written = capsys.readouterr()
    assert written.out == ""
    assert address in written.err
    assert "mesh serve --dev" in written.err
    assert "Traceback" not in written.err


def test_command_tries_again_while_the_broker_is_away(mesh: Mesh, broker: MemoryBroker) -> None:
    broker.fail_next("ListJobs", away(), away())
    assert mesh("jobs", "list").code == 0
    assert broker.calls["ListJobs"] == 3


@pytest.mark.parametrize(
    ("code", "reason", "exit_code"),
    [
        (code_pb2.INVALID_ARGUMENT, "MALFORMED", 2),
        (code_pb2.NOT_FOUND, "NOT_FOUND", 3),
        (code_pb2.PERMISSION_DENIED, "DENIED", 4),
        (code_pb2.UNAUTHENTICATED, "UNAUTHENTICATED", 4),
        (code_pb2.RESOURCE_EXHAUSTED, "FULL", 5),
        (code_pb2.FAILED_PRECONDITION, "WRONG_STATE", 6),
        (code_pb2.INTERNAL, "INTERNAL", 1),
        (code_pb2.UNIMPLEMENTED, "NOT_BUILT", 1),
    ],
)
def test_error_of_the_broker_ends_with_the_code_of_the_convention(
    code: int, reason: str, exit_code: int, mesh: Mesh, broker: MemoryBroker
) -> None:
    broker.fail_next("ListJobs", status(code, "a fact and what to do", reason))
    ended = mesh("jobs", "list")
    assert (ended.code, ended.out) == (exit_code, "")
    assert ended.words == f"mesh: a fact and what to do ({reason})\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["jobs", "submit", "echo", "--delay", "1", "--start-at", "1h"], "--delay and --start-at are both given"),
        (["agents", "drain", "a1", "--then", "requeue"], "--then requeue happens at a deadline: give --deadline"),
        (["agents", "update", "a1"], "give one of --display-name, --description, --rank"),
        (["jobs", "submit", "Echo!"], "mesh: operation"),
    ],
)
def test_refusal_speaks_of_options_and_not_of_fields(words: list[str], said: str, live_mesh: Mesh) -> None:
    ended = live_mesh(*words)
    assert (ended.code, said in ended.words) == (2, True), ended.words


def test_way_out_is_in_the_organization_that_was_meant(live_mesh: Mesh) -> None:
    made = live_mesh("organizations", "create", "acme")
    assert "Next: mesh groups create GROUP --organization acme" in made.words
    refused = live_mesh("jobs", "submit", "echo", "--organization", "acme")
    assert refused.words.endswith("\nTry: mesh groups list --organization acme\n")
