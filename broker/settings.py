"""What an operator can set, from where, and which settings cannot work together.

Sources, the first one that names a key wins: flags of `mesh serve`, the environment (`MESH_DATA_DIR`,
`MESH_DISPATCH__LEASE_S`), a directory of secrets (one file a key, named like the environment variable without its
prefix), a TOML file, the defaults. A key that does not exist is an error that names the nearest one that does: a
setting that is silently ignored is worse than a broker that does not start.
"""

import difflib
import ipaddress
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretBytes,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from broker import sources
from broker.dispatch.model import SECOND_US, DispatchPolicy, OnLoss, OperationPolicy, Spread
from broker.errors import ConfigError

ENVIRONMENT_PREFIX: Final = "MESH_"
AGENT_PREFIX: Final = "MESH_AGENT_"
"""Variables of `mesh-agent`, which may run beside a broker."""
MASK: Final = "********"
KIB: Final = 1 << 10
MIB: Final = 1 << 20
DAY_S: Final = 86_400

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


_RULES: Final = ("spread", "refuses_inactive")
"""What of a policy is said for each group."""
_FIXED: Final = ("placing", "placing_choices", "prefetch")
"""What of a policy is as it is unless a group says otherwise."""


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal():
        raise ValueError(f"{text!r} is not HOST:PORT, for example 127.0.0.1:7402 or [::1]:7402")
    if int(port) > PORT_MAX:
        raise ValueError(f"{text!r}: there is no port above {PORT_MAX}")
    return text


PORT_MAX: Final = 65_535

Address = Annotated[str, AfterValidator(_address)]
OperationName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$", max_length=128)]
OrganizationId = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$")]
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
    """Larger payloads are kept beside the row of their job, not in it."""
    payload_cache_bytes_max: Annotated[int, Field(ge=0)] = 64 * MIB
    """Payloads of waiting jobs that are kept in memory; the others are read again when they are sent."""
    history_days: Annotated[float, Field(gt=0, le=36_500)] = 30.0
    """How long a finished job is kept, with its payload, its result and what happened to it."""
    retention_every_s: Annotated[float, Field(ge=1, le=86_400)] = 60.0
    """How often what is past its time is looked for and removed."""
    retention_slice_rows: Annotated[int, Field(ge=10, le=10_000)] = 500
    """Rows that are removed at once: a commit waits for one slice at most."""
    retention_pause_s: Annotated[float, Field(ge=0, le=60)] = 0.2
    """Time between two slices while commits come, less when too much is due; without commits there is none."""


