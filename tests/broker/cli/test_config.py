from __future__ import annotations

import json
from pathlib import Path

import pytest

from broker.cli import main
from broker.settings import MASK, Settings


def written(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["config", *arguments]) == 0
    return capsys.readouterr().out


def test_show_names_every_setting_with_its_value(capsys: pytest.CaptureFixture[str]) -> None:
    shown = json.loads(written(capsys, "show", "-o", "json"))
    defaults = Settings.load().model_dump(mode="json")
    for name, value in defaults.items():
        if not isinstance(value, dict):
            assert shown[name] == value
        for key, inner in value.items() if isinstance(value, dict) else ():
            assert shown[f"{name}.{key}"] == inner


def test_show_says_where_each_value_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "mesh.toml"
    config.write_text('log_level = "debug"\n[limits]\nwatchers_max = 7\n[operations."files.copy"]\nfailures_max = 2')
    monkeypatch.setenv("MESH_CONFIG", str(config))
    monkeypatch.setenv("MESH_LIMITS__WATCHERS_MAX", "8")
    monkeypatch.setenv("MESH_DISPATCH__PROFILE", "fast")
    lines = [line.split() for line in written(capsys, "show", "--origin", "--changed").splitlines()]
    came = {line[0]: (line[1], " ".join(line[2:])) for line in lines[1:]}
    assert came["log_level"] == ("debug", f"file {config}")
    assert came["limits.watchers_max"] == ("8", "environment MESH_LIMITS__WATCHERS_MAX")
    assert came['operations."files.copy".failures_max'] == ("2", f"file {config}")
    assert came["dispatch.lease_s"] == ("2.5", "profile fast")
    assert "mesh_listen" not in came


def test_show_masks_what_comes_from_a_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log_level").write_text("warning")
    arguments = ("show", "--origin", "--secrets-dir", str(tmp_path))
    for form in ("table", "json", "yaml"):
        shown = written(capsys, *arguments, "-o", form)
        assert "warning" not in shown
        assert MASK in shown
        assert "secret log_level" in shown


def test_show_without_anything_set_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--changed"]) == 0
    assert capsys.readouterr() == ("", "All settings are defaults.\n")


def test_misspelt_secret_is_refused_with_the_nearest_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dispach__lease_s").write_text("9")
    assert main(["config", "show", "--secrets-dir", str(tmp_path)]) == 2
    assert "did you mean dispatch__lease_s?" in capsys.readouterr().err


def test_check_takes_a_good_file_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MESH_DISPATCH__LEASE_S", "nonsense")
    config = tmp_path / "mesh.toml"
    config.write_text('log_level = "debug"\ndev = true\n[limits]\nwatchers_max = 7')
    assert main(["config", "check", str(config)]) == 0
    assert capsys.readouterr().err == f"{config} is good: 3 settings.\n"


def test_check_says_what_serve_needs_besides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "mesh.toml"
    config.write_text('log_level = "debug"')
    assert main(["config", "check", str(config)]) == 2
    assert "give `mesh serve` --dev too" in capsys.readouterr().err
    assert main(["config", "check", str(config), "--dev"]) == 0
    assert capsys.readouterr().err == f"{config} is good: 1 setting.\n"


def test_check_of_an_agents_file_says_who_looks_at_that(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "mesh-agent.toml"
    config.write_text('[agent]\nname = "a1"')
    assert main(["config", "check", str(config)]) == 2
    assert f"mesh-agent check --config {config}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[dispach]\nlease_s = 3", "did you mean dispatch?"),
        ("[dispatch]\nlease_s = 3", "suspect_s must be below lease_s"),
        ("not toml", "cannot be read"),
        ("log_level = 'loud'\napi_listen = 'here'", "'here' is not HOST:PORT"),
    ],
)
def test_check_says_all_that_is_wrong_and_ends_with_2(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "mesh.toml"
    config.write_text(text)
    assert main(["config", "check", str(config)]) == 2
    said = capsys.readouterr().err
    assert str(config) in said
    assert words in said


def test_check_of_a_file_that_is_not_there_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "/nowhere/mesh.toml"]) == 2
    assert "does not exist" in capsys.readouterr().err
