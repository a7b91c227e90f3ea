"""The language of the golden scenarios: commands in the first column, what they led to indented below.

A file opens with comments that say which rule it shows. A command is a method of `GroupBench` with its arguments in
words: `submit j1 j2 exclusive=true`. Below it stand the effects in the order in which a driver carries them out:

    wrote  the end of an attempt, or a transition that is not columns of the job already
    reply  to the submitter or operator
    send   to an agent
    heard  by metrics and history

That a job runs is written and heard with the next commit, so it stands below a later command or time.
`+2 s` says how much time has passed since the command when what follows happened. `show` prints where all jobs and
agents stand. `pytest --rewrite-scenarios` writes the indented lines anew; read the difference before you keep it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from typing import Any, Final

from broker.dispatch.messages import Effects
from broker.dispatch.model import SECOND_US, Admin, Phase
from tests.broker.dispatch import words
from tests.broker.dispatch.bench import GroupBench

INDENT: Final = "    "
COMMANDS: Final = frozenset(
    {
        *("accept", "add", "advance", "agents", "cancel", "capacity", "close", "connect", "fail", "fenced", "finish"),
        *("leave", "lose", "mute", "progress", "reject", "restart", "stall", "start", "stopped", "submit"),
        *("submit_together", "unmute", "cancel_drain", "disable", "drain", "enable", "leaving", "remove", "resolve"),
        *("resume", "rank", "label", "configure", "remove_group"),
    }
)
_LISTS: Final = frozenset({"held", "finished", "outcomes", "operations", "labels"})


def told_again(text: str) -> str:
    """The scenario with the indented lines that its commands lead to now. Raises on a broken invariant."""
    bench: GroupBench | None = None
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith((" ", "\t")):
            continue
        lines.append(line)
        if not line or line.startswith("#"):
            continue
        name, *words_of = shlex.split(line)
        if name == "group":
            assert bench is None, "`group` is the first command or missing"
            bench = GroupBench(**_fields(words_of))
            continue
        bench = bench or GroupBench()
        lines += [INDENT + one for one in _told(bench, name, words_of)]
    if bench is not None:
        bench.check_run()
    return "\n".join(lines).rstrip("\n") + "\n"


def _told(bench: GroupBench, name: str, arguments: list[str]) -> Iterator[str]:
    if name == "show":
        yield from _stand(bench)
        return
    assert name in COMMANDS, f"unknown command {name!r}"
    plain = [_value(one) for one in arguments if "=" not in one]
    start_us, seen = bench.now_us, len(bench.history)
    getattr(bench, name)(*plain, **_fields(arguments))
    passed_us = 0
    for at_us, effects in bench.history[seen:]:
        lines = list(_effects(bench, effects))
        if lines and at_us - start_us != passed_us:
            passed_us = at_us - start_us
            yield f"+{passed_us / SECOND_US:g} s"
        yield from lines


def _fields(arguments: Iterable[str]) -> dict[str, Any]:
    pairs = (one.split("=", 1) for one in arguments if "=" in one)
    return {key: tuple(value.split(",")) if key in _LISTS else _value(value) for key, value in pairs}


def _value(text: str) -> Any:
    if text in {"true", "false"}:
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _effects(bench: GroupBench, effects: Effects) -> Iterator[str]:
    for attempt in effects.writes.attempts:
        yield f"wrote attempt {bench.name(attempt.job_key)}#{attempt.attempt}: {attempt.ending}"
    for row in effects.writes.transitions:
        yield f"wrote {bench.name(row.job_key)} {row.from_state} -> {row.to_state} ({row.reason})"
    yield from (f"reply {line}" for line in words.replies(bench, effects))
    yield from (f"send  {line}" for line in words.sends(bench, effects))
    yield from (f"heard {line}" for line in words.notices(bench, effects))


def _stand(bench: GroupBench) -> Iterator[str]:
    live = bench.dispatcher.ledger.jobs
    for name, key in bench.job_names.items():
        row = bench.row(name)
        if key not in live:
            code = f": {row.code}" if row.code else ""
            yield f"{name} {row.state}{code}"
            continue
        job = live[key]
        where = f", attempt {job.attempt} {job.phase} on {bench.agent_name(job.agent)}"
        counted = "".join(
            f", {count} {what}"
            for count, what in ((job.failures, "failed"), (job.crashes, "crashed"), (job.bounces, "bounced"))
            if count
        )
        counted += ", suspect" if job.is_suspect else ""
        yield f"{name} {job.state}{where if job.phase is not Phase.NONE else ''}{counted}"
    for name, number in bench.agent_names.items():
        if number not in bench.dispatcher.ledger.agents:
            yield f"agent {name} is forgotten"
            continue
        agent = bench.agent(name)
        admin = "" if agent.admin is Admin.ENABLED else f", {agent.admin}"
        marks = [word for word, is_so in (("busy", agent.is_busy), ("deaf", agent.is_deaf)) if is_so]
        detached = f", {len(agent.detached)} detached" if agent.detached else ""
        yield f"agent {' '.join([name, agent.link, *marks])}: {agent.held} of {agent.capacity}{detached}{admin}"
