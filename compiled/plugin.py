"""For pytest (`-p compiled.plugin`): the tests run on the copy. Refuses to let them run on anything else."""

import importlib
from importlib.machinery import EXTENSION_SUFFIXES

import pytest

from compiled.modules import MODULES

# Their packages are in `sys.modules` before pytest puts the tree in front: all that is below them comes from the copy.
_FILES = [str(importlib.import_module(name[: -len(".py")].replace("/", ".")).__file__) for name in MODULES]


def pytest_configure(config: pytest.Config) -> None:
    """Look at what was loaded. Raises UsageError."""
    for file in _FILES:
        if not file.endswith(tuple(EXTENSION_SUFFIXES)):
            raise pytest.UsageError(f"{file} is not compiled: run pytest by build/compiled/python")
