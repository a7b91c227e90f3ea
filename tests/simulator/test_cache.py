"""Results on disk: whole or not at all, found again only for the same question and the same code."""

import json
import os
from pathlib import Path

import pytest

from simulator import cache
from simulator.cache import ResultCache, code_version, key_of

KEY = key_of("{}", {}, 1, 0)


def test_cache_keeps_every_bit_of_a_float(tmp_path: Path) -> None:
    results = ResultCache(tmp_path)
    results.put(KEY, {"p99": 0.1 + 0.2, "n": 3})
    assert results.get(KEY) == {"p99": 0.30000000000000004, "n": 3}
    assert results.get(key_of("{}", {}, 1, 1)) is None


@pytest.mark.parametrize("damage", ["", '{"p99": 0.', "[1]", "\x00\x01"])
def test_cache_counts_a_damaged_file_as_missing(tmp_path: Path, damage: str) -> None:
    results = ResultCache(tmp_path)
    results.put(KEY, {"p99": 1.0})
    (path,) = tmp_path.rglob("*.json")
    path.write_text(damage)
    assert results.get(KEY) is None
    results.put(KEY, {"p99": 2.0})
    assert results.get(KEY) == {"p99": 2.0}


def test_cache_leaves_nothing_half_written_when_it_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(document: object, file: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(json, "dump", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ResultCache(tmp_path).put(KEY, {"p99": 1.0})
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_cache_removes_the_oldest_when_it_is_full(tmp_path: Path) -> None:
    results = ResultCache(tmp_path, bytes_max=40)
    keys = [key_of("{}", {}, 1, number) for number in range(4)]
    for age, key in enumerate(keys):
        results.put(key, {"value": age})
        path = tmp_path / key[:2] / f"{key}.json"
        os.utime(path, (1000 + age, 1000 + age))
    assert results.prune() == 1
    assert [results.get(key) is not None for key in keys] == [False, True, True, True]
    assert results.prune() == 0


def test_key_depends_on_everything_that_decides_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {KEY, key_of("{ }", {}, 1, 0), key_of("{}", {"a": 1}, 1, 0), key_of("{}", {}, 2, 0), key_of("{}", {}, 1, 1)}
    assert len(keys) == 5
    assert key_of("{}", {"a": 1, "b": 2}, 1, 0) == key_of("{}", {"b": 2, "a": 1}, 1, 0)
    monkeypatch.setattr(cache, "code_version", lambda: "changed")
    assert key_of("{}", {}, 1, 0) != KEY


def test_code_version_reads_the_dispatcher_and_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = code_version()
    for left_out in range(len(cache.DECIDING)):
        code_version.cache_clear()
        monkeypatch.setattr(cache, "DECIDING", [row for at, row in enumerate(cache.DECIDING) if at != left_out])
        assert code_version() != whole
        monkeypatch.undo()
    code_version.cache_clear()
    assert code_version() == whole
