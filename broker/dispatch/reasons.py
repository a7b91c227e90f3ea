"""Machine names of why a dispatcher refuses, and of how jobs end: part of the contract, listed in docs/errors.md."""

from typing import Final

QUEUE_FULL: Final = "QUEUE_FULL"
QUEUE_BYTES_FULL: Final = "QUEUE_BYTES_FULL"
LABEL_SETS_FULL: Final = "LABEL_SETS_FULL"
LANES_FULL: Final = "LANES_FULL"
KEY_REUSED: Final = "IDEMPOTENCY_KEY_REUSED"
JOB_UNKNOWN: Final = "JOB_NOT_FOUND"
JOB_FINAL: Final = "JOB_FINAL"

ATTEMPTS_USED: Final = "attempts_used"
CRASHED_AGENTS: Final = "crashed_agents"
BOUNCES_USED: Final = "bounces_used"
NOT_STARTED_IN_TIME: Final = "not_started_in_time"
DEADLINE_EXCEEDED: Final = "deadline_exceeded"
OPERATION_UNKNOWN: Final = "operation_unknown"
AGENT_LOST: Final = "agent_lost"
RUN_TIMEOUT: Final = "run_timeout"
STOP_UNCONFIRMED: Final = "stop_unconfirmed"

OUTCOME_FINAL: Final = "final"
OUTCOME_SUPERSEDED: Final = "superseded"
OUTCOME_FOREIGN: Final = "foreign"
