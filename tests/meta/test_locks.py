"""The locks: hashes for everything, no address, one version of uv."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.meta.check import ROOT

LOCKS = (ROOT / "requirements/dev.txt", ROOT / "requirements/uv.txt", ROOT / "requirements/ray.txt")


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
    dev, alone = (pins(lock) for lock in LOCKS[:2])

    assert alone == {"uv": dev["uv"]}


def test_development_holds_the_oldest_generator_and_what_runs_with_its_code() -> None:
    dev = pins(LOCKS[0])

    assert dev["grpcio-tools"][0].startswith("1.80.")
    assert dev["protobuf"][0].startswith("6.33.")


def test_ray_is_locked_beside_development_with_the_same_versions() -> None:
    dev, ray = pins(LOCKS[0]), pins(LOCKS[2])

    assert "ray" in ray
    assert "ray" not in dev
    assert {name: pin for name, (pin, _) in ray.items() if dev.get(name, (pin, 0))[0] != pin} == {}


def test_makefile_locks_every_extra_but_ray() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    locked = re.search(r"^EXTRAS := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert locked is not None
    assert set(locked[1].split()) == set(extras) - {"ray"}
