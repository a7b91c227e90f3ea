"""`make check`: every tool that judges the sources, one table, one JSON object.

    python -m tests.meta.check [--json] [--only NAME ...]

Words go to stderr; with `--json` the result goes to stdout (docs/schemas/check.json). Exit 0 when every tool passes,
no import contract has an exception and there are at most 20 `type: ignore` comments outside generated code; else 1.

`MESH_SABOTAGE=<name>` breaks a copy of the tree in one place and checks the copy: each tool has a breakage that must
turn it red (`tests/meta/sabotage.py`), so a tool that has stopped looking is noticed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import sysconfig
import time
import tokenize
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from tests.meta import sabotage
from tests.meta.contracts import exceptions

ROOT = Path(__file__).resolve().parents[2]
TYPE_IGNORES_MAX = 20
TYPED = (
    *("broker", "agent_stub", "mesh_client", "simulator", "command_line", "protos", "grafana", "tests", "bench"),
    "compiled",
)


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that judges a tree: the distribution it comes from and its arguments after the interpreter's folder."""

    name: str
    distribution: str
    command: tuple[str, ...]


TOOLS = (
    Tool("format", "ruff", ("ruff", "format", "--check", ".")),
    Tool("lint", "ruff", ("ruff", "check", ".")),
    Tool("imports", "import-linter", ("lint-imports", "--no-logo")),
    Tool("generated", "grpcio-tools", ("python", "-m", "protos.generate", "--check")),
    Tool("contract", "buf-bin", ("python", "-m", "protos.generate", "--lint")),
    Tool("types", "mypy", ("mypy",)),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one tool said; `seconds` is wall time."""

    name: str
    version: str
    ok: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a run, in the form of docs/schemas/check.json."""

    tools: list[Verdict]
    type_ignores: int
    lint_ignores: int
    import_exceptions: int
    generated_drift: bool

    @property
    def is_ok(self) -> bool:
        """Whether the gate is open."""
        return (
            all(tool.ok for tool in self.tools)
            and self.type_ignores <= TYPE_IGNORES_MAX
            and self.import_exceptions == 0
            and not self.generated_drift
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(argv)
    with _tree(os.environ.get("MESH_SABOTAGE", "")) as root:
        report = check(root, options.only)
    _say(_table(report))
    if options.json:
        print(json.dumps(asdict(report)))
    return 0 if report.is_ok else 1


def check(root: Path, only: Sequence[str] = ()) -> Report:
    """Judge the tree at `root` with all tools, or with those named in `only`; failing tools are quoted on stderr."""
    verdicts = [_run(tool, root) for tool in TOOLS if not only or tool.name in only]
    ignores = list(_comments(root))
    return Report(
        tools=verdicts,
        type_ignores=sum("type: ignore" in comment for comment in ignores),
        lint_ignores=sum("noqa" in comment for comment in ignores),
        import_exceptions=exceptions(tomllib.loads((root / "pyproject.toml").read_text())),
        generated_drift=any(verdict.name == "generated" and not verdict.ok for verdict in verdicts),
    )


def sources(root: Path) -> Iterator[Path]:
    """The Python files of the tree that people write."""
    for package in TYPED:
        for path in sorted((root / package).rglob("*.py")):
            if not path.stem.endswith(("_pb2", "_pb2_grpc")):
                yield path


@contextlib.contextmanager
def _tree(name: str) -> Iterator[Path]:
    if not name:
        yield ROOT
        return
    _say(f"check: sabotage {name!r} in a copy of the tree")
    with sabotage.broken_copy(ROOT, name) as copy:
        yield copy


def _run(tool: Tool, root: Path) -> Verdict:
    program, *arguments = tool.command
    if tool.name == "types":
        arguments += [package for package in TYPED if (root / package).is_dir()]
    started_s = time.monotonic()
    done = subprocess.run(
        [Path(sysconfig.get_path("scripts"), program), *arguments],
        cwd=root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = round(time.monotonic() - started_s, 2)
    if done.returncode:
        _say(f"--- {tool.name}: {' '.join(tool.command)}\n{done.stdout}{done.stderr}")
    return Verdict(tool.name, metadata.version(tool.distribution), done.returncode == 0, seconds)


def _comments(root: Path) -> Iterator[str]:
    for path in sources(root):
        for token in tokenize.tokenize(io.BytesIO(path.read_bytes()).readline):
            if token.type == tokenize.COMMENT:
                yield token.string


def _table(report: Report) -> str:
    rows = [
        f"{'ok' if tool.ok else 'FAILED':7}{tool.name:11}{tool.version:9}{tool.seconds:7.1f} s" for tool in report.tools
    ]
    rows.append(f"type ignores {report.type_ignores} (at most {TYPE_IGNORES_MAX}), lint ignores {report.lint_ignores}")
    rows.append(f"import exceptions {report.import_exceptions} (none allowed)")
    rows += [f"not there yet, not checked: {package}/" for package in TYPED if not (ROOT / package).is_dir()]
    rows.append("check: passed" if report.is_ok else "check: FAILED")
    return "\n".join(rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make check", description="Judge the sources with every tool.")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object on stdout")
    parser.add_argument("--only", action="append", default=[], choices=[tool.name for tool in TOOLS], metavar="NAME")
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
