"""Small scenarios for tests, and the runs that come of them."""

from typing import Any

from simulator.recorder import Run
from simulator.scenario import Scenario
from simulator.world import simulate


def scenario(
    *,
    fidelity: str = "broker",
    agents: Any = None,
    arrivals: Any = None,
    duration: Any = None,
    settle: str = "10 s",
    run: str = "60 s",
    group: dict[str, Any] | None = None,
    work: dict[str, Any] | None = None,
    faults: list[dict[str, Any]] | None = None,
    broker: dict[str, Any] | None = None,
    **rest: Any,
) -> Scenario:
    """One group `erp` with work `orders`: twenty jobs a second of 400 ms for six agents of four slots."""
    pool = {"count": 6, "slots": 4, "spread": ["zone-a", "zone-b", "zone-c"]}
    tree: dict[str, Any] = {
        "horizon": {"settle": settle, "run": run},
        "groups": {"erp": {"agents": agents or pool, **(group or {})}},
        "work": {
            "orders": {
                "group": "erp",
                "arrivals": arrivals or {"poisson": "20/s"},
                "duration": duration or {"exponential": "400 ms"},
                **(work or {}),
            }
        },
        "broker": {"fidelity": fidelity, **(broker or {})},
        "faults": faults or [],
        **rest,
    }
    return Scenario.model_validate(tree)


def play(seed: int = 1, replication: int = 0, **parts: Any) -> Run:
    """Play such a scenario."""
    return simulate(scenario(**parts), seed=seed, replication=replication)
