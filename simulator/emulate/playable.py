"""Which scenarios can be played for real on one machine, and what of them is said to whom.

Processes can be killed, stopped, drained and started again; a network, a clock or a disk cannot be bent without rights
that nobody should need. What cannot be played is refused by name, never left out.
"""

from collections.abc import Iterator
from typing import Any, Final

from broker.errors import ConfigError
from simulator import incidents
from simulator.incidents import Incident, label_of
from simulator.scenario import Broker, Fidelity, Group, Pool, Scenario, Work

OPERATION: Final = "sleep"
"""What agents really run: it takes as long as the job says."""
AGENTS_MAX: Final = 64
RUN_S_MAX: Final = 6 * 3_600.0
PLAYED: Final = (
    incidents.Crash,
    incidents.ZoneDown,
    incidents.Hang,
    incidents.Drain,
    incidents.RollingUpgrade,
    incidents.BrokerCrash,
)
SHARED: Final = ("attempts", "crashes", "bounces", "backoff", "on_loss")
"""What a broker without policies of operations has once for all work."""


class NotPlayableError(ConfigError):
    """A scenario that cannot be played for real: one line for each thing, with the reason."""

    reason = "NOT_PLAYABLE"


def check(scenario: Scenario) -> None:
    """Raise NotPlayableError, naming all that cannot be played."""
    found = [*_of_whole(scenario), *_of_groups(scenario), *_of_work(scenario), *_of_faults(scenario)]
    if found:
        raise NotPlayableError("\n".join(f"cannot be played for real: {one}" for one in found))


def _of_whole(scenario: Scenario) -> Iterator[str]:
    if scenario.broker.fidelity in (Fidelity.EXACT, Fidelity.NETWORK):
        yield f"fidelity {scenario.broker.fidelity}: a real broker has costs; choose `broker` or `wire`"
    if scenario.end_s > RUN_S_MAX:
        yield f"horizon of {scenario.end_s:g} s: a real run takes as long as it says, here {RUN_S_MAX:g} s at most"
    if scenario.network.loss:
        yield f"network.loss {scenario.network.loss:g}: loopback loses nothing"
    if not scenario.work:
        yield "work: there is none"
    agents = sum(group.count for group in scenario.groups.values())
    if agents > AGENTS_MAX:
        yield f"{agents} agents: each is a process, and {AGENTS_MAX} are the most that are started"


def _of_groups(scenario: Scenario) -> Iterator[str]:
    first = next(iter(scenario.groups.values()))
    for name, group in scenario.groups.items():
        if group.autoscale is not None:
            yield f"groups.{name}.autoscale: nobody starts machines here"
        if (group.queue, group.spread) != (first.queue, first.spread):
            yield f"groups.{name}: queue and spread are settings of the broker, the same for all groups"
        for pool in group.agents:
            yield from (f"groups.{name}.agents: {why}" for why in _of_pool(pool))


def _of_pool(pool: Pool) -> Iterator[str]:
    for key, is_plain, why in (
        ("speed", pool.speed == 1, "all processes run on this machine"),
        ("labels", not pool.labels, "agents on loopback are all alike"),
        ("rank", pool.rank == 0, "agents on loopback are all alike"),
        ("backoff", pool.backoff == "mesh", "real agents have the back-off of the mesh"),
    ):
        if not is_plain:
            yield f"{key} {getattr(pool, key)}: {why}"


def _of_work(scenario: Scenario) -> Iterator[str]:
    first = next(iter(scenario.work.values()), None)
    for name, work in scenario.work.items():
        for key, is_plain, why in (
            ("arrivals", work.arrivals.closed is None, "closed clients are not open loop"),
            ("failure", work.failure == 0, "the operation that sleeps does not fail"),
            ("redraw", not work.redraw, "a job sleeps as long as it says, each time"),
            ("labels", not work.labels, "agents on loopback are all alike"),
            ("exclusive", not work.exclusive, "operations of real agents say so, not jobs"),
            ("running-max", not work.running_max, "brokers have no such setting for all work"),
        ):
            if not is_plain:
                yield f"work.{name}.{key}: {why}"
        for key in SHARED:
            if first is not None and getattr(work, key) != getattr(first, key):
                yield f"work.{name}.{key}: it is a setting of the broker, the same for all work"


def _of_faults(scenario: Scenario) -> Iterator[str]:
    for number, incident in enumerate(scenario.faults, 1):
        why = _why_not(incident)
        if why:
            yield f"fault {number} ({label_of(incident)}): {why}"


def _why_not(incident: Incident) -> str:
    if isinstance(incident, incidents.Crash):
        return "silent: the network of a killed process tells of its end at once" if incident.silent else ""
    if isinstance(incident, incidents.Hang) and incident.beats:
        return "beats: a process that is stopped does not beat"
    if isinstance(incident, PLAYED):
        return ""
    if isinstance(incident, incidents.Random):
        return "write down when things break; chance is for the simulation"
    return "only what can be done to a process on this machine is played: crash, hang, drain, upgrade, zone, broker"


# --- the same, said to the simulation -------------------------------------------------------------------------------


def as_simulated(scenario: Scenario, parts: dict[str, Any]) -> Scenario:
    """The scenario as it is played on one machine, with these parts of a profile (`simulator.profile.parts_of`).

    All work is one operation; every zone is the same loopback; a zone that goes down is its processes killed, of which
    the network tells.
    """
    tree = scenario.resolved()
    for key, value in parts.items():
        section, _, name = key.partition(".")
        tree.setdefault(section, {})[name] = value
    tree["network"]["other-zone"] = tree["network"]["same-zone"]
    for work in tree["work"].values():
        work["operation"] = OPERATION
    for index, fault in enumerate(scenario.faults):
        if isinstance(fault, incidents.ZoneDown):
            told = tree["faults"][index]
            tree["faults"][index] = {"at": told["at"], "crash": [fault.zone_down], "for": told["for"]}
    return Scenario.model_validate(tree)


# --- and to the broker ----------------------------------------------------------------------------------------------


def settings_of(scenario: Scenario) -> dict[str, str]:
    """Environment of a broker that has the settings of the scenario."""
    group, work = next(iter(scenario.groups.values())), next(iter(scenario.work.values()))
    said = {**_of_liveness(scenario.broker), **_of_queue(group), **_of_policy(work)}
    return {f"MESH_DISPATCH__{key.upper()}": str(value) for key, value in said.items()}


def _of_liveness(broker: Broker) -> dict[str, object]:
    names = ("heartbeat", "idle_heartbeat", "suspect", "lease", "margin", "reconnect_grace", "recovery_grace")
    return {f"{name}_s": getattr(broker, name) for name in (*names, "accept_timeout")}


def _of_queue(group: Group) -> dict[str, object]:
    return {"queue_jobs_max": group.queue.limit, "ageing_s": group.queue.ageing, "spread": group.spread.value}


def _of_policy(work: Work) -> dict[str, object]:
    return {
        "failures_max": work.attempts,
        "crashes_max": work.crashes,
        "bounces_max": work.bounces,
        "backoff_first_s": work.backoff,
        "on_loss": work.on_loss.value,
    }
