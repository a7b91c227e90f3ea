from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args
from uuid import UUID, uuid4

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import code_pb2

from broker.cli.choice import State
from broker.cli.output import local_time
from mesh_client import JobState
from protos.mesh.v1 import job_pb2
from tests.broker.cli.conftest import Mesh
from tests.mesh_client.broker import BrokerThread, MemoryBroker, status

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


def test_submit_sends_keys_times_and_metadata(mesh: Mesh, broker: MemoryBroker) -> None:
    options = ["--key", "order-7", "--fairness-key", "tenant-1", "--metadata", "trace=a=b", "--start-within", "5"]
    times = ["--run-timeout", "2.5", "--total-timeout", "60", "--start-at", "2099-11-21T10:00:00Z"]
    assert mesh("jobs", "submit", "load", *options, *times).code == 0
    [spec] = broker.specs.values()
    assert (spec.idempotency_key, spec.fairness_key, dict(spec.metadata)) == ("order-7", "tenant-1", {"trace": "a=b"})
    assert (spec.schedule_to_start.seconds, spec.run_timeout.ToMilliseconds(), spec.total_timeout.seconds) == (
        5,
        2_500,
        60,
    )
    assert spec.start_at.ToJsonString() == "2099-11-21T10:00:00Z"


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
        (["--key", "order-7", "--count", "2"], "--key names one job"),
        (["--metadata", "north"], "--metadata north: give it as KEY=VALUE"),
        (["--start-at", "soon"], "--start-at soon: give a time such as"),
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
    assert ended.words.endswith("mesh: there is no group nope (NOT_FOUND)\nTry: mesh groups list\n")


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
    assert names == ["Job", "In logs", "State", "Operation", "Group", "Tries", "Priority", "Accepted"]
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
@pytest.mark.req("R83")
def test_get_tells_the_attempts_and_what_happened_when_and_by_whom(mesh: Mesh, threaded: BrokerThread) -> None:
    job_id = mesh("jobs", "submit", "load").lines[0]
    assert "AFTER" not in mesh("jobs", "get", job_id).out

    def at(second: int) -> Timestamp:
        return Timestamp(seconds=1_760_000_000 + second)

    lost = job_pb2.JobAttempt(
        attempt=1, agent="a1", assigned_at=at(0), started_at=at(1), finished_at=at(8), ending="lost"
    )
    never = job_pb2.JobAttempt(attempt=2, agent="a2", assigned_at=at(9))
    steps = [
        job_pb2.JobTransition(at=at(0), to_state=job_pb2.JOB_STATE_QUEUED, reason="accepted"),
        job_pb2.JobTransition(
            at=at(90),
            from_state=job_pb2.JOB_STATE_HELD,
            to_state=job_pb2.JOB_STATE_QUEUED,
            reason="resolved",
            attempt=1,
            agent="a1",
            actor="operator",
            comment="the file is there",
        ),
    ]
    running = job_pb2.JOB_STATE_RUNNING
    threaded.run(threaded.broker.move(job_id, running, attempts=[lost, never], transitions=steps))

    ended = mesh("jobs", "get", job_id)

    rows = [line.split() for line in ended.lines]
    assert ["TRY", "AGENT", "ASSIGNED", "STARTED", "RAN", "ENDING", "CODE"] in rows
    assert any(row[:2] == ["1", "a1"] and row[-2:] == ["7s", "lost"] for row in rows)
    assert any(row[:2] == ["2", "a2"] and row[-3:] == ["never", "goes", "on"] for row in rows)
    last = ended.lines[-1]
    assert last.split()[2:7] == ["1m", "queued", "resolved", "1", "a1"]
    assert last.endswith("operator: the file is there")
    told = mesh("jobs", "get", job_id, "-o", "json").json
    assert (told["attempts"][0]["ending"], told["transitions"][1]["comment"]) == ("lost", "the file is there")


