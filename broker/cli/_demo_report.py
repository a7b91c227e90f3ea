"""What the demonstration found: as one JSON object, and in words."""

from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from broker.cli._demo_orders import Arrived


@dataclass(slots=True)
class AgentStory:
    """What one agent did. `held_when_killed` are the attempts that its death cut off; None: it was not killed."""

    name: str
    assigned: int = 0
    succeeded: int = 0
    killed: bool = False
    returned: bool = False
    drained: bool = False
    held_when_killed: int | None = None


@dataclass(slots=True)
class BrokerKill:
    """The broker was killed at `at_s` while agents held `held` attempts, and was ready again `down_s` later."""

    at_s: float
    held: int
    down_s: float


@dataclass(slots=True)
class AgentKill:
    """The agent was killed at `at_s`; `held` of its attempts were cut off, `rerun` of these jobs ran again.

    It was started again at `returned_at_s`, and finished so many jobs before and after that.
    """

    at_s: float
    agent: str
    held: int = 0
    rerun: int = 0
    returned_at_s: float = 0.0
    finished_before: int = 0
    finished_after: int = 0


@dataclass(slots=True)
class Drain:
    """The agent was drained at `at_s` while it held `held` attempts, of which `cut_off` did not finish there.

    Its process ended by itself with `exit_code`, `took_s` later (None: it did not).
    """

    at_s: float
    agent: str
    held: int
    cut_off: int = 0
    exit_code: int | None = None
    took_s: float = 0.0


class JobCounts(NamedTuple):
    """Jobs by how they ended; `lost` were acknowledged and never ended."""

    submitted: int
    succeeded: int
    failed: int
    dead: int
    lost: int


class AttemptCounts(NamedTuple):
    """Attempts: all, cut off by a fault, second ones, and late outcomes that were refused."""

    total: int
    interrupted: int
    rerun: int
    stale_refused: int


