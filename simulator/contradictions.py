"""What cannot be meant: parts of a scenario that name nothing, exclude one another, or would pass unseen."""

from math import ceil, inf
from typing import Final

from simulator.incidents import (
    BrokerCrash,
    ClockJump,
    Drain,
    Hang,
    HeartbeatLoss,
    Incident,
    Random,
    RollingUpgrade,
    Scripted,
    StoreOutage,
    StoreStall,
    label_of,
)
from simulator.scenario import Fidelity, Scenario, Work, agents_named
from simulator.units import nearest

_OF_AGENTS: Final = (
    *("crash", "hang", "drain", "partition", "reconnect_herd", "certificate_wave", "slow", "delay", "loss"),
)
_OF_NETWORK: Final = ("partition", "hang", "delay", "loss", "heartbeat_loss")


def check(scenario: Scenario) -> None:
    """Raise ValueError for the first contradiction: "fault 3 (...): why", "work `orders`: why", "group `erp`: why"."""
    for name, work in scenario.work.items():
        _check_work(scenario, name, work)
    twice = set(scenario.work) & set(scenario.groups)
    if twice:
        raise ValueError(f"`{min(twice)}` is both a group and work; figures need different names")
    for name, group in scenario.groups.items():
        most = max(group.count, group.autoscale.most if group.autoscale else 0)
        if group.need is not None and group.need > most:
            raise ValueError(f"group `{name}`: it needs {group.need} agents and never has more than {most}")
    for number, incident in enumerate(scenario.faults, 1):
        try:
            _check_names(scenario, incident)
            _check_sense(scenario, incident)
        except ValueError as error:
            raise ValueError(f"fault {number} ({label_of(incident)}): {error}") from error
    _check_overlaps(scenario)


def _check_work(scenario: Scenario, name: str, work: Work) -> None:
    groups = scenario.groups
    if work.group not in groups:
        raise ValueError(f"work `{name}`: there is no group `{work.group}`; {nearest(work.group, groups)}")
    offers = [set(pool.labels) for pool in groups[work.group].agents]
    if offers and not any(set(work.labels) <= offer for offer in offers):
        known = sorted(set().union(*offers))
        missing = next((label for label in work.labels if label not in known), "")
        hint = nearest(missing, known) if known else "they offer none"
        raise ValueError(f"work `{name}`: no agents of `{work.group}` offer {', '.join(work.labels)}; {hint}")


# --- each fault -----------------------------------------------------------------------------------------------------


def _check_names(scenario: Scenario, incident: Incident) -> None:
    """Refuse what names no agents, zone, group or work."""
    for field in _OF_AGENTS:
        for word in getattr(incident, field, ()):
            _check_agents(scenario, word)
    if isinstance(incident, Random):
        for word in incident.agents:
            if incident.random == "zone-down" and word != "all" and word not in scenario.zones:
                raise ValueError(f"there is no zone `{word}`; {nearest(word, scenario.zones)}")
            _check_agents(scenario, word)
    zone, upgraded, poison = (getattr(incident, key, None) for key in ("zone_down", "rolling_upgrade", "poison"))
    for word, known in ((zone, scenario.zones), (upgraded, scenario.groups), (poison, scenario.work)):
        if word is not None and word not in known:
            raise ValueError(f"`{word}` is not there; {nearest(word, known)}")


def _check_agents(scenario: Scenario, word: str) -> None:
    try:
        list(agents_named(scenario, word))
    except LookupError as error:
        raise ValueError(str(error.args[0])) from error


def _check_sense(scenario: Scenario, incident: Incident) -> None:
    """Refuse what happens too late, or what nobody would notice at this fidelity."""
    if isinstance(incident, Scripted) and incident.at >= scenario.end_s:
        raise ValueError(f"it begins at {incident.at:g} s, the run ends at {scenario.end_s:g} s")
    level, is_hang = scenario.broker.fidelity, isinstance(incident, Random) and incident.random == "hang"
    if level is Fidelity.EXACT and (is_hang or any(getattr(incident, key, None) for key in _OF_NETWORK)):
        raise ValueError("this needs a network: choose `fidelity: network`, `broker` or `wire`")
    if level in (Fidelity.EXACT, Fidelity.NETWORK) and isinstance(incident, StoreStall | StoreOutage):
        raise ValueError("this needs a store: choose `fidelity: broker` or `wire`")
    if isinstance(incident, RollingUpgrade) and incident.each <= 0:
        raise ValueError("`each` must be above 0")
    if isinstance(incident, ClockJump) and not any(
        isinstance(one, BrokerCrash | StoreOutage) and one.at + one.for_ > incident.at for one in scenario.faults
    ):
        raise ValueError("a broker reads the clock when it starts: add a `broker-crash` that ends after this")


# --- faults together ------------------------------------------------------------------------------------------------


def _check_overlaps(scenario: Scenario) -> None:
    """The same thing cannot begin where it has not ended."""
    over: dict[object, tuple[float, str]] = {}
    scripted = [(one.at, number, one) for number, one in enumerate(scenario.faults, 1) if isinstance(one, Scripted)]
    for at, number, incident in sorted(scripted, key=lambda one: one[:2]):
        label = label_of(incident)
        ends, touched = _touched(scenario, incident, label)
        for thing in touched:
            until, before = over.get(thing, (0.0, ""))
            if at < until:
                text = f"it begins at {at:g} s, before the one before has ended (`{before}`, until {until:g} s)"
                raise ValueError(f"fault {number} ({label}): {text}")
            over[thing] = (ends, label)


def _touched(scenario: Scenario, incident: Incident, label: str) -> tuple[float, set[object]]:
    """Until when, and what cannot happen to twice at the same time."""
    assert isinstance(incident, Scripted)
    ends = incident.at + incident.lasts_s
    match incident:
        case BrokerCrash() | StoreOutage():
            return ends, {"broker"}
        case HeartbeatLoss():
            return ends if incident.for_ else inf, {"beats"}
        case Hang() | Drain():
            words = incident.hang if isinstance(incident, Hang) else incident.drain
            named = {place for word in words for place in agents_named(scenario, word)}
            return ends, {(type(incident), *place) for place in named}
        case RollingUpgrade():
            count = scenario.groups[incident.rolling_upgrade].count
            return incident.at + incident.each * ceil(count / incident.batch), {label}
        case _:
            return ends, {label}