class LimitSettings(Section):
    """Bounds of what peers may send and of what waits inside. At a bound work is refused, never kept without limit."""

    frame_bytes_max: Annotated[int, Field(ge=4 * KIB)] = 256 * KIB
    """The largest frame to an agent."""
    message_bytes_max: Annotated[int, Field(ge=64 * KIB, le=64 * MIB)] = 4 * MIB
    """The largest message that a peer may send: a larger one ends its call or stream."""
    payload_bytes_max: Count = 1 * MIB
    """The largest payload of a job."""
    result_bytes_max: Count = 1 * MIB
    """The largest result of a job."""
    failure_message_bytes_max: Annotated[int, Field(ge=64)] = 4_096
    """Longer messages of failures are cut."""
    mailbox_control: Count = 4_096
    """Hellos, ends of streams and acts of operators that may wait for the engine."""
    mailbox_reports: Count = 65_536
    """Reports of agents that may wait for the engine; at the bound their streams are read later."""
    mailbox_submissions: Count = 16_384
    """Submissions that may wait for the engine; at the bound they are refused."""
    mailbox_bytes_max: Count = 64 * MIB
    """Payloads, results and checkpoints that wait in each mailbox."""
    batch_control: Count = 256
    """How many of each kind one batch, and so one commit, takes at most."""
    batch_reports: Count = 1_024
    """See `batch_control`."""
    batch_submissions: Count = 512
    """See `batch_control`."""
    batch_bytes_max: Count = 16 * MIB
    """What one batch takes of them out of each mailbox."""
    frame_jobs_max: Count = 512
    """Jobs in one frame to an agent."""
    hellos_per_s: Count = 500
    """Agents that are admitted in a second: more of them wait for their turn, or are told when to come again."""
    agents_max: Count = 10_000
    """Agents that a group knows: whoever says Hello under a new name makes one that is kept."""
    streams_per_connection_mesh: Count = 16
    """Streams at the same time on one connection of an agent."""
    streams_per_connection_api: Count = 100
    """Calls at the same time on one connection of a client."""
    metadata_bytes_max: Annotated[int, Field(ge=1 * KIB)] = 8_192
    """The largest metadata of a call."""
    watch_queue_max: Count = 10_000
    """Changed jobs that wait for one watcher; beyond it the oldest are left out, and it is told of a gap."""
    watchers_max: Count = 256
    """Watches at the same time: each costs a look at every change."""
    changes_waiting_max: Count = 256
    """Changes of organisations, groups, environments and agents that may wait for their turn."""
    metrics_agents_max: Annotated[int, Field(ge=0)] = 200
    """Groups with more agents have no series of single agents on the metrics page, only those of the group."""

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
    """`fast` puts shorter times in the place of the defaults: losses are seen sooner, for more traffic."""
    heartbeat_s: Seconds = _POLICY.heartbeat_us / SECOND_US
    """How often an agent that has work says that it is there."""
    idle_heartbeat_s: Seconds = _POLICY.idle_heartbeat_us / SECOND_US
    """The same for an agent without work."""
    suspect_s: Seconds = _POLICY.suspect_us / SECOND_US
    """Silence after which an agent is given nothing new."""
    lease_s: Seconds = _POLICY.lease_us / SECOND_US
    """Silence after which an agent is lost: exclusive work starts elsewhere only then."""
    margin_s: Seconds = _POLICY.margin_us / SECOND_US
    """How much earlier an agent stops its exclusive work by itself."""
    reconnect_grace_s: Seconds = _POLICY.reconnect_grace_us / SECOND_US
    """How long the repeatable work of an agent whose stream has ended waits for it to come back."""
    recovery_grace_s: Seconds = _POLICY.recovery_grace_us / SECOND_US
    """How long, after a start or a long stall of the broker, work that ran waits for its agent to come back."""
    accept_timeout_s: Seconds = _POLICY.accept_timeout_us / SECOND_US
    """How long an agent may take to accept what it was given, beside 1 s for each 64 KiB; then it is placed again."""
    stop_slack_s: Seconds = _POLICY.stop_slack_us / SECOND_US
    """How long after its cancel grace an agent may take to confirm that an attempt has stopped."""
    run_slack_s: Seconds = _POLICY.run_slack_us / SECOND_US
    """How long after its deadline an attempt is told to stop: its agent does so by itself in time."""
    unoffered_grace_s: Seconds = _POLICY.unoffered_grace_us / SECOND_US
    """How long a job waits for an agent that offers its operation, while others are active; then it fails."""
    lazy_write_s: Annotated[float, Field(gt=0, le=60)] = _POLICY.lazy_write_us / SECOND_US
    """How long what nobody waits for (accepted, started, progress) may wait for a commit."""
    keys_s: Seconds = _POLICY.keys_us / SECOND_US
    """How long a business idempotency key is remembered."""
    queue_jobs_max: Annotated[int, Field(ge=1, le=10_000_000)] = _POLICY.queue_jobs_max
    """Jobs of a group that may wait; more are refused."""
    queue_bytes_max: Count = _POLICY.queue_bytes_max
    """Their payloads."""
    label_sets_max: Count = _POLICY.label_sets_max
    """Different sets of required labels and operations among the jobs of a group."""
    lanes_max: Count = _POLICY.lanes_max
    """Different queues of a group: by label set, priority, fairness key and limit."""
    agent_classes_max: Count = _POLICY.agent_classes_max
    """Different sets of labels and operations among the agents of a group."""
    placements_step_max: Annotated[int, Field(ge=16)] = _POLICY.placements_step_max
    """Jobs that are placed in one step; the rest follows in the next."""
    expiries_step_max: Annotated[int, Field(ge=16)] = _POLICY.expiries_step_max
    """Deadlines that are worked off in one step."""
    spread: Spread = _POLICY.spread
    """How ranks of agents count: `balanced` not at all, `ordered` one at a time, `spill` the next one when full."""
    ageing_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = _POLICY.ageing_us / SECOND_US
    """Head start of a priority level over the next lower one; 0: strict levels."""

    on_loss: OnLoss = _OPERATION.on_loss
    """What becomes of a job whose agent is lost: it runs again, fails, or is held for a person."""
    failures_max: Annotated[int, Field(ge=1, le=1_000)] = _OPERATION.failures_max
    """Retryable failures after which a job is dead."""
    crashes_max: Annotated[int, Field(ge=1, le=1_000)] = _OPERATION.crashes_max
    """Crashes of its agent after which a job is dead."""
    bounces_max: Annotated[int, Field(ge=1, le=1_000)] = _OPERATION.bounces_max
    """Refused placements after which a job is dead."""
    backoff_first_s: Seconds = _OPERATION.backoff_first_us / SECOND_US
    """Delay of the first retry; it doubles with each."""
    backoff_max_s: Seconds = _OPERATION.backoff_max_us / SECOND_US
    """The longest delay of a retry."""
    cancel_grace_s: Seconds = _OPERATION.cancel_grace_us / SECOND_US
    """How long an attempt that is told to stop may take for it."""

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
        numbers = {
            field.name: self._of(field.name) for field in fields(DispatchPolicy) if field.name not in _RULES + _FIXED
        }
        return DispatchPolicy(spread=self.spread, placing=_POLICY.placing, refuses_inactive=False, **numbers)

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


