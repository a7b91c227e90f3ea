from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import get_args
from uuid import uuid4

import pytest

from broker.cli.jobs import State
from mesh_client import JobState
from protos.mesh.v1 import job_pb2
from tests.broker.cli.conftest import Mesh
from tests.mesh_client.broker import BrokerThread, MemoryBroker

JOB_ID = "01990000-0000-7000-8000-000000000001"


def test_states_of_the_option_are_those_of_the_mesh() -> None:
    assert list(get_args(State)) == list(JobState)


# --- submit ---------------------------------------------------------------------------------------------------------


def test_submit_writes_the_id_and_nothing_else(mesh: Mesh, broker: MemoryBroker) -> None:
    ended = mesh("jobs", "submit", "load")
    [job] = broker.jobs.values()
    assert (ended.code, ended.out, ended.words) == (0, f"{job.job_id}\n", "")


def test_submit_sends_what_its_options_say(mesh: Mesh, broker: MemoryBroker) -> None:
    options = ["--payload", "hello", "--priority", "1", "--label", "site=north", "--label", "os=", "--delay", "1.5"]
    assert mesh("jobs", "submit", "load", *options, "--group", "loaders", "--job-id", JOB_ID).code == 0
    [spec] = broker.specs.values()
    assert (spec.operation, spec.payload, spec.content_type, spec.priority) == ("load", b"hello", "", 1)
    assert (dict(spec.labels), spec.delay.ToMilliseconds()) == ({"site": "north", "os": ""}, 1_500)
    assert broker.batches[0].parent == "organizations/default/groups/loaders"


def test_submit_sends_to_an_environment(mesh: Mesh, broker: MemoryBroker) -> None:
    assert mesh("jobs", "submit", "load", "--environment", "prod").code == 0
    assert broker.batches[0].parent == "organizations/default/environments/prod"


@pytest.mark.parametrize("source", ["file", "standard input"])
def test_submit_reads_its_payload_byte_for_byte(
    source: str, mesh: Mesh, broker: MemoryBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"\x00\xff\r\n"
    (tmp_path / "payload").write_bytes(content)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    given = "-" if source == "standard input" else f"@{tmp_path}/payload"
    assert mesh("jobs", "submit", "load", "--payload", given).code == 0
    [spec] = broker.specs.values()
    assert spec.payload == content


def test_submit_sends_json_as_it_was_written(mesh: Mesh, broker: MemoryBroker) -> None:
    assert mesh("jobs", "submit", "load", "--json", "--payload", '{"a":  1}').code == 0
    [spec] = broker.specs.values()
    assert (spec.payload, spec.content_type) == (b'{"a":  1}', "application/json")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--json", "--payload", "{"], "the payload is not JSON: "),
        (["--json"], "the payload is not JSON: "),
        (["--payload", "@/nowhere/at all"], "No such file"),
        (["--label", "north"], "--label north: give it as KEY=VALUE"),
        (["--label", "=north"], "KEY=VALUE"),
        (["--job-id", JOB_ID, "--count", "2"], "--job-id names one job"),
        (["--job-id", "17"], "'17' is not a job id"),
        (["--group", "a", "--environment", "b"], "not to both (TARGET)"),
    ],
)
def test_submit_refuses_what_makes_no_sense(options: list[str], words: str, mesh: Mesh, broker: MemoryBroker) -> None:
    ended = mesh("jobs", "submit", "load", *options)
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.words
    assert not broker.jobs


def test_submit_of_many_writes_an_id_a_line(mesh: Mesh, broker: MemoryBroker) -> None:
    ended = mesh("jobs", "submit", "load", "--count", "300")
    assert ended.lines == [job.job_id for job in broker.jobs.values()]
    assert len(ended.lines) == 300


def test_submit_as_json_writes_an_object_a_line(mesh: Mesh, broker: MemoryBroker) -> None:
    ended = mesh("jobs", "submit", "load", "--count", "2", "-o", "json")
    assert [json.loads(line) for line in ended.lines] == [
        {"job_id": job.job_id, "job_key": job.job_key, "duplicate": False} for job in broker.jobs.values()
    ]


def test_submit_says_when_the_job_was_there_before(mesh: Mesh, broker: MemoryBroker) -> None:
    mesh("jobs", "submit", "load", "--job-id", JOB_ID)
    ended = mesh("jobs", "submit", "load", "--job-id", JOB_ID)
    assert (ended.code, ended.lines) == (0, [JOB_ID])
    assert "submitted before" in ended.words
    assert len(broker.jobs) == 1


def test_submit_that_is_refused_says_why_and_when_to_try_again(mesh: Mesh) -> None:
    ended = mesh("jobs", "submit", "refused")
    assert (ended.code, ended.out) == (5, "")
    assert ended.words == "mesh: the queue is full (QUEUE_FULL)\nTry again in 7 s.\n"


