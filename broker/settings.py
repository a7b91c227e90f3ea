"""What an operator can set, from where, and which settings cannot work together.

Sources, the first one that names a key wins: flags of `mesh serve`, the environment (`MESH_DATA_DIR`,
`MESH_DISPATCH__LEASE_S`), a directory of secrets (one file a key, named like the environment variable without its
prefix), a TOML file, the defaults. A key that does not exist is an error that names the nearest one that does: a
setting that is silently ignored is worse than a broker that does not start.
"""

import difflib
import ipaddress
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings.exceptions import SettingsError

from broker.dispatch.model import SECOND_US, DispatchPolicy, OnLoss, OperationPolicy, Spread
from broker.errors import ConfigError

ENVIRONMENT_PREFIX: Final = "MESH_"
KIB: Final = 1 << 10
MIB: Final = 1 << 20

_POLICY: Final = DispatchPolicy()
_OPERATION: Final = OperationPolicy()

FAST_PROFILE: Final[Mapping[str, float]] = {
    "heartbeat_s": 0.4,
    "idle_heartbeat_s": 1.0,
    "suspect_s": 1.2,
    "lease_s": 2.5,
    "margin_s": 0.5,
    "reconnect_grace_s": 1.0,
    "accept_timeout_s": 1.0,
    "recovery_grace_s": 15.0,
}
"""What `dispatch.profile = "fast"` puts in the place of the defaults: losses are seen sooner, for more traffic."""


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"{text!r} is not HOST:PORT, for example 127.0.0.1:7402 or [::1]:7402")
    return text


Address = Annotated[str, AfterValidator(_address)]
OperationName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$", max_length=128)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A table of settings. Unknown keys are refused, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StoreSettings(Section):
    """How jobs are kept."""

    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    """FULL: an answered submission survives a power cut. NORMAL: it survives `kill -9`, not a power cut."""
    payload_inline_bytes_max: Annotated[int, Field(ge=0, le=64 * KIB)] = 4 * KIB
    payload_cache_bytes_max: Annotated[int, Field(ge=0)] = 64 * MIB


