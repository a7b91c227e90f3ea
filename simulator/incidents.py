"""What goes wrong in a scenario, as it is written: each entry of `faults` has one key that says what, and one for when.

`{at: 20 min, zone-down: zone-b, for: 15 min}` is scripted, `{random: crash, agents: all, mttf: 30 d, mttr: 4 min}`
goes on by chance. Agents are named by `all`, a group (`erp`), some of its agents (`erp/3`, `erp/1-4`), or a zone.
`simulator.faults` carries them out.
"""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from broker.dispatch.model import DrainEnd, DrainThen
from simulator.laws import MeanLaw
from simulator.model import Above, Count, Model, PerSecond, Seconds, Share
from simulator.units import nearest


def _words(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Agents = Annotated[tuple[str, ...], BeforeValidator(_words), Field(min_length=1)]
"""Which agents: `all`, groups, `group/number`, `group/first-last`, zones."""


class Scripted(Model):
    """Something that happens at a time of the run, settling included; `for_` is how long it lasts."""

    at: Seconds

    @property
    def lasts_s(self) -> float:
        """How long it goes on; 0: it is over at once, or ends by itself."""
        return float(getattr(self, "for_", None) or 0.0)


class Crash(Scripted):
    """Agents' processes die; they are back after `for`. `silent`: nobody is told (power is cut, not the process)."""

    crash: Agents
    for_: Seconds
    silent: bool = False


class ZoneDown(Scripted):
    """Every agent of a zone loses power at once."""

    zone_down: str
    for_: Seconds


class Hang(Scripted):
    """Agents stand still and stay connected: they neither run, beat nor read.

    With `beats` it is their jobs alone that stand still: agents beat, read and take what they are given as if all were
    well, but nothing makes progress, nor stops when it is told to. Only limits of time find that out.
    """

    hang: Agents
    for_: Seconds
    beats: bool = False


class Drain(Scripted):
    """An operator drains agents. After `for` a pause is resumed, and an agent that stopped is started again."""

    drain: Agents
    for_: Seconds
    ends: DrainEnd = DrainEnd.PAUSE
    then: DrainThen = DrainThen.FINISH
    deadline: Seconds = 0.0


class RollingUpgrade(Scripted):
    """The agents of a group restart, `batch` at a time: each drains itself, leaves, is back after `each` since then.

    `each` counts from the beginning of its batch; the next batch begins when this one is back.
    """

    rolling_upgrade: str
    batch: Count = 1
    each: Seconds


class OnLine(Scripted):
    """Something that happens to the lines of agents, in both directions or in one."""

    for_: Seconds
    way: Literal["both", "to-broker", "to-agents"] = "both"

    @property
    def directions(self) -> dict[str, bool]:
        """Whether it happens on the way up, to the broker, and down, to the agents."""
        return {"up": self.way != "to-agents", "down": self.way != "to-broker"}


class Partition(OnLine):
    """Nothing passes between these agents and the broker; one way only with `way`."""

    partition: Agents


class Loss(OnLine):
    """This share of what is sent between these agents and the broker is lost, and sent again as TCP does: it is late.

    What really is lost for good are heartbeats, with `heartbeat-loss`, and streams.
    """

    loss: Agents
    share: Annotated[Share, Field(gt=0, le=0.5)]


class Delay(OnLine):
    """Everything between these agents and the broker takes `by` longer."""

    delay: Agents
    by: Seconds


class BrokerCrash(Scripted):
    """The broker dies; what it had not committed is lost, and its successor has recovered after `for`."""

    broker_crash: Literal[True]
    for_: Seconds


class StoreStall(Scripted):
    """The store commits nothing until it is over."""

    store_stall: Literal[True]
    for_: Seconds


class StoreOutage(Scripted):
    """The store fails: what it holds is not known, so the broker ends with the next commit that is tried.

    It starts again, from what is stored, when the store is back; until then nobody answers.
    """

    store_outage: Literal[True]
    for_: Seconds


class ClockJump(Scripted):
    """The wall clock of the broker's machine is so far `ahead` from now on, or `behind`.

    A broker reads it once, when it starts (ADR 0005): nothing happens before the next one. That one takes all deadlines
    for older than they are; with a clock that is behind what is stored, by more than five seconds, it does not start
    before the clock has caught up.
    """

    clock_jump: Literal["ahead", "behind"]
    by: Annotated[Seconds, Field(gt=0)]


class ReconnectHerd(Scripted):
    """The streams of these agents break at once, and the broker refuses new ones until it is over."""

    reconnect_herd: Agents
    for_: Seconds


class CertificateWave(Scripted):
    """Certificates run out: each stream is broken once, at a random time within `for`, and dialled again."""

    certificate_wave: Agents
    for_: Seconds


class Poison(Scripted):
    """Jobs of this work that crash their agent when they run, at `rate` until `for` is over; one without `rate`."""

    poison: str
    for_: Seconds = 0.0
    rate: PerSecond | None = None
    repair: Seconds = 30.0
    """How long an agent that crashed of it is down."""


class Slow(Scripted):
    """Attempts that start on these agents take `factor` times as long."""

    slow: Agents
    factor: Above
    for_: Seconds


class HeartbeatLoss(Scripted):
    """Each heartbeat is lost with this chance; everything else passes."""

    at: Seconds = 0.0
    heartbeat_loss: Share
    for_: Seconds = 0.0


class Random(Model):
    """Goes on by chance: each of the agents (or zones) works for `mttf`, is gone for `mttr`, works again.

    With `crews` only so many are repaired at the same time, in the order in which they broke; `beats` as in `hang`.
    """

    random: Literal["crash", "hang", "zone-down"]
    agents: Agents = ("all",)
    mttf: MeanLaw
    mttr: MeanLaw
    crews: Count | None = None
    silent: bool = False
    beats: bool = False

    @model_validator(mode="after")
    def _works_at_all(self) -> Self:
        from simulator.streams import mean_s

        if mean_s(self.mttf) <= 0:
            raise ValueError("`mttf` must be above 0: what fails at once again never works")
        if self.beats and self.random != "hang":
            raise ValueError(f"`beats` is for `random: hang`: nobody beats in a {self.random}")
        return self


KINDS: Final[dict[str, type[Model]]] = {
    "crash": Crash,
    "zone-down": ZoneDown,
    "hang": Hang,
    "drain": Drain,
    "rolling-upgrade": RollingUpgrade,
    "partition": Partition,
    "broker-crash": BrokerCrash,
    "store-stall": StoreStall,
    "store-outage": StoreOutage,
    "clock-jump": ClockJump,
    "reconnect-herd": ReconnectHerd,
    "certificate-wave": CertificateWave,
    "poison": Poison,
    "slow": Slow,
    "delay": Delay,
    "loss": Loss,
    "heartbeat-loss": HeartbeatLoss,
    "random": Random,
}
"""The key that says what happens, and its form."""


def _kind_of(value: Any) -> str:
    if isinstance(value, Model):
        return next(kind for kind, model in KINDS.items() if type(value) is model)
    return next(str(key) for key in value if key in KINDS)


def _is_one_thing(value: Any) -> Any:
    if isinstance(value, Model):
        return value
    keys = list(value) if isinstance(value, dict) else []
    found = [key for key in keys if key in KINDS]
    if len(found) > 1:
        raise ValueError(f"a fault is one thing; this is {' and '.join(found)}")
    if not found:
        unknown = next((str(key) for key in keys if key not in ("at", "for")), "")
        raise ValueError(f"this does not say what happens; {nearest(unknown, KINDS)}")
    return value


Incident = Annotated[
    Annotated[Crash, Tag("crash")]
    | Annotated[ZoneDown, Tag("zone-down")]
    | Annotated[Hang, Tag("hang")]
    | Annotated[Drain, Tag("drain")]
    | Annotated[RollingUpgrade, Tag("rolling-upgrade")]
    | Annotated[Partition, Tag("partition")]
    | Annotated[BrokerCrash, Tag("broker-crash")]
    | Annotated[StoreStall, Tag("store-stall")]
    | Annotated[StoreOutage, Tag("store-outage")]
    | Annotated[ClockJump, Tag("clock-jump")]
    | Annotated[ReconnectHerd, Tag("reconnect-herd")]
    | Annotated[CertificateWave, Tag("certificate-wave")]
    | Annotated[Poison, Tag("poison")]
    | Annotated[Slow, Tag("slow")]
    | Annotated[Delay, Tag("delay")]
    | Annotated[Loss, Tag("loss")]
    | Annotated[HeartbeatLoss, Tag("heartbeat-loss")]
    | Annotated[Random, Tag("random")],
    Discriminator(_kind_of),
    BeforeValidator(_is_one_thing),
]
"""One entry of `faults`."""


def label_of(incident: Incident) -> str:
    """What it is called in reports: `zone-down zone-b`."""
    kind = _kind_of(incident)
    target = getattr(incident, kind.replace("-", "_"))
    if kind == "heartbeat-loss" or target is True:
        return kind
    return f"{kind} {' '.join(target) if isinstance(target, tuple) else target}"
