from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from broker.dispatch.model import DispatchPolicy, OperationPolicy, Placing, Spread
from broker.errors import ConfigError
from broker.settings import FAST_PROFILE, DispatchSettings, Settings, is_loopback


def toml(folder: Path, text: str) -> Path:
    path = folder / "mesh.toml"
    path.write_text(text)
    return path


def refused(**flags: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        Settings.load(flags)
    return caught.value.text


# --- sources --------------------------------------------------------------------------------------------------------


def test_settings_without_any_source_are_the_defaults() -> None:
    settings = Settings.load()
    assert (settings.mesh_listen, settings.api_listen, settings.metrics_listen) == (
        "127.0.0.1:7401",
        "127.0.0.1:7402",
        "127.0.0.1:7403",
    )
    assert settings.dispatch.policy() == DispatchPolicy()
    assert settings.dispatch.operation_policy() == OperationPolicy()
    assert settings.store.synchronous == "FULL"


def test_settings_take_the_first_source_that_names_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("mailbox_control", "mailbox_reports", "mailbox_submissions", "watch_queue_max")
    config = toml(tmp_path, "[limits]\n" + "".join(f"{name} = 10001\n" for name in names))
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name in names[:3]:
        (secrets / f"limits__{name}").write_text("10002")
    for name in names[:2]:
        monkeypatch.setenv(f"MESH_LIMITS__{name.upper()}", "10003")
    limits = Settings.load({"limits": {"mailbox_control": 10_004}}, config=config, secrets_dir=secrets).limits
    assert [getattr(limits, name) for name in names] == [10_004, 10_003, 10_002, 10_001]


def test_settings_load_the_same_key_of_a_section_from_several_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESH_DISPATCH__LEASE_S", "12")
    settings = Settings.load(
        {"dispatch": {"margin_s": 3.0}}, config=toml(tmp_path, "[dispatch]\nrecovery_grace_s = 40")
    )
    dispatch = settings.dispatch
    assert (dispatch.lease_s, dispatch.margin_s, dispatch.recovery_grace_s) == (12.0, 3.0, 40.0)


@pytest.mark.parametrize("variable", ["MESH_API", "MESH_ORGANIZATION", "MESH_SABOTAGE", "OTHER_LEASE_S"])
def test_settings_leave_variables_of_other_programs_alone(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = Settings.load().model_dump()
    monkeypatch.setenv(variable, "something")
    assert Settings.load().model_dump() == defaults


def test_settings_ignore_a_variable_that_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_API_LISTEN", "")
    assert Settings.load().api_listen == "127.0.0.1:7402"


# --- what is wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"data_dirr": "x"}, "data_dirr: there is no such setting; did you mean data_dir?"),
        ({"store": {"synchronus": "FULL"}}, "did you mean store.synchronous?"),
        ({"limits": {"frame_byte_max": 9_000}}, "did you mean limits.frame_bytes_max?"),
        ({"dispatch": {"leese_s": 9}}, "did you mean dispatch.lease_s?"),
    ],
)
def test_unknown_key_names_the_nearest_one(flags: dict[str, Any], words: str) -> None:
    assert words in refused(**flags)


def test_unknown_key_that_is_like_none_has_no_suggestion() -> None:
    assert refused(zzzzqqqq=1) == "zzzzqqqq: there is no such setting"


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("MESH_DISPATCH__LEESE_S", "did you mean dispatch.lease_s?"),
        ("MESH_DISPACH__LEASE_S", "did you mean MESH_DISPATCH__LEASE_S?"),
        ("MESH_MESH_LISTN", "did you mean MESH_MESH_LISTEN?"),
        ("MESH_QQQQ__ZZZZ", "there is no setting 'qqqq'"),
    ],
)
def test_misspelt_variable_names_the_nearest_one(variable: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "3")
    assert words in refused()


def test_unknown_key_in_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"did you mean store\.synchronous\?"):
        Settings.load(config=toml(tmp_path, '[store]\nsynchronos = "FULL"'))


def test_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mesh\.toml cannot be read: .*line 1"):
        Settings.load(config=toml(tmp_path, "this is not toml"))
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        Settings.load(config=tmp_path)


@pytest.mark.parametrize("source", ["config", "secrets_dir"])
def test_source_that_does_not_exist_is_refused(source: str, tmp_path: Path) -> None:
    load: Callable[..., Settings] = Settings.load
    with pytest.raises(ConfigError, match=f"{tmp_path}/nothing does not exist"):
        load(**{source: tmp_path / "nothing"})