class LimitSettings(Section):
    """Bounds of what peers may send and of what waits inside. At a bound work is refused, never kept without limit."""

    frame_bytes_max: Annotated[int, Field(ge=4 * KIB)] = 1 * MIB
    message_bytes_max: Annotated[int, Field(ge=64 * KIB, le=64 * MIB)] = 4 * MIB
    payload_bytes_max: Count = 1 * MIB
    result_bytes_max: Count = 1 * MIB
    failure_message_bytes_max: Annotated[int, Field(ge=64)] = 4_096
    mailbox_control: Count = 4_096
    mailbox_reports: Count = 65_536
    mailbox_submissions: Count = 16_384
    mailbox_bytes_max: Count = 64 * MIB
    """Payloads, results and checkpoints that wait in each mailbox."""
    batch_control: Count = 256
    batch_reports: Count = 512
    batch_submissions: Count = 256
    batch_bytes_max: Count = 16 * MIB
    """What one batch takes of them out of each mailbox."""
    frame_jobs_max: Count = 512
    hellos_per_s: Count = 500
    agents_max: Count = 10_000
    """Agents that a group knows: whoever says Hello under a new name makes one that is kept."""
    streams_per_connection_mesh: Count = 16
    streams_per_connection_api: Count = 100
    metadata_bytes_max: Annotated[int, Field(ge=1 * KIB)] = 8_192
    watch_queue_max: Count = 10_000
    watchers_max: Count = 256
    """Watches at the same time: each costs a look at every change."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _refuse(
            (self.frame_bytes_max > self.message_bytes_max, "frame_bytes_max must not be above message_bytes_max"),
            (self.payload_bytes_max >= self.message_bytes_max, "payload_bytes_max must be below message_bytes_max"),
            (self.result_bytes_max >= self.message_bytes_max, "result_bytes_max must be below message_bytes_max"),
            (self.batch_control > self.mailbox_control, "batch_control must not be above mailbox_control"),
            (self.batch_reports > self.mailbox_reports, "batch_reports must not be above mailbox_reports"),
            (
                self.batch_submissions > self.mailbox_submissions,
                "batch_submissions must not be above mailbox_submissions",
            ),
            (
                self.message_bytes_max > self.mailbox_bytes_max,
                "mailbox_bytes_max must not be below message_bytes_max: a whole message of jobs must fit",
            ),
            (self.batch_bytes_max > self.mailbox_bytes_max, "batch_bytes_max must not be above mailbox_bytes_max"),
        )
        return self


class DispatchSettings(Section):
    """Timing and bounds of every group, and how jobs are treated whose operation has no policy of its own.

    Durations are seconds; the dispatcher gets them as whole microseconds by `policy` and `operation_policy`.
    """

    profile: Literal["default", "fast"] = "default"
    heartbeat_s: Seconds = _POLICY.heartbeat_us / SECOND_US
    idle_heartbeat_s: Seconds = _POLICY.idle_heartbeat_us / SECOND_US
    suspect_s: Seconds = _POLICY.suspect_us / SECOND_US
    lease_s: Seconds = _POLICY.lease_us / SECOND_US
    margin_s: Seconds = _POLICY.margin_us / SECOND_US
    reconnect_grace_s: Seconds = _POLICY.reconnect_grace_us / SECOND_US
    recovery_grace_s: Seconds = _POLICY.recovery_grace_us / SECOND_US
    accept_timeout_s: Seconds = _POLICY.accept_timeout_us / SECOND_US
    stop_slack_s: Seconds = _POLICY.stop_slack_us / SECOND_US
    run_slack_s: Seconds = _POLICY.run_slack_us / SECOND_US
    unoffered_grace_s: Seconds = _POLICY.unoffered_grace_us / SECOND_US
    lazy_write_s: Annotated[float, Field(gt=0, le=60)] = _POLICY.lazy_write_us / SECOND_US
    keys_s: Seconds = _POLICY.keys_us / SECOND_US
    """How long a business idempotency key is remembered."""
    queue_jobs_max: Annotated[int, Field(ge=1, le=10_000_000)] = _POLICY.queue_jobs_max
    queue_bytes_max: Count = _POLICY.queue_bytes_max
    label_sets_max: Count = _POLICY.label_sets_max
    lanes_max: Count = _POLICY.lanes_max
    agent_classes_max: Count = _POLICY.agent_classes_max
    placements_step_max: Annotated[int, Field(ge=16)] = _POLICY.placements_step_max
    expiries_step_max: Annotated[int, Field(ge=16)] = _POLICY.expiries_step_max
    spread: Spread = _POLICY.spread
    """How ranks of agents count: `balanced` not at all, `ordered` one at a time, `spill` the next one when full."""
    ageing_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = _POLICY.ageing_us / SECOND_US
    """Head start of a priority level over the next lower one; 0: strict levels."""

    on_loss: OnLoss = _OPERATION.on_loss
    failures_max: Annotated[int, Field(ge=1, le=1_000)] = _OPERATION.failures_max
    crashes_max: Annotated[int, Field(ge=1, le=1_000)] = _OPERATION.crashes_max
    bounces_max: Annotated[int, Field(ge=1, le=1_000)] = _OPERATION.bounces_max
    backoff_first_s: Seconds = _OPERATION.backoff_first_us / SECOND_US
    backoff_max_s: Seconds = _OPERATION.backoff_max_us / SECOND_US
    cancel_grace_s: Seconds = _OPERATION.cancel_grace_us / SECOND_US

    @model_validator(mode="before")
    @classmethod
    def _profile(cls, given: object) -> object:
        if isinstance(given, Mapping) and given.get("profile") == "fast":
            return {**FAST_PROFILE, **given}
        return given

    @model_validator(mode="after")
    def _can_work(self) -> Self:
        _refuse(
            (
                3 * self._of("heartbeat_us") > self._of("suspect_us"),
                "suspect_s must be at least 3 x heartbeat_s: two may get lost",
            ),
            (self.idle_heartbeat_s < self.heartbeat_s, "idle_heartbeat_s must not be below heartbeat_s"),
            (self.idle_heartbeat_s >= self.suspect_s, "idle_heartbeat_s must be below suspect_s"),
            (self.suspect_s >= self.lease_s, "suspect_s must be below lease_s: suspicion comes before loss"),
            (
                5 * self._of("margin_us") < self._of("lease_us"),
                "margin_s must be at least lease_s / 5: agents stop before we replace",
            ),
            (self.margin_s >= self.lease_s, "margin_s must be below lease_s"),
            (self.reconnect_grace_s > self.lease_s, "reconnect_grace_s must not be above lease_s"),
            (self.accept_timeout_s >= self.lease_s, "accept_timeout_s must be below lease_s"),
            (self.recovery_grace_s < self.lease_s + 10, "recovery_grace_s must be at least lease_s + 10 s"),
            (self.backoff_first_s > self.backoff_max_s, "backoff_first_s must not be above backoff_max_s"),
        )
        return self

    def policy(self) -> DispatchPolicy:
        """Timing and bounds as the dispatcher takes them."""
        numbers = {field.name: self._of(field.name) for field in fields(DispatchPolicy) if field.name != "spread"}
        return DispatchPolicy(spread=self.spread, **numbers)

    def operation_policy(self) -> OperationPolicy:
        """The policy number 0: that of every operation for which nobody has set another."""
        return OperationPolicy(
            on_loss=self.on_loss,
            failures_max=self.failures_max,
            crashes_max=self.crashes_max,
            bounces_max=self.bounces_max,
            backoff_first_us=self._of("backoff_first_us"),
            backoff_max_us=self._of("backoff_max_us"),
            cancel_grace_us=self._of("cancel_grace_us"),
        )

    def _of(self, name: str) -> int:
        """A number of the dispatcher: `lease_us` is `lease_s` here, a bound has the same name."""
        if name.endswith("_us"):
            return round(float(getattr(self, f"{name.removesuffix('_us')}_s")) * SECOND_US)
        return int(getattr(self, name))


class OperationSettings(Section):
    """How jobs of one operation are treated; what is left out is as in `dispatch`."""

    exclusive: bool = False
    """Never run beside another attempt, at the price of a full lease after a loss."""
    running_max: Annotated[int, Field(ge=0)] = 0
    """How many of its jobs run at once in a group (0: no limit)."""
    on_loss: OnLoss | None = None
    failures_max: Annotated[int, Field(ge=1, le=1_000)] | None = None
    crashes_max: Annotated[int, Field(ge=1, le=1_000)] | None = None
    bounces_max: Annotated[int, Field(ge=1, le=1_000)] | None = None
    backoff_first_s: Seconds | None = None
    backoff_max_s: Seconds | None = None
    cancel_grace_s: Seconds | None = None


class Settings(BaseSettings):
    """All settings of one broker. Make them with `load`, which explains what is wrong as a `ConfigError`."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__", env_ignore_empty=True
    )

    dev: bool = False
    """Plaintext, no certificates, unknown agents are let in: loopback only."""
    data_dir: Path = Path("mesh-data")
    mesh_listen: Address = "127.0.0.1:7401"
    api_listen: Address = "127.0.0.1:7402"
    metrics_listen: Address = "127.0.0.1:7403"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    store: StoreSettings = Field(default_factory=StoreSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    dispatch: DispatchSettings = Field(default_factory=DispatchSettings)
    operations: dict[OperationName, OperationSettings] = Field(default_factory=dict)
    """By the name of the operation: `[operations."files.csv_to_sql"]` in TOML."""

    def operation_policy(self, operation: str) -> OperationPolicy:
        """The policy of an operation: what is said of it, the rest as in `dispatch`."""
        default = self.dispatch.operation_policy()
        said = self.operations.get(operation)
        if said is None:
            return default
        given = {
            f"{name[:-2]}_us" if name.endswith("_s") else name: round(value * SECOND_US)
            if name.endswith("_s")
            else value
            for name, value in said.model_dump(exclude_none=True).items()
        }
        return replace(default, **given)

    @model_validator(mode="after")
    def _back_off_grows(self) -> Self:
        for operation in self.operations:
            policy = self.operation_policy(operation)
            if policy.backoff_first_us > policy.backoff_max_us:
                raise ValueError(f"operations.{operation}: backoff_first_s must not be above backoff_max_s")
        return self

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, level: object) -> object:
        return level.lower() if isinstance(level, str) else level

    @model_validator(mode="after")
    def _dev_stays_at_home(self) -> Self:
        for key in ("mesh_listen", "api_listen", "metrics_listen"):
            address: str = getattr(self, key)
            if self.dev and not is_loopback(address):
                raise ValueError(
                    f"{key} = {address}: --dev is refused on any address but loopback, because it lets everybody in. "
                    "Listen on 127.0.0.1"
                )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, environment, secrets, TOML; the defaults are the model's own."""
        secrets = NestedSecretsSettingsSource(
            file_secret_settings, secrets_prefix="", secrets_nested_delimiter="__", secrets_dir_missing="error"
        )
        return init_settings, env_settings, secrets, TomlConfigSettingsSource(settings_cls)

    @staticmethod
    def load(
        flags: Mapping[str, object] | None = None,
        *,
        config: Path | None = None,
        secrets_dir: Path | None = None,
    ) -> "Settings":
        """The settings of this process: `flags` (nested like the settings) over all other sources.

        Raises ConfigError naming every key that is unknown or cannot work, and what would.
        """
        for path, kind in ((config, "configuration file"), (secrets_dir, "directory of secrets")):
            if path is not None and not path.exists():
                raise ConfigError(f"The {kind} {path} does not exist; check the path.")
        if config is not None:
            _check_file(config)
        _check_environment(os.environ)

        class Loaded(Settings):
            # The library takes the file from the class only.
            model_config = SettingsConfigDict(toml_file=config, secrets_dir=secrets_dir)

        try:
            return Loaded.model_validate(dict(flags or {}))
        except ValidationError as error:
            raise ConfigError("\n".join(_explain(error))) from error
        except (SettingsError, ValueError) as error:
            raise ConfigError(f"The settings cannot be read: {error}") from error


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach the `HOST:PORT`."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse(*rules: tuple[bool, str]) -> None:
    broken = [text for is_broken, text in rules if is_broken]
    if broken:
        raise ValueError("; ".join(broken))


