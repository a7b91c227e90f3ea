from __future__ import annotations

from pathlib import Path

import pytest

from broker import sources
from broker.errors import ConfigError


def test_environment_names_paths_by_double_underscores_and_passes_over_what_is_empty() -> None:
    variables = {"MESH_DATA_DIR": "x", "MESH_DISPATCH__LEASE_S": "12", "MESH_API_LISTEN": "", "OTHER": "1"}
    said = sources.environment(variables, "MESH_")
    assert {path: (one.value, one.origin) for path, one in said.items()} == {
        ("data_dir",): ("x", "environment MESH_DATA_DIR"),
        ("dispatch", "lease_s"): ("12", "environment MESH_DISPATCH__LEASE_S"),
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": {"b": 1}, "c": [2]}', {("t", "a", "b"): 1, ("t", "c"): [2]}),
        ("[1, 2]", {("t",): [1, 2]}),
        ("{not json", {("t",): "{not json"}),
        ("plain", {("t",): "plain"}),
    ],
)
def test_table_may_be_given_as_json_in_one_variable(text: str, expected: dict[tuple[str, ...], object]) -> None:
    said = sources.environment({"MESH_T": text}, "MESH_")
    assert {path: one.value for path, one in said.items()} == expected


def test_secrets_are_files_without_their_last_line_end_and_hidden_ones_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "store__password").write_text("p w\n")
    (tmp_path / "..data").mkdir()
    (tmp_path / ".hidden").write_text("x")
    said = sources.secrets(tmp_path)
    assert {path: (one.value, one.origin) for path, one in said.items()} == {
        ("store", "password"): ("p w", "secret store__password")
    }


def test_secret_that_is_no_text_is_refused_without_being_quoted(tmp_path: Path) -> None:
    (tmp_path / "store__password").write_bytes(b"\xff\xfehush")
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        sources.secrets(tmp_path)
    assert "hush" not in caught.value.text


def test_first_source_wins_path_by_path() -> None:
    first = sources.flags({"a": {"x": 1}})
    second = sources.environment({"P_A__X": "2", "P_A__Y": "3"}, "P_")
    said = sources.joined(first, second)
    assert sources.nested(said) == {"a": {"x": 1, "y": "3"}}
    assert said["a", "x"].origin == "flag"


def test_value_where_another_source_has_a_table_is_refused_and_both_are_named() -> None:
    given = sources.environment({"P_A": "1"}, "P_"), sources.flags({"a": {"x": 1}})
    with pytest.raises(ConfigError, match="a: environment P_A gives a value, flag a table"):
        sources.joined(*given)


def test_empty_table_is_no_value(tmp_path: Path) -> None:
    file = tmp_path / "mesh.toml"
    file.write_text("[a]\n[b]\n")
    said = sources.joined(sources.environment({"P_A__X": "1"}, "P_"), sources.toml(file))
    assert sources.nested(said) == {"a": {"x": "1"}, "b": {}}
