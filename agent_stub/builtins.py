"""Operations that come with the agent: `echo`, `sleep`, `files.csv_to_sql`, and, if switched on, `command.run`."""

from __future__ import annotations

import asyncio

from agent_stub.command_run import command_run
from agent_stub.csv_to_sql import csv_to_sql
from agent_stub.operations import Content, JobContext, OperationError, Operations, operation


@operation("echo", inline=True)
def echo(job: JobContext) -> Content:
    """Give the payload back as it came."""
    return Content(job.payload, job.content_type)


@operation("sleep")
async def sleep(job: JobContext) -> None:
    """Wait `{"seconds": x}`; ends at once when cancelled."""
    wish = job.json()
    seconds = wish.get("seconds") if isinstance(wish, dict) else None
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or seconds < 0:
        raise OperationError("sleep.bad_payload", 'the payload must be {"seconds": a number >= 0}')
    await asyncio.sleep(seconds)


def builtin_operations(*, with_commands: bool = False) -> Operations:
    """A new registry with the built-in operations; `command.run` only if it is asked for."""
    return Operations([echo, sleep, csv_to_sql, *([command_run] if with_commands else [])])
