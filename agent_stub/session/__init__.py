"""The agent's side of the stream, pure: no clock, no I/O, no wire format, no randomness.

The same session runs in the real agent (driven by `agent_stub.client`) and in the simulator. Standard library only.
"""

from agent_stub.session.attempts import FENCED
from agent_stub.session.messages import (
    OWN_PREFETCH,
    Assign,
    Cancel,
    Capacity,
    Frame,
    Heartbeat,
    Hello,
    KeepOutcome,
    Key,
    LeaveStream,
    Order,
    Outcome,
    OutcomeStatus,
    Progress,
    Rejected,
    RejectedReason,
    StartRun,
    StopRun,
    Verdict,
    Welcome,
)
from agent_stub.session.session import AgentSession, Phase

__all__ = [
    "FENCED",
    "OWN_PREFETCH",
    "AgentSession",
    "Assign",
    "Cancel",
    "Capacity",
    "Frame",
    "Heartbeat",
    "Hello",
    "KeepOutcome",
    "Key",
    "LeaveStream",
    "Order",
    "Outcome",
    "OutcomeStatus",
    "Phase",
    "Progress",
    "Rejected",
    "RejectedReason",
    "StartRun",
    "StopRun",
    "Verdict",
    "Welcome",
]
