"""Messages that surely keep the rules of the contract, told without asking the engine of the rules.

Submissions are the widest stream of the API and outcomes that of the mesh port, and almost all of them set few fields:
for those a look at what has rules is a fraction of what the rule engine costs, which goes through every field. "Not
plain" says nothing: the rules are asked then. Whatever is plain keeps the rules; a test holds the two against one
another.
"""

import re
from typing import Final

from google.protobuf.message import Message

from protos.mesh.v1 import agent_service_pb2 as agent_pb
from protos.mesh.v1 import job_pb2
from protos.mesh.v1 import job_service_pb2 as pb

JOBS_MAX: Final = 1_024
ATTEMPTS_MAX: Final = 65_536
KNOWN_MAX: Final = 4_096
_OPERATION: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")
_operations: dict[str, None] = {}
"""Names of operations that were found right; submissions repeat few of them."""
_STATUSES: Final = frozenset(job_pb2.OutcomeStatus.values()) - {job_pb2.OUTCOME_STATUS_UNSPECIFIED}
_WORK: Final = frozenset({"heartbeat", "accepted", "started", "outcomes"})


def is_plain(message: Message) -> bool:
    """Whether a look is enough to say that this message keeps the rules."""
    if type(message) is pb.SubmitStreamRequest:
        return _is_plain_batch(message.batch)
    return type(message) is agent_pb.AgentFrame and _is_plain_frame(message)


def _is_plain_frame(frame: agent_pb.AgentFrame) -> bool:
    """Whether it says nothing but what has become of attempts."""
    said = frame.ListFields()
    if len(said) == 1 and frame.HasField("heartbeat") and not frame.heartbeat.HasField("stuck"):
        return True  # of thousands of agents most frames are only that
    return (
        all(field.name in _WORK for field, _ in said)
        and all(
            len(numbers) <= ATTEMPTS_MAX
            for attempts in (frame.accepted, frame.started, frame.heartbeat.stuck)
            for numbers in (attempts.job_keys, attempts.attempts)
        )
        and _STATUSES.issuperset([outcome.status for outcome in frame.outcomes])
    )


def _is_plain_batch(batch: pb.SubmitJobsRequest) -> bool:
    return 0 < len(batch.parent) <= 256 and 0 < len(batch.jobs) <= JOBS_MAX and all(map(_is_plain, batch.jobs))


def _is_plain(job: pb.JobSpec) -> bool:
    return (
        (job.operation in _operations or _is_operation(job.operation))
        and len(job.job_id) == 16
        and job.priority <= 5
        and len(job.content_type) <= 128
        and len(job.fairness_key) <= 64
        and len(job.idempotency_key) <= 256
        and not (
            job.labels
            or job.metadata
            or job.HasField("delay")
            or job.HasField("start_at")
            or job.HasField("schedule_to_start")
            or job.HasField("run_timeout")
            or job.HasField("total_timeout")
        )
    )


def _is_operation(name: str) -> bool:
    if len(name) > 128 or not _OPERATION.fullmatch(name):
        return False
    if len(_operations) < KNOWN_MAX:
        _operations[name] = None
    return True
