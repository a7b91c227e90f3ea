"""How jobs of an operation are treated, as the settings say, under the number that the group's store knows it by.

A policy is resolved at acceptance and kept with the job by number, so a change of the settings is for new jobs only.
Numbers are given once: what was stored is found again, also after settings went back and forth.
"""

from dataclasses import replace

from broker.dispatch.model import GroupNo, OperationPolicy
from broker.engine import Engine
from broker.settings import Settings


class GroupPolicies:
    """The policies of one group."""

    __slots__ = ("_default", "_special")

    def __init__(self, default: OperationPolicy, special: dict[str, OperationPolicy]) -> None:
        self._default = default
        self._special = special

    def of(self, operation: str) -> OperationPolicy:
        """The policy of new jobs of this operation."""
        return self._special.get(operation, self._default)


class Policies:
    """The policies of every group, numbered when they are first asked for."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._default = settings.dispatch.operation_policy()
        self._special = {name: settings.operation_policy(name) for name in settings.operations}
        self._groups: dict[GroupNo, GroupPolicies] = {}

    def in_group(self, group_no: GroupNo) -> GroupPolicies:
        """Those of one group. Raises NotOwnerError."""
        found = self._groups.get(group_no)
        if found is None:
            known = dict(self._engine.dispatcher(group_no).ledger.policies)
            default = _numbered(known, self._default)
            special = {name: _numbered(known, policy) for name, policy in self._special.items()}
            found = self._groups[group_no] = GroupPolicies(default, special)
        return found


def _numbered(known: dict[int, OperationPolicy], wanted: OperationPolicy) -> OperationPolicy:
    """The policy under its number; a new one gets the next, and is known from now on."""
    for policy in known.values():
        if replace(policy, no=wanted.no) == wanted:
            return policy
    numbered = replace(wanted, no=max(known, default=0) + 1)
    known[numbered.no] = numbered
    return numbered
