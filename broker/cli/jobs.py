"""`mesh jobs`: submitting, reading, following and steering."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from broker.cli.access import Access, Flag, Several, Words, key_values, words_of
from broker.cli.choice import Choice, start_of
from broker.cli.confirm import confirm, counted
from broker.cli.durations import Seconds
from broker.cli.exits import EXIT_FAILED, EXIT_OK, UsageError
from broker.cli.job_views import (
    carry_out,
    changed_at,
    columns_of,
    entered_at,
    line_of,
    write_history,
    write_job,
    write_jobs,
    write_result,
)
from broker.cli.output import say, write_json, write_one, write_table

if TYPE_CHECKING:
    from mesh_client import JobSpec, JobView, SyncMeshClient
    from mesh_client.bulk import JobOrder

ACCESS: Final = Access()

Order = Literal["newest", "oldest", "finished", "finished-last"]
Decision = Literal["retry", "fail", "succeed"]
Positive = Annotated[int, Parameter(validator=Number(gte=1))]

ORDERS: Final[dict[Order, JobOrder]] = {
    "newest": "accepted_at desc",
    "oldest": "accepted_at",
    "finished": "finished_at desc",
    "finished-last": "finished_at",
}
NOTHING: Final = Choice()

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
    start_at: str | None = None,
    start_within: Seconds = None,
    run_timeout: Seconds = None,
    total_timeout: Seconds = None,
    key: Words = "",
    fairness_key: Words = "",
    metadata: Several = (),
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
        How long until it may start: seconds, or `30s`, `5m`, `2h`; so with the other times.
    start_at
        When it may start, instead of a delay: a date to come, with a time of this machine's zone if wanted, or so long
        from now.
    start_within
        How long it may wait for its first start; then it fails.
    run_timeout
        How long one try may run; then it is stopped and tried again.
    total_timeout
        How long until it must have ended; then it fails.
    key
        A key of your business: submitting it again within seven days makes no second job.
    fairness_key
        Jobs with different keys share the group fairly.
    metadata
        KEY=VALUE that is passed to the agent, for example a trace context; may be given several times.
    job_id
        A UUID of your own: submitting it again makes no second job.
    count
        Submit as many equal jobs.
    wait
        Wait for the outcome; the exit code is 1 if a job does not succeed.
    wait_timeout
        How long to wait at most; the exit code is 5 if that is not enough.
    """
    from mesh_client import JobSpec

    if delay is not None and start_at is not None:
        raise UsageError("--delay and --start-at are both given; give one of them")
    if count > 1 and (job_id is not None or key):
        raise UsageError(f"{'--key' if key else '--job-id'} names one job; leave it out with --count")
    content = _payload(payload)
    spec = JobSpec(
        operation,
        _checked_json(content) if json else content,
        content_type="application/json" if json else "",
        priority=priority,
        labels=key_values("--label", label),
        delay_s=delay,
        start_at=start_of("--start-at", start_at),
        schedule_to_start_s=start_within,
        run_timeout_s=run_timeout,
        total_timeout_s=total_timeout,
        idempotency_key=key,
        fairness_key=fairness_key,
        metadata=key_values("--metadata", metadata),
        job_id=job_id,
    )
    with access.connected(group=group, environment=environment) as mesh:
        accepted, code = _submit(mesh, spec, count, is_told=not wait, is_json=access.is_json)
        if not wait:
            return code
        views = _outcomes(mesh, accepted, wait_timeout)
    write_jobs(views, is_json=access.is_json, is_single=len(views) == 1 and not access.is_json)
    return code or (EXIT_OK if all(view.state == "succeeded" for view in views) else EXIT_FAILED)


