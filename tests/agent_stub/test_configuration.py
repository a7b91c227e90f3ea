from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent_stub.configuration import KEYS, TEMPLATE, Configuration, load
from agent_stub.settings import SettingsError

FULL = """
[agent]
organization = "acme"
group = "plant"
name = "a1"
broker = "127.0.0.1:9000"
dev = true
slots = 8
prefetch = 2
modules = ["mine", "more:registry"]

[labels]
zone = "a"

[variables]
database = "/srv/a.sqlite"

[folders]
state = "state"
temporary = "/var/tmp/mesh"

[spool]
bytes_max = 33554432
leave_s = 3

[log]
level = "debug"
files = true
agent_days = 3

[operations."files.csv_to_sql"]
enabled = false
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "mesh-agent.toml"
    file.write_text(text)
    return file


def test_file_says_all_that_an_agent_is_told(tmp_path: Path) -> None:
    configuration = load(written(tmp_path, FULL), environment={})
    settings = configuration.settings
    assert settings.dev_identity == "acme/plant/a1"
    assert (settings.broker, settings.slots, settings.prefetch) == ("127.0.0.1:9000", 8, 2)
    assert settings.labels == {"zone": "a"}
    assert settings.variables == {"database": "/srv/a.sqlite"}
    assert (settings.spool_bytes_max, settings.spool_leave_s) == (33_554_432, 3)
    assert settings.spool == tmp_path / "state" / "acme.plant.a1" / "spool"
    assert str(configuration.folders.temporary).startswith("/var/tmp/mesh/acme.plant.a1-")
    assert configuration.modules == ["mine", "more:registry"]
    assert configuration.import_folders[0] == tmp_path
    assert (configuration.log_level, configuration.log_days) == ("debug", {"agent": 3, "operations": 7})
    assert configuration.log_folder == tmp_path / "state" / "acme.plant.a1" / "logs"
    assert not configuration.is_enabled("files.csv_to_sql", default=True)
    assert configuration.is_enabled("echo", default=True)


def test_values_of_variables_are_not_in_the_text_of_the_settings(tmp_path: Path) -> None:
    assert "/srv/a.sqlite" not in repr(load(written(tmp_path, FULL), environment={}).settings)


def test_flag_wins_over_environment_over_file_over_default(tmp_path: Path) -> None:
    file = written(tmp_path, '[agent]\ndev = true\nslots = 2\nprefetch = 1\nname = "a1"\n')
    environment = {"MESH_AGENT_SLOTS": "3", "MESH_AGENT_PREFETCH": "2"}
    settings = load(file, {"agent.slots": 5, "agent.name": None}, environment).settings
    assert (settings.slots, settings.prefetch, settings.agent, settings.group) == (5, 2, "a1", "default")


def test_environment_reaches_every_section_and_type() -> None:
    environment = {
        "MESH_AGENT_DEV": "true",
        "MESH_AGENT_MODULES": "mine, more:registry",
        "MESH_AGENT_SPOOL__LEAVE_S": "2.5",
        "MESH_AGENT_VARIABLES__DATABASE": "/srv/b",
        "MESH_AGENT_LABELS__ZONE": "b",
        "MESH_AGENT_LOG__FILES": "0",
        "PATH": "/bin",
    }
    configuration = load(environment=environment)
    assert configuration.modules == ["mine", "more:registry"]
    assert configuration.settings.spool_leave_s == 2.5
    assert configuration.settings.variables == {"database": "/srv/b"}
    assert configuration.settings.labels == {"zone": "b"}
    assert configuration.log_folder is None


def test_file_is_the_named_one_then_that_of_the_environment_then_the_one_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(environment={}).file is None
    here = written(tmp_path, "[agent]\n")
    other, third = tmp_path / "other.toml", tmp_path / "third.toml"
    other.write_text("")
    third.write_text("")
    assert load(environment={}).file == here
    assert load(environment={"MESH_AGENT_CONFIG": str(other)}).file == other
    assert load(Path("third.toml"), environment={"MESH_AGENT_CONFIG": str(other)}).file == third


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[agent]\nslot = 4\n", r"no key slot in \[agent\]; did you mean slots\?"),
        ("[agnt]\n", r"no section \[agnt\]; did you mean agent\?"),
        ("slots = 4\n", "slots stands in no section; did you mean slots"),
        ('[agent]\nslots = "4"\n', "slots = '4': not of the type int"),
        ("[agent]\nslots = true\n", "not of the type int"),
        ("[agent]\nmodules = [1]\n", "not of the type list"),
        ("[variables]\nport = 5432\n", "the value must be text"),
        ('[variables]\nPort = "1"\n', "lower-case"),
        ("[operations]\necho = false\n", r'write a section, \[operations\."echo"\]'),
        ('[operations."echo"]\nenabled = "no"\n', "true or false"),
        ("[log]\nagent_days = 15\n", "1 to 14"),
        ('[operations."echo"]\nsince = 2026-01-01\n', "dates and times as text"),
        ("[agent\n", "is no TOML"),
    ],
)
def test_file_that_is_wrong_is_refused_with_what_is_meant(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load(written(tmp_path, text), environment={})


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"MESH_AGENT_SLOT": "4"}, "did you mean slots"),
        ({"MESH_AGENT_SPOL__BYTES_MAX": "4"}, "did you mean spool"),
        ({"MESH_AGENT_SLOTS": "many"}, "MESH_AGENT_SLOTS=many: not of the type int"),
        ({"MESH_AGENT_DEV": "perhaps"}, "not of the type bool"),
    ],
)
def test_environment_that_is_wrong_is_refused(environment: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load(environment=environment)


def test_file_that_is_named_and_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="mesh-agent init"):
        load(tmp_path / "missing.toml", environment={})


def _uncommented() -> str:
    """The template with every setting switched on that is only shown."""
    lines = []
    for line in TEMPLATE.format(name='"a1"', broker='"127.0.0.1:7401"').splitlines():
        bare = line.removeprefix("# ")
        lines.append(bare if line.startswith("# ") and (" = " in bare or bare.startswith("[")) else line)
    return "\n".join(lines)


@pytest.mark.parametrize("is_whole", [False, True])
def test_template_is_a_configuration_as_it_is_and_with_all_that_it_shows(tmp_path: Path, is_whole: bool) -> None:
    text = _uncommented() if is_whole else TEMPLATE.format(name='"a1"', broker='"127.0.0.1:7401"')
    configuration = load(written(tmp_path, text), environment={})
    assert configuration.settings.agent == "a1"
    if is_whole:
        assert missing_keys(configuration) == []


def missing_keys(configuration: Configuration) -> list[str]:
    tables: dict[str, dict[str, Any]] = configuration.tables
    return [f"{section}.{key}" for section, keys in KEYS.items() for key in keys if key not in tables[section]]
