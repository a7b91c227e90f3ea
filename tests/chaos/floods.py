"""Those that are polite in each word and say it without end: a submitter, and an agent.

Attacks of `tests.chaos.attacker`; here the number is that of seconds. `began_ms` and `ended_ms` say when, by the wall
clock, what they did was felt: a process that starts is felt by others too, on a machine of few cores; `busy_ms` is the
processor time that it took itself. Beside them one that takes as much and does nothing.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count, islice
from threading import Semaphore
from typing import Final

import grpc

from protos.mesh.v1 import agent_service_pb2 as agent_pb
from protos.mesh.v1 import agent_service_pb2_grpc, job_pb2, job_service_pb2_grpc
from protos.mesh.v1 import job_service_pb2 as pb
from tests.chaos.frames import Counts
from tests.chaos.mangled import hello

GREEDY: Final = "organizations/default/groups/greedy"
CHATTER: Final = "chatter"
IDENTITY: Final = (("mesh-dev-identity", f"default/default/{CHATTER}"),)
BATCH: Final = 100
UNANSWERED_MAX: Final = 64
"""Batches, or frames with a heartbeat, that wait for their answers."""
REPORTS: Final = 100
STINT_S: Final = 0.005
"""A neighbour works, and rests, in so many seconds together."""
HEARD_S: Final = 0.05
SUCCEEDED: Final = job_pb2.OUTCOME_STATUS_SUCCEEDED
CHECKPOINT: Final = b"c" * 1_000
NOWHERE: Final = 1 << 50
"""Numbers from here on are no job's."""


def job_ids(seed: int) -> Iterator[bytes]:
    """Ids of the jobs that a flood submits, without end."""
    generator = random.Random(seed)
    while True:
        yield generator.randbytes(16)


def submissions(address: str, seed: int, number: int) -> Counts:
    """Batches of jobs into the group `GREEDY` as fast as they are answered, for so many seconds."""
    began, until_s = _now(), time.monotonic() + number
    counts: Counter[str] = Counter(sent=0, accepted=0, refused=0)
    ids, window = job_ids(seed), Semaphore(UNANSWERED_MAX)

    def batches() -> Iterator[pb.SubmitStreamRequest]:
        for seq in count(1):
            if time.monotonic() > until_s:
                return
            window.acquire()
            jobs = [pb.JobSpec(job_id=job_id, operation="echo", payload=b"{}") for job_id in islice(ids, BATCH)]
            counts["sent"] += BATCH
            yield pb.SubmitStreamRequest(batch_seq=seq, batch=pb.SubmitJobsRequest(parent=GREEDY, jobs=jobs))

    with grpc.insecure_channel(address) as channel:
        for answer in job_service_pb2_grpc.JobServiceStub(channel).SubmitStream(batches()):
            window.release()
            refused = sum(result.HasField("error") for result in answer.results)
            counts["refused"] += refused
            counts["accepted"] += len(answer.results) - refused
    return {**counts, **_spent(began)}


def reports(address: str, seed: int, number: int) -> Counts:
    """One agent's heartbeats, progress, starts and outcomes of jobs that nobody has, for so many seconds.

    Capacity 1 and an operation that nobody asks for: it takes no work from the others.
    """
    began, until_s = _now(), time.monotonic() + number
    counts: Counter[str] = Counter(frames=0, reports=0, answers=0)
    window = Semaphore(UNANSWERED_MAX)

    def frames() -> Iterator[agent_pb.AgentFrame]:
        yield hello(random.Random(seed))
        for seq in count(1):
            if time.monotonic() > until_s:
                return
            window.acquire(timeout=HEARD_S)
            counts["frames"] += 1
            counts["reports"] += 4 * REPORTS
            yield _chatter(seq)

    with grpc.insecure_channel(address) as channel:
        stub = agent_service_pb2_grpc.AgentServiceStub(channel)
        for answer in stub.Connect(frames(), metadata=IDENTITY):
            counts["answers"] += len(answer.outcomes_refused) + len(answer.cancels)
            if answer.HasField("heartbeat_ack"):  # of the newest: it answers those before it too
                window.release(UNANSWERED_MAX // 4)
    return {**counts, **_spent(began)}


def _chatter(seq: int) -> agent_pb.AgentFrame:
    keys = [NOWHERE + seq * REPORTS + at for at in range(REPORTS)]
    attempts = agent_pb.AttemptList(job_keys=keys, attempts=[1] * REPORTS)
    return agent_pb.AgentFrame(
        heartbeat=agent_pb.Heartbeat(seq=seq, held=1),
        accepted=attempts,
        started=attempts,
        progress=[agent_pb.Progress(job_key=key, attempt=1, checkpoint=CHECKPOINT) for key in keys],
        outcomes=[agent_pb.Outcome(job_key=key, attempt=1, status=SUCCEEDED) for key in keys],
    )


def neighbour(address: str, seed: int, number: int) -> Counts:
    """Nothing, for so many seconds, with the share of a core that stands in the place of an address."""
    began, until_s, share = _now(), time.monotonic() + number, float(address)
    while (now_s := time.monotonic()) < until_s:
        while time.monotonic() < now_s + share * STINT_S:
            pass
        time.sleep((1 - share) * STINT_S)
    return _spent(began)


def _spent(began: tuple[int, float]) -> Counts:
    """Since when, until when, and how much processor time this process took in between."""
    ended = _now()
    return {"began_ms": began[0], "ended_ms": ended[0], "busy_ms": round(1_000 * (ended[1] - began[1]))}


def _now() -> tuple[int, float]:
    """By the wall clock in milliseconds, and by the processor time of this process in seconds."""
    return time.time_ns() // 1_000_000, time.process_time()
