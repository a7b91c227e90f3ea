"""A group of the world: its dispatch policy, what its agents can run, and the agents themselves."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from broker.dispatch.model import DispatchPolicy, GroupNo, Placing
from simulator.scenario import Broker, Fidelity, Group, Scenario
from simulator.streams import SECOND_US
from simulator.workload import operation_of

if TYPE_CHECKING:
    from simulator.agents import SimAgent

NEVER_US: Final = 10**17
"""Three thousand years: longer than any run. At `exact` nobody beats, so nobody is silent."""


@dataclass(slots=True, eq=False)
class Fleet:
    """One group. `agents` are in the order of their numbers, from 1."""

    no: GroupNo
    name: str
    group: Group
    policy: DispatchPolicy
    operations: frozenset[str]
    agents: "list[SimAgent]" = field(default_factory=list)

    @classmethod
    def of(cls, no: GroupNo, name: str, scenario: Scenario) -> "Fleet":
        """The group of a scenario, without its agents."""
        group = scenario.groups[name]
        operations = frozenset(operation_of(work, one) for work, one in scenario.work.items() if one.group == name)
        return cls(no, name, group, policy_of(group, scenario.broker), operations or frozenset({"nothing"}))


def policy_of(group: Group, broker: Broker) -> DispatchPolicy:
    """The dispatcher's settings."""
    is_exact = broker.fidelity is Fidelity.EXACT
    placing, choices = placing_of(group.policy)

    def us(seconds: float) -> int:
        return round(seconds * SECOND_US)

    return DispatchPolicy(
        heartbeat_us=us(broker.heartbeat),
        idle_heartbeat_us=us(broker.idle_heartbeat),
        suspect_us=NEVER_US if is_exact else us(broker.suspect),
        lease_us=2 * NEVER_US if is_exact else us(broker.lease),
        margin_us=us(broker.margin),
        reconnect_grace_us=us(broker.reconnect_grace),
        recovery_grace_us=us(broker.recovery_grace),
        accept_timeout_us=NEVER_US if is_exact else us(broker.accept_timeout),
        queue_jobs_max=group.queue.limit,
        spread=group.spread,
        ageing_us=us(group.queue.ageing),
        placing=placing,
        placing_choices=choices,
    )


def placing_of(policy: str) -> tuple[Placing, int]:
    """The dispatcher's name of a policy of a scenario, and its d."""
    name, _, choices = policy.rpartition("-")
    if name == "power-of":
        return Placing.POWER_OF_D, int(choices)
    return Placing(policy.replace("-", "_")), 2