def test_every_wrong_key_is_named_with_its_value() -> None:
    words = refused(store={"synchronous": "OFF"}, limits={"batch_control": 0}, log_level="loud").splitlines()
    assert [line.partition(":")[0] for line in words] == [
        "log_level = 'loud'",
        "store.synchronous = 'OFF'",
        "limits.batch_control = 0",
    ]


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("store__synchronous", "hunter-2", "store.synchronous = ********: Input should be"),
        ("limits__batch_control", "-90210", "limits.batch_control = ********: Input should be greater"),
        ("operations", '{"x": {"running_max": "hunter-2"}}', "operations.x.running_max = ********"),
        ("limits", "hunter-2", "limits = ********"),
        ("api_listen", "hunter-2", "api_listen: '********' is not HOST:PORT"),
        ("api_listen", "hun\nter-2", "api_listen: '********' is not HOST:PORT"),
        ("store__history_days", "1.2340", "store.history_days = ******** must not be below dispatch.keys_s"),
    ],
)
def test_secret_that_is_wrong_is_named_without_its_value(name: str, value: str, kept: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(value)
    with pytest.raises(ConfigError) as caught:
        Settings.load(secrets_dir=tmp_path)
    assert kept in caught.value.text
    assert [part for part in ("hunter", "ter-2", "90210", "1.234") if part in caught.value.text] == []


@pytest.mark.parametrize("address", ["7402", "host", ":7402", "host:x", "host:-1"])
def test_address_must_be_host_and_port(address: str) -> None:
    assert f"{address!r} is not HOST:PORT" in refused(api_listen=address)


def test_address_with_a_port_that_is_too_high_says_so() -> None:
    assert "'host:65536': there is no port above 65535" in refused(api_listen="host:65536")


def test_log_level_may_be_written_in_capitals() -> None:
    assert Settings.load({"log_level": "DEBUG"}).log_level == "debug"


# --- rules ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"suspect_s": 5.9}, "suspect_s must be at least 3 x heartbeat_s"),
        ({"idle_heartbeat_s": 1.9}, "idle_heartbeat_s must not be below heartbeat_s"),
        ({"idle_heartbeat_s": 6.0}, "idle_heartbeat_s must be below suspect_s"),
        ({"suspect_s": 10.0}, "suspect_s must be below lease_s"),
        ({"margin_s": 1.9}, "margin_s must be at least lease_s / 5"),
        ({"margin_s": 10.0}, "margin_s must be below lease_s"),
        ({"reconnect_grace_s": 10.1}, "reconnect_grace_s must not be above lease_s"),
        ({"accept_timeout_s": 10.0}, "accept_timeout_s must be below lease_s"),
        ({"recovery_grace_s": 19.9}, "recovery_grace_s must be at least lease_s + 10 s"),
        ({"backoff_first_s": 10_000.0}, "backoff_first_s must not be above backoff_max_s"),
    ],
)
def test_dispatch_refuses_numbers_that_cannot_work_together(broken: dict[str, float], words: str) -> None:
    assert words in refused(dispatch=broken)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"frame_bytes_max": 5 << 20}, "frame_bytes_max must not be above message_bytes_max"),
        ({"payload_bytes_max": 4 << 20}, "payload_bytes_max must be below message_bytes_max"),
        ({"result_bytes_max": 4 << 20}, "result_bytes_max must be below message_bytes_max"),
        ({"batch_control": 4_097}, "batch_control must not be above mailbox_control"),
        ({"batch_reports": 65_537}, "batch_reports must not be above mailbox_reports"),
        ({"batch_submissions": 16_385}, "batch_submissions must not be above mailbox_submissions"),
    ],
)
def test_limits_refuse_numbers_that_cannot_work_together(broken: dict[str, int], words: str) -> None:
    assert words in refused(limits=broken)


def test_history_is_kept_at_least_as_long_as_the_promise_about_keys() -> None:
    words = "store.history_days = 6.5 must not be below dispatch.keys_s (7 days)"
    assert words in refused(store={"history_days": 6.5})
    day = Settings.load({"store": {"history_days": 6.5}, "dispatch": {"keys_s": 86_400}})
    assert day.store.history_days == 6.5


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_duration_must_be_a_time(value: float) -> None:
    assert "dispatch.lease_s" in refused(dispatch={"lease_s": value})


@pytest.mark.parametrize("key", ["mesh_listen", "api_listen", "metrics_listen"])
@pytest.mark.parametrize("address", ["0.0.0.0:7402", "[::]:7402", "192.168.1.2:7402", "broker.example:7402"])
def test_dev_is_refused_on_any_address_but_loopback(key: str, address: str) -> None:
    words = refused(dev=True, **{key: address})
    assert f"{key} = {address}: --dev is refused on any address but loopback" in words
    assert getattr(Settings.load({key: address}), key) == address


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("127.0.0.1.nip.io:1", False),
    ],
)
def test_loopback_is_known_by_its_address_and_not_by_how_it_looks(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


# --- what the dispatcher gets ---------------------------------------------------------------------------------------


def test_fast_profile_works_and_single_values_win_over_it() -> None:
    fast = Settings.load({"dispatch": {"profile": "fast", "lease_s": 2.4}}).dispatch
    assert fast.lease_s == 2.4
    others = {name: value for name, value in FAST_PROFILE.items() if name != "lease_s"}
    assert {name: getattr(fast, name) for name in others} == others
    assert fast.policy().lease_us < DispatchPolicy().lease_us


def test_policy_has_whole_microseconds_of_every_duration() -> None:
    policy = DispatchSettings(heartbeat_s=0.1234567, queue_jobs_max=7).policy()
    assert (policy.heartbeat_us, policy.queue_jobs_max) == (123_457, 7)
    kinds = {type(getattr(policy, field.name)) for field in fields(policy) if field.name != "prefetch"}
    assert kinds == {int, Spread, bool, Placing}
    assert DispatchSettings(spread=Spread.SPILL).policy().spread is Spread.SPILL


def test_operation_policy_is_what_was_set() -> None:
    policy = DispatchSettings(failures_max=9, backoff_first_s=0.5, cancel_grace_s=1.0).operation_policy()
    assert (policy.failures_max, policy.backoff_first_us, policy.cancel_grace_us) == (9, 500_000, 1_000_000)


def test_settings_do_not_change_after_loading() -> None:
    settings = Settings.load()
    with pytest.raises(ValueError, match="frozen"):
        settings.limits.batch_control = 1