def test_submit_to_an_unknown_group_shows_the_way(mesh: Mesh) -> None:
    ended = mesh("jobs", "submit", "load", "--group", "nope")
    assert ended.code == 3
    assert ended.words.endswith("groups/nope (NOT_FOUND)\nTry: mesh groups list\n")


def test_submit_that_waits_shows_the_result_on_standard_output_alone(mesh: Mesh) -> None:
    ended = mesh("jobs", "submit", "done", "--payload", "hello", "--wait")
    assert ended.code == 0
    assert ["Result", "hello"] in [line.split() for line in ended.lines]
    assert ["State", "succeeded"] in [line.split() for line in ended.lines]
    assert ended.words.startswith("Accepted, waiting: ")


def test_submit_that_waits_decodes_json_for_programs(mesh: Mesh) -> None:
    ended = mesh("jobs", "submit", "done", "--json", "--payload", '{"rows": 3}', "--wait", "-o", "json")
    assert ended.json["result"] == {"content_type": "application/json", "json": {"rows": 3}}
    assert (ended.json["state"], ended.json["agent"], ended.json["failure"]) == ("succeeded", "a1", None)


def test_submit_that_waits_ends_with_1_when_the_job_does_not_succeed(mesh: Mesh, threaded: BrokerThread) -> None:
    failure = job_pb2.Failure(code="csv.bad_row", message="line 7")
    mesh("jobs", "submit", "load", "--job-id", JOB_ID)
    threaded.run(threaded.broker.move(JOB_ID, job_pb2.JOB_STATE_FAILED, failure=failure))
    ended = mesh("jobs", "submit", "load", "--job-id", JOB_ID, "--wait")
    assert ended.code == 1
    assert "csv.bad_row: line 7" in ended.out


def test_submit_of_many_that_waits_shows_a_table(mesh: Mesh, broker: MemoryBroker) -> None:
    ended = mesh("jobs", "submit", "done", "--count", "2", "--wait")
    assert ended.lines[0].split() == ["JOB", "STATE", "AGENT", "TRIES", "TOOK", "FAILURE"]
    assert [line.split()[:4] for line in ended.lines[1:]] == [
        [job.job_id, "succeeded", "a1", "1"] for job in broker.jobs.values()
    ]


def test_submit_that_waits_too_long_ends_with_5_and_names_the_job(mesh: Mesh) -> None:
    ended = mesh("jobs", "submit", "load", "--job-id", JOB_ID, "--wait", "--wait-timeout", "0.2")
    assert (ended.code, ended.out) == (5, "")
    assert f"job {JOB_ID} is not final after 0.2 s (TIMEOUT)\nTry: mesh jobs get {JOB_ID}" in ended.words


# --- get, list, cancel ----------------------------------------------------------------------------------------------


def test_get_leaves_out_what_is_empty(mesh: Mesh) -> None:
    job_id = mesh("jobs", "submit", "load").lines[0]
    ended = mesh("jobs", "get", job_id)
    names = [line.split("  ")[0] for line in ended.lines]
    assert names == ["Job", "State", "Operation", "Group", "Tries", "Priority", "Accepted"]
    assert [line for line in ended.lines if line != line.rstrip()] == []


def test_get_shows_control_characters_of_a_failure_instead_of_obeying_them(mesh: Mesh, threaded: BrokerThread) -> None:
    job_id = mesh("jobs", "submit", "load").lines[0]
    failure = job_pb2.Failure(code="c", message="\x1b[2Jgone\x9b1m")
    threaded.run(threaded.broker.move(job_id, job_pb2.JOB_STATE_FAILED, failure=failure))
    for form in ("table", "json"):
        ended = mesh("jobs", "get", job_id, "-o", form)
        assert "\x1b" not in ended.out
        assert "\x9b" not in ended.out
        assert "[2Jgone" in ended.out


@pytest.mark.req("R84")
def test_explain_names_the_reason_and_each_agents_part(mesh: Mesh) -> None:
    job_id = mesh("jobs", "submit", "load").lines[0]
    assert [line.split("  ", 1)[0] for line in mesh("jobs", "explain", job_id).lines] == ["Now", "Until", "Agent a1"]
    told = mesh("jobs", "explain", job_id, "-o", "json").json
    assert told["agents"] == [{"agent": "a1", "eligible": False, "reason": "it is full: 4 of 4 attempts"}]


@pytest.mark.parametrize("command", ["get", "cancel", "requeue", "explain"])
def test_job_that_does_not_exist_ends_with_3(command: str, mesh: Mesh) -> None:
    ended = mesh("jobs", command, str(uuid4()))
    assert (ended.code, ended.out) == (3, "")
    assert ended.words.endswith("(NOT_FOUND)\nTry: mesh jobs list\n")


