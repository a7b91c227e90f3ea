from __future__ import annotations

import io
import sys

import pytest

from broker.cli.confirm import confirm, counted, losses
from broker.cli.exits import EXIT_FAILED, EXIT_USAGE, CommandError
from mesh_client import Removal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("answer", ["y\n", "YES \n"])
def test_yes_goes_on(answer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    confirm("Remove \x1b[31m for good?")
    written = capsys.readouterr()
    assert (written.out, written.err) == ("", "Remove \\x1b[31m for good? [y/N] ")


@pytest.mark.parametrize("answer", ["n\n", "\n", "", "yep\n"])
def test_everything_else_ends(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    with pytest.raises(CommandError) as caught:
        confirm("Remove it?")
    assert caught.value.exit_code == EXIT_FAILED


def test_nobody_is_asked_where_there_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(CommandError, match=r"Remove it\? Say so with --yes") as caught:
        confirm("Remove it?")
    assert caught.value.exit_code == EXIT_USAGE
    confirm("Remove it?", is_sure=True)


@pytest.mark.req("R17")
def test_losses_are_counted_and_named_as_far_as_a_person_reads() -> None:
    assert losses(Removal()) == "It has nothing."
    one = Removal(groups=("g",), environments=("e",), agents=("g/a",), jobs=1)
    assert losses(one) == (
        "1 group goes with it: g. 1 environment goes with it: e. 1 agent goes with it: g/a. 1 live job is cancelled."
    )
    many = losses(Removal(agents=tuple(f"g/a{number}" for number in range(1_012)), jobs=20_000))
    assert many.startswith("1,012 agents go with it: g/a0, g/a1,")
    assert many.endswith(", g/a9 and 1002 more. 20,000 live jobs are cancelled.")
    assert counted(1, "agent") == "1 agent"