@app.command
def get(job_id: str, /, *, result: Flag = False, access: Access = ACCESS) -> None:
    """Show a job with its result, its attempts and what happened to it.

    Parameters
    ----------
    job_id
        The id that `mesh jobs submit` wrote.
    result
        Write the bytes of its result to standard output and nothing else; the exit code is 6 if it has none.
    """
    with access.connected() as mesh:
        view = mesh.get(job_id)
    if result:
        write_result(view)
    else:
        write_job(view, is_json=access.is_json)
        if not access.is_json:
            write_history(view)


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
    *, choice: Choice = NOTHING, order: Order | None = None, limit: Positive = 50, access: Access = ACCESS
) -> None:
    """Show jobs, newest first. AGE is the time since they were accepted, TOOK that from then to their end.

    Parameters
    ----------
    order
        By acceptance newest or oldest first; or by their end, the latest first (finished) or last. By their end only
        finished jobs are shown; it is the order if you choose by when they finished.
    limit
        How many at most.
    """
    order_by = ORDERS[order] if order is not None else None
    with access.connected() as mesh:
        found = list(mesh.list(order_by=order_by, limit=limit + 1, **choice.chosen()))
    views = found[:limit]
    if access.is_json:
        write_json(views)
    elif views:
        heads, rows = columns_of(views)
        write_table(heads, rows)
    else:
        say("No jobs." if choice.is_all else "No jobs with all of this.")
    if len(found) > limit:
        these = "this is the first" if limit == 1 else f"these are the first {limit}"
        say(f"There are more; {these}. --limit shows more.")


@app.command
def watch(*job_ids: str, group: str | None = None, resume: Words = "", access: Access = ACCESS) -> None:
    """Write a line whenever a job changes: until all of them are final, or for ever without ids.

    Parameters
    ----------
    job_ids
        Follow these jobs, beginning with how they stand.
    group
        Without ids: only jobs of this group.
    resume
        Without ids: go on after this point, which an earlier watch said at its end.
    """
    if job_ids and (group or resume):
        raise UsageError("give job ids or --group and --resume, not both")
    with access.connected() as mesh:
        for view in mesh.follow(job_ids) if job_ids else _changed(mesh, group, resume):
            if access.is_json:
                write_json(view, indent=None)
            else:
                at = changed_at(view) or entered_at(mesh.get(view.job_id), view.state)
                print(line_of(view, at), flush=True)


@app.command
def cancel(
    *job_ids: str,
    choice: Choice = NOTHING,
    all_jobs: Annotated[Flag, Parameter(name="--all")] = False,
    dry_run: Flag = False,
    yes: Flag = False,
    access: Access = ACCESS,
) -> int:
    """Cancel jobs that are not final: one by its id, or many by what is said of them. Agents stop what runs.

    Parameters
    ----------
    job_ids
        Which.
    all_jobs
        Every job of the organization that is not final.
    dry_run
        Only say how many there are.
    yes
        Do not ask.
    """
    _either(job_ids, choice, is_all=all_jobs)
    with access.connected() as mesh:
        if job_ids:
            return _cancel_each(mesh, job_ids, is_json=access.is_json)
        chosen = choice.chosen()
        matched = sum(one.matched for one in mesh.cancel_jobs(validate_only=True, **chosen))
        if not _may_go_on(matched, "Cancel", "to cancel", is_dry=dry_run, is_sure=yes, is_json=access.is_json):
            return EXIT_OK
        return carry_out(mesh.cancel_jobs(**chosen), matched, "cancelled", is_json=access.is_json)


@app.command
def requeue(
    *job_ids: str, choice: Choice = NOTHING, dry_run: Flag = False, yes: Flag = False, access: Access = ACCESS
) -> int:
    """Make new jobs from such as are dead, failed or cancelled. What is finished stays as it is.

    Many at once are dead letters, or of the --state failed or cancelled; one that was requeued before is passed over.

    Parameters
    ----------
    job_ids
        Which to repeat.
    dry_run
        Only say how many there are.
    yes
        Do not ask.
    """
    _either(job_ids, choice, is_all=False)
    with access.connected() as mesh:
        if job_ids:
            return _requeue_each(mesh, job_ids, is_json=access.is_json)
        chosen = choice.chosen()
        matched = sum(one.matched for one in mesh.requeue_jobs(validate_only=True, **chosen))
        if not _may_go_on(matched, "Requeue", "to requeue", is_dry=dry_run, is_sure=yes, is_json=access.is_json):
            return EXIT_OK
        return carry_out(mesh.requeue_jobs(**chosen), matched, "requeued", is_json=access.is_json)


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
    write_job(view, is_json=access.is_json)
    if not view.is_final:
        say(f"It is in the queue again, at its old place; `mesh jobs watch {view.job_id}` follows it.")


