"""A long course of events by a seed, and the digest of all that it ordered.

`python -m tests.broker.dispatch.course 7` prints the digest of seed 7: another process must give the same.
"""

from __future__ import annotations

import sys
from hashlib import sha256
from random import Random

from broker.dispatch.model import OnLoss, Placing
from tests.broker.dispatch.bench import GroupBench

AGENTS = ("a", "b", "c", "d")
OPERATIONS = ("fetch", "store", "convert")
STEPS = 250


def course(seed: int, placing: str = Placing.LEAST_LOADED) -> GroupBench:
    """A day, then the broker is killed and its agents come back."""
    group = day(seed, placing).restart()
    for name in AGENTS:
        group.connect(name)
    return group.advance(60)


def day(seed: int, placing: str = Placing.LEAST_LOADED) -> GroupBench:
    """Agents come and go, jobs of many kinds are submitted, run, fail and are cancelled."""
    chance = Random(seed)
    group = GroupBench(seed, placing=placing)
    for name in AGENTS:
        group.agents(name, slots=3, operations=OPERATIONS, labels=("zone=eu", "disk=ssd", f"name={name}"))
    for number in range(STEPS):
        _act(group, chance, number)
    return group


def _act(group: GroupBench, chance: Random, number: int) -> None:
    act = chance.choice(("submit", "submit", "finish", "fail", "start", "cancel", "drop", "new", "advance"))
    busy = [name for jobs in group.assigned.values() for name in jobs if group.phases[name] in {"sent", "accepted"}]
    present = [name for name in AGENTS if group.agent(name).is_present]
    if act == "submit":
        group.submit(
            f"j{number}",
            operation=chance.choice(OPERATIONS),
            labels=chance.choice(((), ("zone=eu",), ("disk=ssd", "zone=eu"))),
            fairness=chance.choice("xyz"),
            level=chance.randint(1, 5),
            exclusive=chance.random() < 0.3,
            on_loss=chance.choice(list(OnLoss)),
        )
    elif act in {"finish", "fail", "start", "cancel"} and busy:
        getattr(group, act)(chance.choice(busy))
    elif act in {"drop", "new"} and present:
        name = chance.choice(present)
        if act == "drop":
            group.lose(name)
        group.connect(name, new=act == "new")
    elif act == "advance":
        group.advance(chance.choice((0.5, 1, 7)))


def digest(group: GroupBench) -> str:
    """Of every effect with its time, byte for byte."""
    return sha256(repr(group.history).encode()).hexdigest()


if __name__ == "__main__":
    print(digest(course(int(sys.argv[1]))))