def test_get_of_the_result_writes_its_bytes_and_nothing_else(mesh: Mesh) -> None:
    job_id = mesh("jobs", "submit", "done", "--payload", "one\ntwo").lines[0]
    ended = mesh("jobs", "get", job_id, "--result")
    assert (ended.code, ended.out, ended.words) == (0, "one\ntwo", "")


def test_get_of_a_result_that_is_not_there_ends_with_6_and_says_what_to_do(mesh: Mesh) -> None:
    job_id = mesh("jobs", "submit", "load").lines[0]
    ended = mesh("jobs", "get", job_id, "--result")
    assert (ended.code, ended.out) == (6, "")
    assert ended.words == f"mesh: job {job_id} is queued and has no result\nTry: mesh jobs watch {job_id}\n"


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


def test_list_sends_what_is_chosen_and_in_which_order(mesh: Mesh, broker: MemoryBroker) -> None:
    options = ["--dead", "--group", "loaders", "--operation", "load", "--filter", 'agent = "a1"', "--order", "oldest"]
    assert mesh("jobs", "list", *options).words == "No jobs with all of this.\n"
    asked = 'ListJobs state = "dead" AND group = "loaders" AND operation = "load" AND agent = "a1"'
    assert broker.calls[asked] == 1
    assert broker.orders == ["accepted_at"]


def test_list_shows_why_jobs_failed_only_when_some_did(mesh: Mesh, threaded: BrokerThread) -> None:
    good, bad = mesh("jobs", "submit", "done").lines[0], mesh("jobs", "submit", "load").lines[0]
    assert "FAILURE" not in mesh("jobs", "list").lines[0]
    failure = job_pb2.Failure(code="csv.bad_row", message="line 7")
    threaded.run(threaded.broker.move(bad, job_pb2.JOB_STATE_DEAD, failure=failure))
    ended = mesh("jobs", "list")
    assert ended.lines[0].split() == ["JOB", "STATE", "OPERATION", "AGENT", "AGE", "TOOK", "FAILURE"]
    assert [line.split()[0] for line in ended.lines[1:]] == [bad, good]
    assert ended.lines[1].endswith("csv.bad_row: line 7")


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


def test_cancel_of_several_goes_on_after_one_that_has_ended(mesh: Mesh) -> None:
    ended, *queued = mesh("jobs", "submit", "done").lines + mesh("jobs", "submit", "load", "--count", "2").lines
    result = mesh("jobs", "cancel", ended, *queued)
    assert result.code == 6
    assert [line.split()[:2] for line in result.lines[1:]] == [[job_id, "cancelled"] for job_id in queued]
    assert result.words.startswith(f"mesh: {ended}: ")


def test_cancel_of_many_counts_asks_and_tells_what_was_done(mesh: Mesh, threaded: BrokerThread) -> None:
    jobs = mesh("jobs", "submit", "load", "--count", "5").lines
    mesh("jobs", "submit", "other")
    threaded.run(threaded.broker.move(jobs[0], job_pb2.JOB_STATE_RUNNING))
    dry = mesh("jobs", "cancel", "--operation", "load", "--dry-run")
    assert (dry.code, dry.out) == (0, "5 jobs to cancel.\n")
    unsure = mesh("jobs", "cancel", "--operation", "load")
    assert (unsure.code, unsure.out) == (2, "")
    assert "Cancel 5 jobs? Say so with --yes." in unsure.words
    sure = mesh("jobs", "cancel", "--operation", "load", "--yes")
    assert (sure.code, sure.out) == (0, "4 jobs cancelled, 1 still stopping.\n")
    assert "of about 5 cancelled" in sure.words
    everything = mesh("jobs", "cancel", "--all", "--yes", "-o", "json")
    assert everything.json == {"cancelled": 1, "stopping": 1, "passed_over": 0, "refused": 0}


def test_requeue_of_what_was_requeued_says_so(mesh: Mesh, threaded: BrokerThread) -> None:
    job_id = mesh("jobs", "submit", "load").lines[0]
    threaded.run(
        threaded.broker.move(job_id, job_pb2.JOB_STATE_DEAD, requeued_as=f"organizations/default/jobs/{JOB_ID}")
    )
    ended = mesh("jobs", "requeue", job_id)
    assert ended.code == 0
    assert f"{job_id} had been requeued before" in ended.words


