"""No command answers with a traceback, whatever stands behind whichever of its options."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_stub.cli import app, main
from tests.odd import ODD, Command, commands

MORE = {
    # An operation that is not there: no agent comes to life, whatever else is said.
    "run": ["--dev", "--operations=no.such.module"],
    "stop": ["--dev"],
    "paths": ["--dev"],
}


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("HOME", "XDG_STATE_HOME", "TMPDIR"):
        monkeypatch.setenv(variable, str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("command", list(commands(app)), ids=lambda command: "-".join(command.path))
def test_command_refuses_in_words_when_a_value_is_odd(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    bad: list[tuple[list[str], object]] = []
    good = {0, 2, 5, 6} | ({1} if command.path == ("check",) else set())  # it says on stdout what is not met
    for line in command.lines({}, len(ODD)):
        asked = [*line, *(word for word in MORE.get(command.path[0], []) if word.partition("=")[0] not in line[-1])]
        capsys.readouterr()
        try:
            code = main(asked)
        except Exception as error:  # noqa: BLE001 - what is looked for
            bad.append((asked, error))
            continue
        if code not in good or (code and not any(capsys.readouterr())):
            bad.append((asked, code))
    assert bad == []


@pytest.mark.parametrize("command", ["run", "stop"])
@pytest.mark.parametrize("state", ["/proc/no/such", "a" * 5_000, "mine", "mine/state"])
def test_folder_that_nobody_can_have_is_refused(
    command: str, state: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("a file")
    code = main([command, "--dev", f"--state={state}"])
    assert (code, state == "/proc/no/such" and command == "stop") in ((2, False), (0, True))
    assert capsys.readouterr().err.startswith("mesh-agent: ")
