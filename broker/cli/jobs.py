"""`mesh jobs`: submitting, reading, following and steering."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from broker.cli.access import Access, Flag, Seconds, Several, Words, words_of
from broker.cli.exits import EXIT_FAILED, EXIT_OK, UsageError
from broker.cli.output import (
    age,
    duration,
    local_time,
    pairs,
    result_text,
    say,
    shown,
    write_json,
    write_one,
    write_sheet,
    write_table,
)

if TYPE_CHECKING:
    from mesh_client import JobSpec, JobView, SyncMeshClient

ACCESS: Final = Access()

State = Literal["scheduled", "queued", "assigned", "running", "held", "succeeded", "failed", "cancelled", "dead"]
Decision = Literal["retry", "fail", "succeed"]
Positive = Annotated[int, Parameter(validator=Number(gte=1))]

app = App(name="jobs", help="Submit, read, follow and steer jobs.")


@app.command
def submit(  # noqa: PLR0913 - one parameter for each option
    operation: str,
    /,
    *,
    payload: Annotated[str, Parameter(show_default=False, allow_leading_hyphen=True)] = "",
    json: Flag = False,
    group: str | None = None,
    environment: str | None = None,
    priority: Annotated[int, Parameter(validator=Number(gte=1, lte=5))] = 3,
    label: Several = (),
    delay: Seconds = None,
    job_id: str | None = None,
    count: Positive = 1,
    wait: Flag = False,
    wait_timeout: Seconds = None,
    access: Access = ACCESS,
) -> int:
    """Submit a job and write its id, or with --wait what became of it. It is durable when this returns.

    Parameters
    ----------
    operation
        What to call on the agent, for example files.csv_to_sql.
    payload
        Its input: text, @FILE, or - for standard input.
    json
        The input is JSON; it is checked before it is sent.
    group
        Where it runs; the group default if neither this nor an environment is given.
    environment
        Where it is sent, instead of to a group.
    priority
        1 (first) to 5 (last).
    label
        KEY=VALUE that the agent must have; may be given several times.
    delay
        Seconds until it may start.
    job_id
        A UUID of your own: submitting it again makes no second job.
    count
        Submit as many equal jobs.
    wait
        Wait for the outcome; the exit code is 1 if a job does not succeed.
    wait_timeout
        Seconds to wait at most; the exit code is 5 if that is not enough.
    """
    from mesh_client import JobSpec

    if job_id is not None and count > 1:
        raise UsageError("--job-id names one job; leave it out with --count")
    content = _payload(payload)
    spec = JobSpec(
        operation,
        _checked_json(content) if json else content,
        content_type="application/json" if json else "",
        priority=priority,
        labels=dict(map(_label, label)),
        delay_s=delay,
        job_id=job_id,
    )
    with access.connected(group=group, environment=environment) as mesh:
        accepted, code = _submit(mesh, spec, count, is_told=not wait, is_json=access.is_json)
        if not wait:
            return code
        views = mesh.wait(accepted, wait_timeout)
    _write_outcomes(views, is_json=access.is_json)
    return code or (EXIT_OK if all(view.state == "succeeded" for view in views) else EXIT_FAILED)


@app.command
def get(job_id: str, /, *, access: Access = ACCESS) -> None:
    """Show a job with its result.

    Parameters
    ----------
    job_id
        The id that `mesh jobs submit` wrote.
    """
    with access.connected() as mesh:
        view = mesh.get(job_id)
    _write_job(view, is_json=access.is_json)


@app.command
def explain(job_id: str, /, *, access: Access = ACCESS) -> None:
    """Say why a job is where it is, what would move it, and (if it waits) why each agent has not got it.

    Parameters
    ----------
    job_id
        The id that `mesh jobs submit` wrote.
    """
    with access.connected() as mesh:
        said = mesh.explain(job_id)
    facts = {"Now": said.summary, "Until": said.next_step}
    facts |= {f"Agent {verdict.agent}": verdict.reason for verdict in said.agents}
    write_one(said, facts, is_json=access.is_json)


@app.command(name="list")
def list_jobs(
    *,
    state: State | None = None,
    group: str | None = None,
    operation: str | None = None,
    agent: str | None = None,
    limit: Positive = 50,
    access: Access = ACCESS,
) -> None:
    """Show jobs, newest first.

    Parameters
    ----------
    state
        Only jobs in this state.
    group
        Only jobs of this group.
    operation
        Only jobs of this operation.
    agent
        Only jobs that this agent has, or had last.
    limit
        How many at most.
    """
    with access.connected() as mesh:
        found = list(mesh.list(state=state, group=group, operation=operation, agent=agent, limit=limit + 1))
    views = found[:limit]
    if access.is_json:
        write_json(views)
    elif views:
        write_table(("JOB", "STATE", "OPERATION", "AGENT", "AGE"), [_row(view) for view in views])
    else:
        say("No jobs.")
    if len(found) > limit:
        say(f"There are more; these are the newest {limit}. --limit shows more.")


@app.command
def watch(*job_ids: str, group: str | None = None, access: Access = ACCESS) -> None:
    """Write a line whenever a job changes: until all of them are final, or for ever without ids.

    Parameters
    ----------
    job_ids
        Follow these jobs, beginning with how they stand.
    group
        Without ids: only jobs of this group.
    """
    if job_ids and group:
        raise UsageError("give job ids or --group, not both")
    with access.connected() as mesh:
        for view in mesh.follow(job_ids) if job_ids else _changed(mesh, group):
            if access.is_json:
                write_json(view, indent=None)
            else:
                print(_line(view), flush=True)


@app.command
def cancel(job_id: str, /, *, access: Access = ACCESS) -> None:
    """Cancel a job that is not final. Running work is stopped by its agent.

    Parameters
    ----------
    job_id
        Which.
    """
    with access.connected() as mesh:
        view = mesh.cancel(job_id)
    _write_job(view, is_json=access.is_json)
    if not view.is_final:
        say("Its agent was told to stop it; `mesh jobs watch` shows when it has.")


@app.command
def requeue(job_id: str, /, *, access: Access = ACCESS) -> None:
    """Make a new job from one that is failed, dead or cancelled. What is finished stays as it is.

    Parameters
    ----------
    job_id
        Which to repeat.
    """
    with access.connected() as mesh:
        view = mesh.requeue(job_id)
    _write_job(view, is_json=access.is_json)
    say(f"A new job with the same content; `mesh jobs watch {view.job_id}` follows it.")


@app.command
def resolve(job_id: str, decision: Decision, /, *, comment: Words = "", access: Access = ACCESS) -> None:
    """Decide about a job that is held: its agent was lost, and nobody else knows how far it had come.

    Parameters
    ----------
    job_id
        Which.
    decision
        retry: it may run again. fail, succeed: it is over, with this outcome.
    comment
        Why; it is kept with the decision.
    """
    with access.connected() as mesh:
        view = mesh.resolve_held(job_id, decision, comment)
    _write_job(view, is_json=access.is_json)
    if not view.is_final:
        say(f"It is in the queue again, at its old place; `mesh jobs watch {view.job_id}` follows it.")


def _submit(mesh: SyncMeshClient, spec: JobSpec, count: int, *, is_told: bool, is_json: bool) -> tuple[list[str], int]:
    """Ids of what was accepted, each once; and the exit code of the first refusal, 0 if there is none."""
    accepted: dict[str, None] = {}
    code = EXIT_OK
    for answer in mesh.submit_stream(spec for _ in range(count)):
        if answer.error is not None:
            say(f"mesh: {words_of(answer.error)}")
            code = code or answer.error.exit_code
            continue
        accepted[answer.job_id] = None
        if not is_told:
            continue
        if is_json:
            told = {"job_id": answer.job_id, "job_key": answer.job_key, "duplicate": answer.duplicate}
            write_json(told, indent=None)
        else:
            print(answer.job_id)
            if answer.duplicate:
                say("It had been submitted before; no second job was made.")
    if not is_told and accepted:
        say(f"Accepted, waiting: {next(iter(accepted)) if len(accepted) == 1 else f'{len(accepted)} jobs'}.")
    return list(accepted), code


def _payload(given: str) -> bytes:
    if given == "-":
        return sys.stdin.buffer.read()
    if given.startswith("@"):
        try:
            return Path(given[1:]).read_bytes()
        except OSError as error:
            raise UsageError(
                f"--payload {given}: {error.strerror}. Give the path of a file that can be read."
            ) from error
    return given.encode()


def _checked_json(content: bytes) -> bytes:
    try:
        json_module.loads(content)
    except ValueError as error:
        raise UsageError(f"the payload is not JSON: {error}") from error
    return content


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"--label {text}: give it as KEY=VALUE")
    return key, value


def _changed(mesh: SyncMeshClient, group: str | None) -> Iterator[JobView]:
    for change in mesh.watch(group=group):
        if change.gap:
            say("Some changes were left out; the states are the latest.")
        yield from change.jobs


def _write_outcomes(views: Sequence[JobView], *, is_json: bool) -> None:
    if is_json:
        for view in views:
            write_json(view, indent=None)
    elif len(views) == 1:
        _write_job(views[0], is_json=False)
    elif views:
        heads = ("JOB", "STATE", "AGENT", "TRIES", "TOOK", "FAILURE")
        write_table(heads, [(v.job_id, v.state, v.agent, str(v.attempt), _took(v), _failure(v)) for v in views])


def _row(view: JobView) -> tuple[str, ...]:
    return view.job_id, view.state, view.operation, view.agent, age(view.accepted_at)


def _line(view: JobView) -> str:
    at = local_time(view.finished_at or view.started_at or view.assigned_at or view.accepted_at)
    who = f"  {view.agent}, try {view.attempt}" if view.agent else ""
    why = f"  {_failure(view)}" if view.failure is not None else ""
    if view.cancel_requested and not view.is_final:
        why += "  cancel requested"
    return shown(f"{at}  {view.job_id}  {view.state:<9}  {view.operation}{who}{why}")


def _write_job(view: JobView, *, is_json: bool) -> None:
    if is_json:
        write_json(view)
        return
    counts = {"failures": view.failures, "crashes": view.crashes, "bounces": view.bounces}
    write_sheet(
        {
            "Job": view.job_id,
            "State": view.state,
            "Operation": view.operation,
            "Group": view.group,
            "Environment": view.environment,
            "Agent": view.agent,
            "Tries": ", ".join([str(view.attempt), *(f"{number} {name}" for name, number in counts.items() if number)]),
            "Priority": str(view.priority),
            "Labels": pairs(view.labels),
            "Business key": view.idempotency_key,
            "Repeats": view.requeued_from,
            "Accepted": local_time(view.accepted_at),
            "Not before": local_time(view.not_before),
            "Assigned": local_time(view.assigned_at),
            "Started": local_time(view.started_at),
            "Finished": local_time(view.finished_at),
            "Took": _took(view),
            "Cancel": "requested" if view.cancel_requested and not view.is_final else "",
            "Failure": _failure(view),
            "Result": result_text(view.result) if view.result is not None else "",
        }
    )


def _took(view: JobView) -> str:
    """From its acceptance to its end."""
    if view.accepted_at is None or view.finished_at is None:
        return ""
    return duration((view.finished_at - view.accepted_at).total_seconds())


def _failure(view: JobView) -> str:
    if view.failure is None:
        return ""
    return f"{view.failure.code}: {view.failure.message}" if view.failure.message else view.failure.code