def test_get_counts_what_the_tries_came_to(mesh: Mesh, threaded: BrokerThread) -> None:
    job_id = mesh("jobs", "submit", "load").lines[0]
    threaded.run(threaded.broker.move(job_id, job_pb2.JOB_STATE_DEAD, attempt=4, failures=1, crashes=1, bounces=2))
    assert "4 (1 failure, 1 crash, 2 bounces)" in mesh("jobs", "get", job_id).out


@pytest.mark.parametrize("command", ["cancel", "requeue"])
def test_many_jobs_are_never_meant_by_leaving_something_out(command: str, mesh: Mesh) -> None:
    nothing, both = mesh("jobs", command, "--yes"), mesh("jobs", command, JOB_ID, "--group", "default")
    assert (nothing.code, both.code) == (2, 2)
    assert "say which" in nothing.words
    assert "not both" in both.words


def test_requeue_of_dead_letters_says_which_were_refused(mesh: Mesh, threaded: BrokerThread) -> None:
    jobs = mesh("jobs", "submit", "load", "--count", "3").lines
    for job_id in jobs:
        threaded.run(threaded.broker.move(job_id, job_pb2.JOB_STATE_DEAD))
    refused = threaded.broker.jobs[UUID(jobs[1]).bytes]
    refused.operation = "refused"
    mesh("jobs", "requeue", jobs[0])

    ended = mesh("jobs", "requeue", "--dead", "--yes")

    assert (ended.code, ended.out) == (
        5,
        "1 job requeued, 1 passed over, 1 refused: the same command again tries them again.\n",
    )
    assert f"mesh: {jobs[1]}: the queue is full (QUEUE_FULL)" in ended.words


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


@pytest.mark.e2e
def test_submit_that_is_interrupted_while_it_waits_says_that_the_job_goes_on(broker: MemoryBroker) -> None:
    command = [sys.executable, "-m", "broker.cli", "jobs", "submit", "load", "--wait", "--api", broker.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("Accepted, waiting: ")
        process.send_signal(signal.SIGINT)
        assert "The job goes on: `mesh jobs watch " in process.stderr.read()
        assert process.wait() == 130


@pytest.mark.req("R84")
def test_watch_says_when_a_job_came_back(mesh: Mesh, threaded: BrokerThread) -> None:
    job_id = mesh("jobs", "submit", "load").lines[0]
    back = job_pb2.JobTransition(
        at=Timestamp(seconds=1_760_000_000), to_state=job_pb2.JOB_STATE_QUEUED, reason="agent_lost", attempt=1
    )
    threaded.run(threaded.broker.move(job_id, job_pb2.JOB_STATE_QUEUED, attempt=1, transitions=[back]))
    threaded.broker.fail_next("WatchJobs told", status(code_pb2.PERMISSION_DENIED, "no", "DENIED"))
    line = mesh("jobs", "watch", "--resume", "0").lines[-1]
    assert line.startswith(local_time(datetime.fromtimestamp(1_760_000_000, UTC)))


def test_watch_refuses_ids_together_with_a_group(mesh: Mesh) -> None:
    assert mesh("jobs", "watch", JOB_ID, "--group", "default").code == 2
    assert mesh("jobs", "watch", JOB_ID, "--resume", "7").code == 2


def test_watch_goes_on_where_an_earlier_one_stopped_and_says_where_it_stops(mesh: Mesh, broker: MemoryBroker) -> None:
    missed = mesh("jobs", "submit", "load").lines[0]
    broker.fail_next("WatchJobs told", status(code_pb2.PERMISSION_DENIED, "no", "DENIED"))
    ended = mesh("jobs", "watch", "--resume", "0")
    assert ended.code == 4
    assert [line.split()[2] for line in ended.lines] == [missed]
    assert ended.words.startswith("Go on with --resume 1\n")
