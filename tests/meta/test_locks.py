"""The locks: hashes for everything, no address, one version of uv."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.meta.check import ROOT

LOCKS = (ROOT / "requirements/dev.txt", ROOT / "requirements/uv.txt")


def pins(path: Path) -> dict[str, tuple[str, int]]:
    """Version and number of hashes by distribution."""
    blocks = re.split(r"^(?=[A-Za-z0-9])", path.read_text(), flags=re.MULTILINE)[1:]
    found = {}
    for block in blocks:
        pin = re.match(r"([A-Za-z0-9._-]+)==([^ ;\\]+)", block)
        assert pin is not None, f"not pinned: {block.splitlines()[0]}"
        found[pin[1]] = (pin[2], block.count("--hash=sha256:"))
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_lock_pins_every_distribution_with_a_hash(lock: Path) -> None:
    assert pins(lock)
    assert [name for name, (_, hashes) in pins(lock).items() if hashes == 0] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_lock_names_no_address(lock: Path) -> None:
    assert re.findall(r"\w+://|--(?:extra-)?index|--find-links|--trusted", lock.read_text()) == []


def test_uv_is_the_same_in_both_locks() -> None:
    dev, alone = (pins(lock) for lock in LOCKS)

    assert alone == {"uv": dev["uv"]}


def test_development_holds_the_oldest_generator_and_what_runs_with_its_code() -> None:
    dev = pins(LOCKS[0])

    assert dev["grpcio-tools"][0].startswith("1.80.")
    assert dev["protobuf"][0].startswith("6.33.")
