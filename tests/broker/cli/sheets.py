"""What commands showed, taken apart again."""

from __future__ import annotations

import re

from tests.broker.cli.conftest import Ended


def facts(ended: Ended) -> dict[str, str]:
    """A sheet by the names of its lines."""
    pairs = (line.split("  ", 1) for line in ended.lines)
    return {name: fact.strip() for name, fact in pairs}


def columns(ended: Ended, *heads: str) -> list[list[str]]:
    """These columns of a table, of which no cell has two spaces."""
    lines = [re.split(r"  +", line.strip()) for line in ended.lines]
    places = [lines[0].index(head) for head in heads]
    return [[line[place] for place in places] for line in lines[1:]]