def _outcomes(mesh: SyncMeshClient, job_ids: Sequence[str], timeout_s: float | None) -> list[JobView]:
    """The jobs when all are final. Ctrl-C ends the waiting alone, and says so."""
    try:
        if job_ids:
            say(f"Accepted, waiting: {job_ids[0] if len(job_ids) == 1 else f'{len(job_ids)} jobs'}.")
        return mesh.wait(job_ids, timeout_s)
    except KeyboardInterrupt:
        goes_on = "The job goes on" if len(job_ids) == 1 else f"The {len(job_ids):,} jobs go on"
        say(f"{goes_on}: `mesh jobs watch {' '.join(job_ids[:3])}` follows, `mesh jobs cancel` stops.")
        raise


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


def _changed(mesh: SyncMeshClient, group: str | None, resume: str) -> Iterator[JobView]:
    from mesh_client import MalformedError

    token = resume
    try:
        for change in mesh.watch(group=group, resume_token=resume):
            if change.gap:
                say("Some changes were left out; the states are the latest. `mesh jobs list` shows all jobs.")
            yield from change.jobs
            token = change.resume_token
    except MalformedError:
        token = ""  # it was none
        raise
    finally:
        if token:
            say(f"Go on with --resume {token}")


def _either(job_ids: Sequence[str], choice: Choice, *, is_all: bool) -> None:
    """Many jobs are never meant by leaving something out."""
    if job_ids and (is_all or not choice.is_all):
        raise UsageError("give job ids, or say which jobs by options, not both")
    if not job_ids and choice.is_all and not is_all:
        raise UsageError("say which: job ids, or options such as --group, --state or --since (--help lists them)")


def _may_go_on(matched: int, act: str, aim: str, *, is_dry: bool, is_sure: bool, is_json: bool) -> bool:
    if is_dry:
        if is_json:
            write_json({"matched": matched})
        else:
            print(f"{counted(matched, 'job')} {aim}.")
        return False
    if matched:
        confirm(f"{act} {counted(matched, 'job')}?", is_sure=is_sure)
    return True


def _cancel_each(mesh: SyncMeshClient, job_ids: Sequence[str], *, is_json: bool) -> int:
    views, code = _each(job_ids, mesh.cancel)
    write_jobs(views, is_json=is_json, is_single=len(job_ids) == 1)
    if any(not view.is_final for view in views):
        say("Agents were told to stop what runs; `mesh jobs watch` shows when they have.")
    return code


def _requeue_each(mesh: SyncMeshClient, job_ids: Sequence[str], *, is_json: bool) -> int:
    def again(job_id: str) -> JobView:
        if before := mesh.get(job_id).requeued_as:
            say(f"{job_id} had been requeued before, as {before}: this makes another job.")
        return mesh.requeue(job_id)

    views, code = _each(job_ids, again)
    write_jobs(views, is_json=is_json, is_single=len(job_ids) == 1)
    if views:
        ids = " ".join(view.job_id for view in views)
        new = "A new job with the same content" if len(views) == 1 else "New jobs with the same content"
        say(f"{new}; `mesh jobs watch {ids}` follows.")
    return code


def _each(job_ids: Sequence[str], act: Callable[[str], JobView]) -> tuple[list[JobView], int]:
    """What the act gives for each; a single one raises, of several the first refusal is the exit code."""
    from mesh_client import MeshClientError

    if len(job_ids) == 1:
        return [act(job_ids[0])], EXIT_OK
    views: list[JobView] = []
    code = EXIT_OK
    for job_id in job_ids:
        try:
            views.append(act(job_id))
        except MeshClientError as error:
            say(f"mesh: {job_id}: {words_of(error)}")
            code = code or error.exit_code
    return views, code