def _check_file(config: Path) -> None:
    """Say what is wrong with the file as a whole: the library's words leave out which file it is."""
    try:
        tomllib.loads(config.read_text())
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"The configuration file {config} cannot be read: {why}") from error


def _check_environment(environment: Mapping[str, str]) -> None:
    """Find misspelt variables, which the library passes over: only a section's own keys are checked by the models.

    Variables of other programs of the mesh have the same prefix, so without `__` only a near miss is an error.
    """
    for variable in sorted(environment):
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        key, *nested = variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        if key in Settings.model_fields:
            continue
        nearest = _nearest(key, Settings, cutoff=0.4 if nested else 0.8)
        if nested or nearest:
            path = "__".join([nearest, *nested]) if nearest else ""
            better = f"; did you mean {ENVIRONMENT_PREFIX}{path.upper()}?" if path else ""
            raise ConfigError(f"{variable}: there is no setting {key!r}{better}")


def _explain(error: ValidationError) -> Iterator[str]:
    """One line for each thing that is wrong: the key as it is written in TOML, and what is wrong with it."""
    for item in error.errors(include_url=False):
        path = [str(part) for part in item["loc"]]
        key = ".".join(path)
        if item["type"] == "extra_forbidden":
            nearest = _nearest(path[-1], _model_at(path[:-1]))
            better = f"; did you mean {'.'.join([*path[:-1], nearest])}?" if nearest else ""
            yield f"{key}: there is no such setting{better}"
        elif item["type"] == "value_error":
            reason = item["msg"].removeprefix("Value error, ")
            yield f"{key}: {reason}" if key else reason
        else:
            yield f"{key} = {item['input']!r}: {item['msg']}"


def _model_at(path: list[str]) -> type[BaseModel]:
    model: type[BaseModel] = Settings
    if path[:1] == ["operations"]:
        return OperationSettings
    for part in path:
        inner = model.model_fields[part].annotation
        assert isinstance(inner, type)
        assert issubclass(inner, BaseModel)
        model = inner
    return model


def _nearest(key: str, model: type[BaseModel], cutoff: float = 0.4) -> str:
    return next(iter(difflib.get_close_matches(key.lower(), model.model_fields, n=1, cutoff=cutoff)), "")
