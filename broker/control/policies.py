"""How jobs of an operation are treated, as the settings say, under the number that the group's store knows it by.

A policy is resolved at acceptance and kept with the job by number, so a change of the settings is for new jobs only.
Numbers are given once: what was stored is found again, also after settings went back and forth.
"""

from collections.abc import Callable
from dataclasses import replace

from broker.dispatch.model import SECOND_US, GroupNo, OperationPolicy
from broker.engine import Engine
from broker.errors import MalformedError
from broker.settings import Settings
from broker.store.base import GroupRow


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
    """The policies of every group, numbered when they are first asked for and whenever the group was changed.

    `rules_of` says how a group treats its jobs. What the settings say of an operation comes before that.
    """

    def __init__(self, engine: Engine, settings: Settings, rules_of: Callable[[GroupNo], GroupRow]) -> None:
        self._engine = engine
        self._settings = settings
        self._rules_of = rules_of
        self._groups: dict[GroupNo, tuple[GroupRow, GroupPolicies]] = {}
        self._numbers: dict[GroupNo, dict[int, OperationPolicy]] = {}  # given, also those that no job has used yet

    def in_group(self, group_no: GroupNo) -> GroupPolicies:
        """Those of one group. Raises NotOwnerError."""
        row = self._rules_of(group_no)
        found = self._groups.get(group_no)
        if found is None or found[0] is not row:
            found = self._groups[group_no] = (row, self._resolved(row))
        return found[1]

    def _resolved(self, row: GroupRow) -> GroupPolicies:
        known = self._numbers.setdefault(row.group_no, {})
        known |= self._engine.dispatcher(row.group_no).ledger.policies
        of_group = in_group(self._settings.dispatch.operation_policy(), row)
        default = _numbered(known, of_group)
        settings = self._settings
        special = {name: _numbered(known, settings.operation_policy(name, of_group)) for name in settings.operations}
        return GroupPolicies(default, special)


def in_group(default: OperationPolicy, row: GroupRow) -> OperationPolicy:
    """The policy with what the group says in the place of the broker's settings."""
    return replace(
        default,
        failures_max=row.attempts_max or default.failures_max,
        backoff_first_us=row.backoff_first_us or default.backoff_first_us,
        backoff_max_us=row.backoff_max_us or default.backoff_max_us,
        cancel_grace_us=row.cancel_grace_us or default.cancel_grace_us,
    )


def check_backoff(default: OperationPolicy, row: GroupRow) -> None:
    """Refuse a first delay above the largest one, which may be the broker's. Raises MalformedError."""
    policy = in_group(default, row)
    if policy.backoff_first_us <= policy.backoff_max_us:
        return
    first, most = (
        f"{name} ({us / SECOND_US:g} s, {'the group' if own else 'the broker'} says)"
        for name, us, own in (
            ("backoff_first", policy.backoff_first_us, row.backoff_first_us),
            ("backoff_max", policy.backoff_max_us, row.backoff_max_us),
        )
    )
    text = f"{first} is longer than {most}, which cuts it: say both, with backoff_max at least as long"
    field = "group.policy.backoff_first" if row.backoff_first_us else "group.policy.backoff_max"
    raise MalformedError(text, reason="INVALID_MESSAGE", field=field)


def _numbered(known: dict[int, OperationPolicy], wanted: OperationPolicy) -> OperationPolicy:
    """The policy under its number; a new one gets the next, and is known from now on."""
    for policy in known.values():
        if replace(policy, no=wanted.no) == wanted:
            return policy
    numbered = replace(wanted, no=max(known, default=0) + 1)
    known[numbered.no] = numbered
    return numbered
