"""Erlang's C formula: how a central queue with Poisson arrivals and exponential durations behaves, without simulating.

It opens the search of `solve` near the answer, and stands beside the simulation in reports. Source: Kleinrock, Queueing
Systems, volume 1, section 3.5; the tail of the time in system is the convolution of the wait with one duration.
"""

from math import ceil, exp, floor
from typing import Final

SERVERS_MAX: Final = 1_000_000


def erlang_c(servers: int, load: float) -> float:
    """The chance that a job must wait, with `load` = rate x mean duration; 1 when the servers do not suffice.

    By the recursion of Erlang's B, which stays within 0 and 1 for any number of servers.
    """
    if load >= servers:
        return 1.0
    blocked = 1.0
    for count in range(1, servers + 1):
        blocked = load * blocked / (count + load * blocked)
    return blocked / (1 - load / servers * (1 - blocked))


def sojourn_tail(servers: int, rate_per_s: float, mean_s: float, time_s: float) -> float:
    """The share of jobs that are in the system for longer than `time_s`; 1 when the servers do not suffice."""
    load = rate_per_s * mean_s
    if load >= servers:
        return 1.0
    waits = erlang_c(servers, load)
    spare = servers / mean_s - rate_per_s
    own = 1 / mean_s
    alone = exp(-own * time_s)
    if abs(spare - own) < 1e-9 * own:
        return alone * (1 + waits * own * time_s)
    return alone + waits * own / (own - spare) * (exp(-spare * time_s) - alone)


def servers_for(rate_per_s: float, mean_s: float, time_s: float, share: float) -> int:
    """The least number of servers with which `share` of the jobs are done within `time_s`.

    Where no number would do, because the jobs themselves take longer, the least that keeps up with the arrivals.
    """
    least = max(1, floor(rate_per_s * mean_s) + 1)
    if exp(-time_s / mean_s) >= 1 - share:
        return least
    low, high = least, least
    while sojourn_tail(high, rate_per_s, mean_s, time_s) > 1 - share and high < SERVERS_MAX:
        low, high = high + 1, high * 2
    while low < high:
        middle = (low + high) // 2
        if sojourn_tail(middle, rate_per_s, mean_s, time_s) > 1 - share:
            low = middle + 1
        else:
            high = middle
    return high


def agents_for(servers: int, slots: int, zones: int, zones_lost: int, *, equal: bool) -> int:
    """The least number of agents of `slots` each that leaves `servers` slots when `zones_lost` of `zones` are gone.

    Agents are spread in turn, and the zones that are lost are those with more. `equal`: as many in every zone.
    """
    wanted = ceil(servers / slots)
    agents = zones if equal else 1
    while agents - _lost(agents, zones, zones_lost) < wanted:
        agents += zones if equal else 1
    return agents


def _lost(agents: int, zones: int, zones_lost: int) -> int:
    return sum(agents // zones + (zone < agents % zones) for zone in range(zones_lost))
