"""Asking before something goes for good."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from broker.cli.exits import EXIT_FAILED, CommandError, UsageError
from broker.cli.output import shown

if TYPE_CHECKING:
    from mesh_client import Removal

NAMED_MAX: Final = 10
"""So many are named before the rest is a number."""


def confirm(question: str, *, is_sure: bool = False) -> None:
    """Go on only if the person says so. Raises UsageError where there is nobody to ask, CommandError for a no."""
    if is_sure:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Say so with --yes.")
    print(f"{shown(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError("Nothing was changed.", EXIT_FAILED)


def losses(gone: Removal) -> str:
    """What goes with something, in sentences: "1 agent goes with it: default/a1. 7 live jobs are cancelled."."""
    words = [
        _named(gone.groups, "group", "goes", "go"),
        _named(gone.environments, "environment", "goes", "go"),
        _named(gone.agents, "agent", "goes", "go"),
        f"{counted(gone.jobs, 'live job')} {'is' if gone.jobs == 1 else 'are'} cancelled." if gone.jobs else "",
    ]
    return " ".join(filter(None, words)) or "It has nothing."


def _named(names: Sequence[str], noun: str, one: str, many: str) -> str:
    if not names:
        return ""
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    verb = one if len(names) == 1 else many
    return f"{counted(len(names), noun)} {verb} with it: {', '.join(names[:NAMED_MAX])}{more}."


def counted(number: int, noun: str) -> str:
    """`1 agent`, `2 agents`."""
    return f"1 {noun}" if number == 1 else f"{number:,} {noun}s"