class PlanSettings(Section):
    """What an organisation may have; managed groups and their agents do not count."""

    groups_max: Annotated[int, Field(ge=0)] = 1_000
    """Private groups."""
    agents_max: Annotated[int, Field(ge=0)] = 10_000
    """Agents of all private groups together."""
    contact: Annotated[str, StringConstraints(min_length=1, max_length=256)] = "the operator of the mesh"
    """Whom people ask for more: shown with the limits, and in every refusal because of them."""


class OrganizationPlanSettings(Section):
    """What one organisation may have; what is left out is as in `plan`."""

    groups_max: Annotated[int, Field(ge=0)] | None = None
    agents_max: Annotated[int, Field(ge=0)] | None = None
    contact: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None


class JournalSettings(Section):
    """Whether the broker writes down what it does, so that `mesh-sim replay` can do it again. Without payloads."""

    enabled: bool = False
    """Write a journal into the folder `journal` of `data_dir`."""
    max_bytes: Annotated[int, Field(ge=1 * MIB)] = 256 * MIB
    """What the journal may have on disk; the oldest parts are removed."""
    snapshot_jobs_max: Annotated[int, Field(ge=100, le=1_000_000)] = 5_000
    """Live jobs up to which a new part may begin: its snapshot stops the broker for about 7 microseconds a job."""


