"""How jobs are shown: one as a sheet with its history, many as a table, a change as a line."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from broker.cli.access import words_of
from broker.cli.confirm import counted
from broker.cli.exits import EXIT_OK, EXIT_UNAVAILABLE, CommandError
from broker.cli.output import (
    age,
    duration,
    local_time,
    pairs,
    result_text,
    say,
    shown,
    telling,
    write_json,
    write_sheet,
    write_table,
)

if TYPE_CHECKING:
    from datetime import datetime

    from mesh_client import AttemptView, BulkSlice, JobView, TransitionView

EXIT_WRONG_STATE = 6


def write_job(view: JobView, *, is_json: bool) -> None:
    """One job as a sheet of what is known of it."""
    if is_json:
        write_json(view)
        return
    counts = (
        (view.failures, "failure", "failures"),
        (view.crashes, "crash", "crashes"),
        (view.bounces, "bounce", "bounces"),
    )
    used = ", ".join(f"{number} {one if number == 1 else many}" for number, one, many in counts if number)
    write_sheet(
        {
            "Job": view.job_id,
            "In logs": f"job_key={view.job_key}",
            "State": view.state,
            "Operation": view.operation,
            "Group": view.group,
            "Environment": view.environment,
            "Agent": view.agent,
            "Tries": f"{view.attempt} ({used})" if used else str(view.attempt),
            "Priority": str(view.priority),
            "Labels": pairs(view.labels),
            "Business key": view.idempotency_key,
            "Repeats": view.requeued_from,
            "Repeated by": view.requeued_as,
            "Accepted": local_time(view.accepted_at),
            "Not before": local_time(view.not_before),
            "Assigned": local_time(view.assigned_at),
            "Started": local_time(view.started_at),
            "Finished": local_time(view.finished_at),
            "Took": took(view),
            "Cancel": "requested" if view.cancel_requested and not view.is_final else "",
            "Failure": failure_of(view),
            "Result": result_text(view.result) if view.result is not None else "",
        }
    )


def write_history(view: JobView) -> None:
    """Its attempts and what happened to it, as tables below the sheet; nothing of a job that was only accepted."""
    if view.attempts:
        print()
        heads = ("TRY", "AGENT", "ASSIGNED", "STARTED", "RAN", "ENDING", "CODE")
        write_table(heads, [_attempt_row(attempt) for attempt in view.attempts])
    if len(view.transitions) > 1:
        print()
        heads = ("WHEN", "AFTER", "STATE", "REASON", "TRY", "AGENT", "BY")
        began = view.transitions[0].at
        write_table(heads, [_transition_row(step, began) for step in view.transitions])


def write_result(view: JobView) -> None:
    """The bytes of the result as they are. Raises CommandError if there is none."""
    if view.result is None:
        why = f"job {view.job_id} is {view.state} and has no result"
        then = "" if view.is_final else f"\nTry: mesh jobs watch {view.job_id}"
        raise CommandError(f"{why}{then}", EXIT_WRONG_STATE)
    sys.stdout.flush()
    sys.stdout.buffer.write(view.result.content)
    sys.stdout.buffer.flush()


def write_jobs(views: Sequence[JobView], *, is_json: bool, is_single: bool) -> None:
    """What became of jobs: the only one that was asked for as a sheet, several as a table, for programs a line each."""
    if is_single and views:
        if is_json:
            write_json(views[0], indent=2)
        else:
            write_job(views[0], is_json=False)
    elif is_json:
        for view in views:
            write_json(view, indent=None)
    elif views:
        heads = ("JOB", "STATE", "AGENT", "TRIES", "TOOK", "FAILURE")
        write_table(heads, [(v.job_id, v.state, v.agent, str(v.attempt), took(v), failure_of(v)) for v in views])


def columns_of(views: Sequence[JobView]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Heads and rows of a list; columns in which nothing stands are left out."""
    columns: dict[str, list[str]] = {
        "JOB": [view.job_id for view in views],
        "STATE": [view.state for view in views],
        "OPERATION": [view.operation for view in views],
        "AGENT": [view.agent for view in views],
        "AGE": [age(view.accepted_at) for view in views],
        "TOOK": [took(view) for view in views],
        "FAILURE": [failure_of(view) for view in views],
    }
    kept = {head: cells for head, cells in columns.items() if any(cells) or head == "AGENT"}
    return tuple(kept), list(zip(*kept.values(), strict=True))


