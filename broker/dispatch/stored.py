"""The writes of a group added up as a store would: what recovery starts from, in tests and simulations."""

from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.model import (
    ACCEPTANCE_BITS,
    FINAL_STATES,
    AgentNo,
    JobKey,
    OperationPolicy,
)
from broker.dispatch.recovery import recover, recover_jobs, seal
from broker.dispatch.rows import (
    AgentRow,
    AttemptRow,
    JobRow,
    JobUpdate,
    KeyRow,
    LabelSetRow,
    RequestRow,
    TransitionRow,
    Writes,
)


class Stored:
    """What a store holds of one group after all writes so far: live and finished jobs apart, the rest as written."""

    __slots__ = (
        "acceptance_no",
        "agents",
        "attempts",
        "checkpoints",
        "finished",
        "jobs",
        "keys",
        "label_sets",
        "policies",
        "requests",
        "results",
        "transitions",
    )

    def __init__(self) -> None:
        self.acceptance_no = 0
        self.jobs: dict[JobKey, JobRow] = {}
        self.finished: dict[JobKey, JobRow] = {}
        self.policies: dict[int, OperationPolicy] = {}
        self.label_sets: dict[int, LabelSetRow] = {}
        self.agents: dict[AgentNo, AgentRow] = {}
        self.keys: dict[str, KeyRow] = {}
        self.attempts: list[AttemptRow] = []
        self.requests: list[RequestRow] = []
        self.transitions: list[TransitionRow] = []
        self.checkpoints: dict[JobKey, object] = {}
        self.results: dict[JobKey, object] = {}

    def apply(self, writes: Writes) -> None:
        """Commit one batch. Asserts what a database would refuse: a key twice, an update of nothing."""
        for policy in writes.policies:
            self.policies[policy.no] = policy
        for label_set in writes.label_sets:
            assert label_set.labels_no not in self.label_sets, f"label set {label_set.labels_no} is written twice"
            self.label_sets[label_set.labels_no] = label_set
        for row in writes.inserts:
            assert row.job_key not in self.jobs, f"job {row.job_key} is inserted twice"
            self._put(row)
        for update in writes.updates:
            self._put(_updated(self.jobs[update.job_key], update))
        for key in writes.keys:
            self.keys[key.key] = key
        for agent in writes.agents:
            self.agents[agent.agent_no] = agent
        self.requests += writes.requests
        self.attempts += writes.attempts
        self.transitions += writes.transitions
        self.checkpoints |= writes.checkpoints
        self.results |= writes.results

    def _put(self, row: JobRow) -> None:
        self.acceptance_no = max(self.acceptance_no, row.job_key & ((1 << ACCEPTANCE_BITS) - 1))
        if row.state in FINAL_STATES:
            self.jobs.pop(row.job_key, None)
            self.finished[row.job_key] = row
        else:
            self.jobs[row.job_key] = row

    def recover(self, dispatcher: Dispatcher, now_us: int) -> None:
        """Fill an empty dispatcher with what is stored; it may step afterwards."""
        recover(
            dispatcher,
            now_us,
            acceptance_no=self.acceptance_no,
            policies=self.policies.values(),
            label_sets=self.label_sets.values(),
            agents=self.agents.values(),
        )
        recover_jobs(dispatcher, (self.jobs[key] for key in sorted(self.jobs)))
        seal(dispatcher)


def _updated(row: JobRow, update: JobUpdate) -> JobRow:
    return row._replace(**update._asdict())