class Settings(Section):
    """All settings of one broker. Make them with `load`, which explains what is wrong as a `ConfigError`."""

    dev: bool = False
    """Plaintext, no certificates, unknown agents are let in: loopback only."""
    data_dir: Path = Path("mesh-data")
    """Where jobs and all that must survive a restart are; made if it does not exist."""
    mesh_listen: Address = "127.0.0.1:7401"
    """HOST:PORT for agents."""
    api_listen: Address = "127.0.0.1:7402"
    """HOST:PORT for submitters and operators."""
    metrics_listen: Address = "127.0.0.1:7403"
    """HOST:PORT for metrics and health."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """How much is logged."""
    store: StoreSettings = Field(default_factory=StoreSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    dispatch: DispatchSettings = Field(default_factory=DispatchSettings)
    operations: dict[OperationName, OperationSettings] = Field(default_factory=dict)
    """By the name of the operation: `[operations."files.csv_to_sql"]` in TOML."""
    journal: JournalSettings = Field(default_factory=JournalSettings)
    plan: PlanSettings = Field(default_factory=PlanSettings)
    plans: dict[OrganizationId, OrganizationPlanSettings] = Field(default_factory=dict)
    """By the id of the organisation: `[plans.acme]` in TOML."""

    def operation_policy(self, operation: str, default: OperationPolicy | None = None) -> OperationPolicy:
        """The policy of an operation: what is said of it, the rest as in `default` (that of `dispatch`)."""
        default = self.dispatch.operation_policy() if default is None else default
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

    def plan_of(self, organisation: str) -> PlanSettings:
        """What an organisation may have: what is said of it, the rest as in `plan`."""
        said = self.plans.get(organisation)
        return self.plan if said is None else self.plan.model_copy(update=said.model_dump(exclude_none=True))

    @model_validator(mode="after")
    def _history_outlives_keys(self) -> Self:
        days = self.dispatch.keys_s / DAY_S
        if self.store.history_days < days:
            raise ValueError(
                f"store.history_days = {self.store.history_days:g} must not be below dispatch.keys_s ({days:g} days): "
                "a job that is gone is not recognised when it is submitted again"
            )
        return self

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
        return load(flags, config=config, secrets_dir=secrets_dir).settings


class Loaded(NamedTuple):
    """Settings, and which source said what of them; what nobody said is a default."""

    settings: Settings
    said: Mapping[sources.SettingPath, sources.Said]

    def values(self) -> Iterator[tuple[sources.SettingPath, object, str]]:
        """Every setting in the order of the model: its path, its value, and where that comes from, for people.

        Values from the directory of secrets, and those that the model holds secret, are masked.
        """
        for path, value in _leaves((), self.settings):
            said = self.said.get(path)
            is_secret = isinstance(value, SecretStr | SecretBytes) or (said is not None and said.kind == sources.HIDDEN)
            yield path, MASK if is_secret else value, said.origin if said is not None else self._default_of(path)

    def _default_of(self, path: sources.SettingPath) -> str:
        is_fast = self.settings.dispatch.profile == "fast"
        return "profile fast" if is_fast and path[0] == "dispatch" and path[-1] in FAST_PROFILE else "default"


def load(
    flags: Mapping[str, object] | None = None,
    *,
    config: Path | None = None,
    secrets_dir: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> Loaded:
    """The settings with their origins: `flags`, then `variables` (by default the environment), secrets, the file.

    Raises ConfigError naming every key that is unknown or cannot work, and what would.
    """
    environment = os.environ if variables is None else variables
    secret = sources.secrets(secrets_dir) if secrets_dir is not None else {}
    ours = [name for name in environment if name.startswith(ENVIRONMENT_PREFIX) and not name.startswith(AGENT_PREFIX)]
    _check_names(ours, ENVIRONMENT_PREFIX)
    _check_names([said.place for said in secret.values()], "")
    said = sources.joined(
        sources.flags(flags or {}),
        _of_settings(sources.environment(environment, ENVIRONMENT_PREFIX)),
        _of_settings(secret),
        sources.toml(config) if config is not None else {},
    )
    try:
        return Loaded(Settings.model_validate(sources.nested(said)), said)
    except ValidationError as error:
        hidden = {path: one.value for path, one in said.items() if one.kind == sources.HIDDEN}
        raise ConfigError("\n".join(_explain(error, hidden))) from error


def _of_settings(source: sources.Source) -> sources.Source:
    """Without what belongs to other programs."""
    return {path: said for path, said in source.items() if path[0] in Settings.model_fields}


def _leaves(path: sources.SettingPath, value: object) -> Iterator[tuple[sources.SettingPath, object]]:
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _leaves((*path, name), getattr(value, name))
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves((*path, name), inner)
    else:
        yield path, value


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


def _check_names(names: Iterable[str], prefix: str) -> None:
    """Find misspelt variables and secret files: only a section's own keys are checked by the models.

    Other programs have some under the same prefix or in the same folder, so without `__` only a near miss is an error.
    """
    for name in sorted(names):
        key, *nested = sources.path_of(name.removeprefix(prefix))
        if key in Settings.model_fields:
            continue
        nearest = _nearest(key, Settings, cutoff=0.4 if nested else 0.8)
        if nested or nearest:
            path = sources.NESTED.join([nearest, *nested]) if nearest else ""
            path = f"{prefix}{path.upper()}" if prefix else path
            better = f"; did you mean {path}?" if nearest else ""
            raise ConfigError(f"{name}: there is no setting {key!r}{better}")


def _explain(error: ValidationError, hidden: Mapping[sources.SettingPath, object]) -> Iterator[str]:
    """One line for each thing that is wrong: the key as it is written in TOML, and what is wrong with it.

    Of what is `hidden` (values by path) no value is told.
    """
    for item in error.errors(include_url=False):
        path = [str(part) for part in item["loc"]]
        key = ".".join(path)
        if item["type"] == "extra_forbidden":
            nearest = _nearest(path[-1], _model_at(path[:-1]))
            better = f"; did you mean {'.'.join([*path[:-1], nearest])}?" if nearest else ""
            yield f"{key}: there is no such setting{better}"
        elif item["type"] == "value_error":
            reason = _masked(item["msg"].removeprefix("Value error, "), hidden.values())
            yield f"{key}: {reason}" if key else reason
        else:
            is_hidden = any(_is_within(given, path) or _is_within(path, given) for given in hidden)
            yield f"{key} = {MASK if is_hidden else repr(item['input'])}: {item['msg']}"


def _is_within(path: Sequence[str], above: Sequence[str]) -> bool:
    return list(path[: len(above)]) == list(above)


def _masked(text: str, values: Iterable[object]) -> str:
    """The text without the values, as they were written and as a number is shown."""
    for value in values:
        for written in sorted(
            {str(value), repr(value).strip("'\""), *_as_numbers(value)} - {""}, key=len, reverse=True
        ):
            text = re.sub(rf"(?<!\w){re.escape(written)}(?!\w)", MASK, text)
    return text


def _as_numbers(value: object) -> Iterator[str]:
    with suppress(ValueError):
        yield f"{float(str(value)):g}"


def _model_at(path: list[str]) -> type[BaseModel]:
    model: type[BaseModel] = Settings
    if path[:1] == ["operations"]:
        return OperationSettings
    if path[:1] == ["plans"]:
        return OrganizationPlanSettings
    for part in path:
        inner = model.model_fields[part].annotation
        assert isinstance(inner, type)
        assert issubclass(inner, BaseModel)
        model = inner
    return model


def _nearest(key: str, model: type[BaseModel], cutoff: float = 0.4) -> str:
    return next(iter(difflib.get_close_matches(key.lower(), model.model_fields, n=1, cutoff=cutoff)), "")