def changed_at(view: JobView) -> datetime | None:
    """When it came into its state; None where only its history knows: it came back, or is held."""
    match view.state:
        case "scheduled" | "queued":
            return None if view.attempt else view.accepted_at
        case "held":
            return None
        case "assigned":
            return view.assigned_at
        case "running":
            return view.started_at
        case _:
            return view.finished_at


def entered_at(view: JobView, state: str) -> datetime | None:
    """When it last came into a state, by its history; when it was accepted if that does not say so."""
    times = (step.at for step in reversed(view.transitions) if step.to_state == state)
    return next(times, view.accepted_at)


def line_of(view: JobView, at: datetime | None) -> str:
    """A change of a job, and when it was, in one line."""
    who = f"  {view.agent}, try {view.attempt}" if view.agent else ""
    why = f"  {failure_of(view)}" if view.failure is not None else ""
    if view.cancel_requested and not view.is_final:
        why += "  cancel requested"
    return shown(f"{local_time(at)}  {view.job_id}  {view.state:<9}  {view.operation}{who}{why}")


def carry_out(slices: Iterable[BulkSlice], matched: int, verb: str, *, is_json: bool) -> int:
    """Go through all slices, tell how far it is, and what was done in the end. The exit code of the first refusal."""
    done = stopping = passed_over = refused = again = 0
    code = EXIT_OK
    try:
        with telling() as tell:
            for one in slices:
                done, stopping = done + one.changed, stopping + one.stopping
                passed_over, refused = passed_over + one.passed_over, refused + len(one.refused)
                again += sum(job.error.exit_code == EXIT_UNAVAILABLE for job in one.refused)
                for job in one.refused[: 1 if code else 10]:
                    say(f"mesh: {job.job_id}: {words_of(job.error)}")
                code = code or (one.refused[0].error.exit_code if one.refused else EXIT_OK)
                if one.resume_token:
                    tell(f"{done + stopping:,} of about {matched:,} {verb}")
    finally:
        # Also after an error or Ctrl-C: what is done is done.
        if is_json:
            write_json({verb: done, "stopping": stopping, "passed_over": passed_over, "refused": refused})
        else:
            _tell_done(verb, done, stopping, passed_over, refused - again, again)
    return code


def _tell_done(verb: str, done: int, stopping: int, passed_over: int, refused: int, again: int) -> None:
    parts = [f"{counted(done, 'job')} {verb}"]
    parts += [f"{stopping:,} still stopping"] if stopping else []
    parts += [f"{passed_over:,} passed over"] if passed_over else []
    parts += [f"{refused:,} refused for good"] if refused else []
    parts += [f"{again:,} refused: the same command again tries them again"] if again else []
    print(f"{', '.join(parts)}.")


def took(view: JobView) -> str:
    """From its acceptance to its end."""
    return _between(view.accepted_at, view.finished_at)


def failure_of(view: JobView) -> str:
    """Code and message of its latest failure, "" for none."""
    if view.failure is None:
        return ""
    return f"{view.failure.code}: {view.failure.message}" if view.failure.message else view.failure.code


def _attempt_row(attempt: AttemptView) -> tuple[str, ...]:
    return (
        str(attempt.attempt),
        attempt.agent,
        local_time(attempt.assigned_at),
        local_time(attempt.started_at) or "never",
        _between(attempt.started_at or attempt.assigned_at, attempt.finished_at),
        attempt.ending or "goes on",
        attempt.code,
    )


def _transition_row(step: TransitionView, began: datetime | None) -> tuple[str, ...]:
    by = f"{step.actor}: {step.comment}" if step.comment else step.actor
    number = str(step.attempt) if step.attempt else ""
    return local_time(step.at), _between(began, step.at), step.to_state, step.reason, number, step.agent, by


def _between(first: datetime | None, last: datetime | None) -> str:
    if first is None or last is None:
        return ""
    return duration(max(0.0, (last - first).total_seconds()))
