"""An agent that keeps a history of what it did and of what the broker said to it.

    python -m tests.e2e.agent HISTORY run --broker 127.0.0.1:7401 --dev --name a1

The process is `mesh-agent` itself; only its driver writes down, before it goes on, which attempts it starts, how they
end and which outcomes the broker accepted or refused.
"""

from __future__ import annotations

import sys
from pathlib import Path

import agent_stub.client
from agent_stub.cli import main
from agent_stub.operations import Operations
from agent_stub.session import Order, Outcome, OutcomeStatus, StartRun
from agent_stub.settings import AgentSettings
from protos.mesh.v1 import agent_service_pb2 as pb
from tests.e2e.history import History, attempt_key

PHASES = {OutcomeStatus.SUCCEEDED: "ok", OutcomeStatus.FAILED: "fail"}


class WritingAgent(agent_stub.client.Agent):
    """The agent, with a history beside it: lines of `file`."""

    file: Path

    def __init__(self, settings: AgentSettings, operations: Operations) -> None:
        super().__init__(settings, operations)
        self.history = History(self.file, settings.agent)

    def _carry_out(self, order: Order) -> None:
        if isinstance(order, StartRun):
            self.history.add("run", attempt_key(order.assign.job_key, order.assign.attempt), "invoke")
        super()._carry_out(order)

    def _on_finished(self, outcome: Outcome) -> None:
        phase = PHASES.get(outcome.status, "info")
        self.history.add("run", attempt_key(outcome.job_key, outcome.attempt), phase)
        super()._on_finished(outcome)

    def _receive(self, wire: pb.BrokerFrame) -> agent_stub.client._Ending | None:
        if wire.HasField("welcome"):
            self.history.add("session", self.settings.agent, "ok")
        accepted = wire.outcomes_accepted
        for job_key, attempt in zip(accepted.job_keys, accepted.attempts, strict=True):
            self.history.add("outcome", attempt_key(job_key, attempt), "ok")
        for refused in wire.outcomes_refused:
            self.history.add("outcome", attempt_key(refused.job_key, refused.attempt), "fail")
        return super()._receive(wire)


if __name__ == "__main__":
    WritingAgent.file = Path(sys.argv[1])
    setattr(agent_stub.client, "Agent", WritingAgent)  # noqa: B010 - the command line makes its agent from there
    sys.exit(main(sys.argv[2:]))
