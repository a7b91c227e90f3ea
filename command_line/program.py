"""How a program is run from its words: what it cannot use is answered with the reason and the next step."""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Final

from cyclopts import App, CycloptsError

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2


class UsageError(Exception):
    """What was asked for makes no sense, or cannot be done here. The text says why and what to do."""


def run(app: App, words: Sequence[str], texts: Iterable[str] = ()) -> int:
    """Run the command that `words` name; the exit code, 2 for words that it cannot use, 1 when its output is not read.

    `texts` are what it takes from elsewhere, as from the environment. Raises what else the command raises.
    """
    try:
        _check_text(words)
        _check_text(texts)
        result = app(words, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        sys.stderr.write(f"{app.name[0]}: {error}\nTry: {_help_for(app, words)}\n")
        return EXIT_USAGE
    except UsageError as error:
        sys.stderr.write(f"{app.name[0]}: {error}\n")
        return EXIT_USAGE
    except BrokenPipeError:
        # Whoever read the output has seen enough; the interpreter must not try to flush it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    return result if isinstance(result, int) else EXIT_OK


def _check_text(words: Iterable[str]) -> None:
    """Bytes that are no UTF-8 come as lone surrogates, which neither the wire nor a terminal takes."""
    for word in words:
        if not word.isascii() and any("\ud800" <= letter <= "\udfff" for letter in word):
            raise UsageError(f"{word.encode(errors='backslashreplace').decode()}: is no text in UTF-8")


def _help_for(app: App, words: Sequence[str]) -> str:
    """The help of the command that was meant, as far as it exists."""
    commands, _, _ = app.parse_commands(words)
    return " ".join([app.name[0], *commands, "--help"])
