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
    assert "organizations/acme/groups/default" in mesh("jobs", "submit", "load", "--organization", "acme").words
    monkeypatch.setenv("MESH_ORGANIZATION", "other")
    assert "organizations/other/groups/default" in mesh("jobs", "submit", "load").words


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