def test_list_shows_the_newest_first_and_says_when_there_are_more(mesh: Mesh, broker: MemoryBroker) -> None:
    mesh("jobs", "submit", "load", "--count", "3")
    newest_first = [job.job_id for job in reversed(broker.jobs.values())]
    some, every = mesh("jobs", "list", "--limit", "2"), mesh("jobs", "list", "--limit", "3")
    assert [line.split()[:3] for line in some.lines] == [
        ["JOB", "STATE", "OPERATION"],
        *([job_id, "queued", "load"] for job_id in newest_first[:2]),
    ]
    assert "--limit shows more" in some.words
    assert every.words == ""
    assert len(every.lines) == 4


def test_list_chooses_by_its_options(mesh: Mesh) -> None:
    wanted = mesh("jobs", "submit", "done", "--group", "loaders").lines[0]
    mesh("jobs", "submit", "done")
    mesh("jobs", "submit", "load", "--group", "loaders")
    chosen = ["--state", "succeeded", "--group", "loaders", "--operation", "done", "--agent", "a1"]
    assert [job["job_id"] for job in mesh("jobs", "list", *chosen, "-o", "json").json] == [wanted]


def test_list_of_nothing_is_an_empty_list_for_programs_and_words_for_people(mesh: Mesh) -> None:
    people, program = mesh("jobs", "list"), mesh("jobs", "list", "-o", "json")
    assert (people.code, people.out, people.words) == (0, "", "No jobs.\n")
    assert (program.code, program.json, program.words) == (0, [], "")


def test_cancel_says_when_the_agent_has_yet_to_stop_it(mesh: Mesh, threaded: BrokerThread) -> None:
    queued, running = mesh("jobs", "submit", "load", "--count", "2").lines
    threaded.run(threaded.broker.move(running, job_pb2.JOB_STATE_RUNNING))
    at_once, later = mesh("jobs", "cancel", queued), mesh("jobs", "cancel", running)
    assert "cancelled" in at_once.out
    assert at_once.words == ""
    assert ["Cancel", "requested"] in [line.split() for line in later.lines]
    assert "told to stop" in later.words


def test_cancel_of_a_job_that_has_ended_ends_with_6(mesh: Mesh) -> None:
    ended = mesh("jobs", "cancel", mesh("jobs", "submit", "done").lines[0])
    assert (ended.code, ended.out) == (6, "")
    assert "(JOB_FINAL)" in ended.words


def test_requeue_shows_the_new_job_and_what_it_repeats(mesh: Mesh, threaded: BrokerThread) -> None:
    job_id = mesh("jobs", "submit", "load").lines[0]
    refused = mesh("jobs", "requeue", job_id)
    assert (refused.code, refused.out) == (6, "")
    assert refused.words.endswith(f"(JOB_NOT_REQUEUABLE)\nTry: mesh jobs get {job_id}\n")
    threaded.run(threaded.broker.move(job_id, job_pb2.JOB_STATE_DEAD))
    ended = mesh("jobs", "requeue", job_id)
    assert ended.code == 0
    assert ["Repeats", job_id] in [line.split() for line in ended.lines]
    assert "`mesh jobs watch " in ended.words


@pytest.mark.parametrize(("decision", "state"), [("retry", "queued"), ("fail", "failed"), ("succeed", "succeeded")])
def test_resolve_carries_out_what_a_person_decides(
    decision: str, state: str, mesh: Mesh, threaded: BrokerThread
) -> None:
    job_id = mesh("jobs", "submit", "load").lines[0]
    assert mesh("jobs", "resolve", job_id, decision).code == 6
    threaded.run(threaded.broker.move(job_id, job_pb2.JOB_STATE_HELD))
    ended = mesh("jobs", "resolve", job_id, decision, "--comment", "I looked")
    assert (ended.code, ["State", state] in [line.split() for line in ended.lines]) == (0, True)
    assert threaded.broker.calls["ResolveHeldJob I looked"] == 1
    assert ("in the queue again" in ended.words) == (decision == "retry")


def test_resolve_takes_the_three_decisions_only(mesh: Mesh) -> None:
    assert mesh("jobs", "resolve", JOB_ID, "perhaps").code == 2


# --- watch ----------------------------------------------------------------------------------------------------------


def test_watch_of_jobs_ends_when_all_are_final(mesh: Mesh) -> None:
    job_ids = mesh("jobs", "submit", "done", "--count", "2").lines
    ended = mesh("jobs", "watch", *job_ids)
    assert ended.code == 0
    assert sorted(line.split()[2] for line in ended.lines) == sorted(job_ids)
    assert all("succeeded" in line and "a1, try 1" in line for line in ended.lines)


def test_watch_as_json_writes_an_object_a_line(mesh: Mesh) -> None:
    job_id = mesh("jobs", "submit", "done").lines[0]
    [line] = mesh("jobs", "watch", job_id, "-o", "json").lines
    assert json.loads(line)["job_id"] == job_id


def test_watch_refuses_ids_together_with_a_group(mesh: Mesh) -> None:
    assert mesh("jobs", "watch", JOB_ID, "--group", "default").code == 2
