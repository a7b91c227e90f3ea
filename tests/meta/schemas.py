"""The schemas of docs/schemas, for tests that look at what a command printed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema

FOLDER = Path(__file__).resolve().parents[2] / "docs/schemas"


def schema(name: str) -> dict[str, Any]:
    """The schema `docs/schemas/<name>.json`."""
    loaded: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return loaded


def validate(name: str, document: object) -> None:
    """Hold `document` against the schema `name`, and against the rule that results carry no path and no host name.

    Raises:
        AssertionError: all that is wrong, with the place of each in the document.
    """
    errors = [
        f"{error.json_path}: {error.message}"
        for error in jsonschema.Draft202012Validator(schema(name)).iter_errors(document)
    ]
    private = re.compile(rf"^/|{re.escape(str(Path.home()))}|\b{re.escape(os.uname().nodename)}\b")
    errors += [f"{text!r} names a path or this machine" for text in _texts(document) if private.search(text)]
    assert not errors, "\n".join(errors)


def _texts(document: object) -> Iterator[str]:
    if isinstance(document, str):
        yield document
    elif isinstance(document, dict):
        for key, value in document.items():
            yield from _texts(key)
            yield from _texts(value)
    elif isinstance(document, list):
        for value in document:
            yield from _texts(value)