@dataclass(slots=True)
class Report:
    """The whole of one run."""

    elapsed_s: float
    arrived: Arrived
    jobs: JobCounts
    agents: list[AgentStory]
    attempts: AttemptCounts
    p50_ms: float
    p99_ms: float
    jain: float
    store_kind: str
    synchronous: str
    broker_kill: BrokerKill | None = None
    agent_kill: AgentKill | None = None
    drain: Drain | None = None
    verdicts: list[tuple[bool, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.verdicts = [
            self._rows(),
            self._sums(),
            self._jobs(),
            self._agent_kill(),
            self._agent_return(),
            self._drain(),
            self._broker_kill(),
        ]

    @property
    def is_ok(self) -> bool:
        """Whether everything that was promised held, and every fault interrupted something."""
        return all(holds for holds, _ in self.verdicts)

    def _rows(self) -> tuple[bool, str]:
        arrived = self.arrived
        if arrived.is_right:
            return True, f"all {arrived.expected:,} orders are in the target, each exactly once and right"
        return False, (
            f"of {arrived.expected:,} orders {arrived.target:,} rows are in the target: {arrived.missing} missing, "
            f"{arrived.duplicates} twice, {arrived.wrong} wrong, {arrived.changed} changed by a second run"
        )

    def _sums(self) -> tuple[bool, str]:
        source, target = self.arrived.source_cents / 100, self.arrived.target_cents / 100
        if self.arrived.source_cents == self.arrived.target_cents:
            return True, f"the amounts add up to {source:,.2f} in the source and in the target"
        return False, f"the amounts add up to {source:,.2f} in the source, {target:,.2f} in the target"

    def _jobs(self) -> tuple[bool, str]:
        jobs = self.jobs
        if jobs.succeeded == jobs.submitted and not jobs.lost:
            return True, f"all {jobs.submitted} acknowledged jobs succeeded, none was lost"
        return False, (
            f"of {jobs.submitted} acknowledged jobs {jobs.succeeded} succeeded, {jobs.failed} failed, "
            f"{jobs.dead} are dead, {jobs.lost} lost"
        )

    def _broker_kill(self) -> tuple[bool, str]:
        kill = self.broker_kill
        if kill is None:
            return False, "the broker was never killed: nothing is shown"
        text = f"at {kill.at_s:.1f} s the broker was killed while agents held {kill.held} attempts"
        if not kill.held:
            return False, f"{text}: that interrupted nothing"
        return True, f"{text}; it was back after {kill.down_s:.1f} s, on the same data"

    def _agent_kill(self) -> tuple[bool, str]:
        kill = self.agent_kill
        if kill is None:
            return False, "no agent was killed: nothing is shown"
        text = f"at {kill.at_s:.1f} s agent {kill.agent} was killed, which cut off {kill.held} attempts"
        if not kill.held:
            return False, f"{text}: that interrupted nothing"
        return kill.rerun == kill.held, f"{text}; {kill.rerun} of these jobs ran again"

    def _agent_return(self) -> tuple[bool, str]:
        kill = self.agent_kill
        if kill is None or not kill.returned_at_s:
            return False, "no agent returned: nothing is shown"
        text = (
            f"at {kill.returned_at_s:.1f} s agent {kill.agent} was back, and finished {kill.finished_after} more jobs"
        )
        return kill.finished_after > 0, text

    def _drain(self) -> tuple[bool, str]:
        drain = self.drain
        if drain is None or drain.exit_code is None:
            return False, "no agent was drained: nothing is shown"
        text = f"at {drain.at_s:.1f} s agent {drain.agent} was drained while it held {drain.held} attempts"
        if not drain.held:
            return False, f"{text}: that interrupted nothing"
        if drain.cut_off or drain.exit_code:
            return False, f"{text}; {drain.cut_off} were cut off, and its exit code was {drain.exit_code}"
        return True, f"{text}; it finished all of them and left {drain.took_s:.1f} s later"

    def as_json(self) -> dict[str, object]:
        """The object that `--json` prints; its schema is `docs/schemas/demo.json`."""
        arrived = self.arrived
        return {
            "ok": self.is_ok,
            "elapsed_s": round(self.elapsed_s, 3),
            "rows": {
                "expected": arrived.expected,
                "target": arrived.target,
                "missing": arrived.missing,
                "duplicates": arrived.duplicates,
                "wrong": arrived.wrong,
                "rewritten": arrived.rewritten,
                "changed": arrived.changed,
            },
            "sums": {"source": arrived.source_cents / 100, "target": arrived.target_cents / 100},
            "jobs": self.jobs._asdict(),
            "agents": [asdict(agent) for agent in self.agents],
            "attempts": self.attempts._asdict(),
            "latency_ms": {"p50": round(self.p50_ms, 1), "p99": round(self.p99_ms, 1)},
            "evenness": {"jain": round(self.jain, 4)},
            "store": {"kind": self.store_kind, "synchronous": self.synchronous},
            "faults": {
                "broker_kill": asdict(self.broker_kill) if self.broker_kill else None,
                "agent_kill": asdict(self.agent_kill) if self.agent_kill else None,
                "drain": asdict(self.drain) if self.drain else None,
            },
        }

    def show(self, console: Console) -> None:
        """The same in words."""
        table = Table(title="Agents")
        for heading in ("agent", "assigned", "succeeded", "fate"):
            table.add_column(heading, justify="left" if heading in ("agent", "fate") else "right")
        for agent in self.agents:
            table.add_row(agent.name, str(agent.assigned), str(agent.succeeded), _fate(agent))
        console.print(table)
        console.print(
            f"{self.attempts.total} attempts for {self.jobs.submitted} jobs, {self.attempts.rerun} of them again; "
            f"{self.arrived.rewritten} rows written a second time with the same content"
        )
        console.print(
            f"accepted to finished: {self.p50_ms:,.0f} ms (median), {self.p99_ms:,.0f} ms (99 %); "
            f"evenness {self.jain:.3f} (Jain, until the agent was killed); "
            f"store {self.store_kind}, synchronous {self.synchronous}"
        )
        for holds, text in self.verdicts:
            console.print(f"[green]yes[/] {text}" if holds else f"[bold red]NO[/]  {text}")
        verdict = "[bold green]Nothing was lost.[/]" if self.is_ok else "[bold red]The demonstration failed.[/]"
        console.print(f"{verdict} It took {self.elapsed_s:.1f} s.")


def _fate(agent: AgentStory) -> str:
    if agent.killed:
        return f"killed, held {agent.held_when_killed}{'; came back' if agent.returned else ''}"
    return "drained, left by itself" if agent.drained else "stayed"
