"""The scenarios that come with the simulator: each answers one question, and is a file to begin with."""

from importlib.resources import files
from typing import Final

_FOLDER: Final = files("simulator") / "scenarios"


def names_and_titles() -> dict[str, str]:
    """Name and first line of each scenario of the library, by name."""
    found = sorted(entry.name for entry in _FOLDER.iterdir() if entry.name.endswith(".yaml"))
    return {
        name.removesuffix(".yaml"): text_of(name.removesuffix(".yaml")).split("\n")[0].lstrip("# ") for name in found
    }


def text_of(name: str) -> str:
    """The file of a scenario of the library."""
    return (_FOLDER / f"{name}.yaml").read_text("utf-8")
