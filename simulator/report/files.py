"""Answers into the files that were asked for; what cannot be written is refused before anything is computed."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from broker.errors import ConfigError
from simulator.options import Files
from simulator.report.rows import FileError, check_extra, rows_of, write_csv, write_parquet


def refuse_files(files: Files, *more: Path | None) -> None:
    """Look whether all of them could be written.

    Raises:
        MissingExtraError: a kind of file needs packages that are missing.
        FileError: the folder of a file is not there.
    """
    for kind, path in (("parquet", files.parquet), ("html", files.html)):
        if path is not None:
            check_extra(kind)
    for path in (files.html, files.csv, files.parquet, *more):
        if path is not None and not path.absolute().parent.is_dir():
            raise FileError(f"{path}: cannot be written: there is no folder {path.parent}")


def write_files(document: Mapping[str, Any], files: Files) -> None:
    """Write an answer. Raises FileError."""
    if files.csv is not None:
        write_csv(rows_of(document), files.csv)
    if files.parquet is not None:
        write_parquet(rows_of(document), files.parquet)
    if files.html is not None:
        from simulator.report.page import page_of

        write_lines([page_of([document])], files.html)


class ResultError(ConfigError):
    """A file that holds no answer; the text says which and what it should be."""

    reason = "NOT_AN_ANSWER"


def report(results: Sequence[Path], files: Files) -> Files:
    """Make files of answers that were kept as JSON; a page beside the first one when no other file is asked for.

    Several answers share one page, each a section of it; tables hold one.

    Raises:
        ResultError: a file cannot be read, or holds no answer; or several are to become one table.
        MissingExtraError, FileError: as `refuse_files`.
    """
    if files == Files():
        files = Files(html=results[0].with_suffix(".html"))
    refuse_files(files)
    documents = [_read(path) for path in results]
    if len(documents) > 1 and (files.csv or files.parquet):
        raise ResultError("--csv and --parquet hold one answer; give them one")
    try:
        write_files(documents[0], replace(files, html=None))
    except KeyError as error:
        raise ResultError(f"{results[0]}: there are no rows in an answer of this kind") from error
    if files.html is not None:
        from simulator.report.page import page_of

        write_lines([page_of(documents)], files.html)
    return files


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ResultError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ResultError(f"{path}: is not JSON: {error}; give what a command prints with --json") from error
    if not isinstance(document, dict):
        raise ResultError(f"{path}: is not one JSON object; give what a command prints with --json")
    return document


def write_lines(lines: Iterable[str], path: Path) -> None:
    """Write text, a line each. Raises FileError."""
    try:
        with path.open("w", encoding="utf-8") as stream:
            stream.writelines(f"{line}\n" for line in lines)
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror}") from error
