"""Those that report what is not theirs, say again what was said, or say something else under the same name.

A forger is an agent of the group with an identity of its own: it may connect, and knows which attempts the others run.
Recordings are the bytes of a real agent's, or a real submitter's, connection; a replay sends them again as they were.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Final
from uuid import UUID

from google.rpc import code_pb2

from mesh_client import JobSpec, MeshClient
from protos.mesh.v1 import agent_service_pb2 as agent_pb
from protos.mesh.v1 import job_pb2
from protos.mesh.v1 import job_service_pb2 as pb
from tests.broker.rpc.http2 import PREFACE
from tests.broker.rpc.peer import Key, Peer, attempts, hello, stream_to
from tests.broker.running import Api, channel_to
from tests.chaos.careless import without
from tests.chaos.frames import DATA, HEADER_BYTES, PING
from tests.chaos.row import BROKER, Control, MissedError, Ran, Row, Trial
from tests.chaos.siege import Siege
from tests.chaos.stage import planted, unguarded
from tests.e2e.proxy import Direction, Proxy

FORGER: Final = "forger"
RUNS: Final = 8
RUN_S: Final = 3.0
KEY_MAX: Final = 2**63 - 1
ATTEMPT_MAX: Final = 2**32 - 1
COPIES: Final = 8
CONNECTIONS: Final = 4
ANSWER_S: Final = 20.0
REPLAYED_S: Final = 0.5
"""What a broker says to a replay is read for so long after its first word."""
STATUSES: Final = (
    job_pb2.OUTCOME_STATUS_SUCCEEDED,
    job_pb2.OUTCOME_STATUS_FAILED,
    job_pb2.OUTCOME_STATUS_CANCELLED,
    job_pb2.OUTCOME_STATUS_FENCED,
)


# --- reports that are not one's own -----------------------------------------------------------------------------------


async def forged_reports(trial: Trial, program: Sequence[str] = BROKER) -> Ran:
    """Of what others run at that moment: outcomes, accepts, starts, rejects, progress, and a Hello that holds it."""
    answered: Counter[str] = Counter()
    async with Siege(trial, program=program) as siege:
        for _ in range(trial.of(1, 20)):
            await siege.course.submit([RUN_S] * RUNS)
            live = await _live(siege, RUNS)
            async with stream_to(siege.mesh, FORGER) as forger:
                await forger.say(_forged_hello(live))
                verdicts = (await forger.welcome()).verdicts
                siege.expect(
                    set(verdicts) == {agent_pb.VERDICT_STOP}, f"a forger may keep what it says it holds: {verdicts}"
                )
                await forger.say(_forged_words(live))
                for key in live:
                    await _forge_outcomes(siege, forger, key, answered)
    siege.figures |= {f"refused_{reason}": count for reason, count in answered.items()}
    siege.expect(answered["foreign"] > 0, "nothing was refused as foreign")
    return siege.ran(answered.total())


async def _live(siege: Siege, number: int) -> list[Key]:
    """Attempts that other agents run now and for a while: the ones that take longest."""
    await siege.course.running(number)
    runs = [entry for entry in siege.course.entries() if entry.op == "run"]
    ended = {entry.key for entry in runs if entry.phase != "invoke"}
    live = [entry.key.split("/") for entry in runs if entry.key not in ended]
    return [(int(key), int(attempt)) for key, attempt in live]


def _forged_hello(live: Sequence[Key]) -> agent_pb.AgentFrame:
    return hello(FORGER, slots=1, operations=("none.such",), held=live)


def _forged_words(live: Sequence[Key]) -> agent_pb.AgentFrame:
    """All that can be said of attempts besides their end."""
    return agent_pb.AgentFrame(
        accepted=attempts(*live),
        started=attempts(*live),
        rejected=[agent_pb.Rejected(job_key=key, attempt=number) for key, number in live],
        progress=[agent_pb.Progress(job_key=key, attempt=number, checkpoint=b"forged") for key, number in live],
    )


async def _forge_outcomes(siege: Siege, forger: Peer, key: Key, answered: Counter[str]) -> None:
    """Of one attempt: as it is, of attempts that never were, and of numbers at the ends of their range."""
    job, attempt = key
    numbers = [(job, one) for one in (attempt, 0, attempt + 1, ATTEMPT_MAX)] + [
        (-job, 1),
        (KEY_MAX, 1),
        (-KEY_MAX - 1, 1),
    ]
    for number in numbers:
        for status in STATUSES:
            said = agent_pb.Outcome(job_key=number[0], attempt=number[1], status=status)
            answer = await forger.report(said)
            siege.expect(not answer.outcomes_accepted.job_keys, f"the forged outcome of {number} was accepted")
            answered.update(one.reason for one in answer.outcomes_refused)


# --- what was said before ---------------------------------------------------------------------------------------------


async def replayed_agent(trial: Trial, program: Sequence[str] = BROKER) -> Ran:
    """The whole stream of an agent, while it is there and after it has left."""
    async with Siege(trial, program=program) as siege, Proxy(siege.mesh) as proxy:
        await siege.course.start_agent("a3", slots=4, broker=proxy.address)
        await siege.load.until_acknowledged(trial.of(40, 400))
        recorded = bytes(proxy.recorded[Direction.TO_BROKER])
        for _ in range(trial.of(3, 30)):
            await _replay(siege.mesh, recorded)
        await siege.course.mesh.agents["a3"].stop()
        recorded = bytes(proxy.recorded[Direction.TO_BROKER])
        for _ in range(trial.of(3, 30)):
            await _replay(siege.mesh, recorded)
        await siege.load.until_acknowledged(40)
    siege.figures["recorded_bytes"] = len(recorded)
    return siege.ran(2 * trial.of(3, 30))


async def _replay(address: str, recorded: bytes) -> None:
    """Send it all, and read for a while. Raises MissedError if no service has answered: nobody read it then."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    heard = b""
    try:
        writer.write(without_pings(recorded))
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(ANSWER_S):
                while DATA not in kinds_of(heard) and (part := await reader.read(1 << 16)):
                    heard += part
            async with asyncio.timeout(REPLAYED_S):
                while part := await reader.read(1 << 16):
                    heard += part
    finally:
        writer.close()
    if DATA not in kinds_of(heard):
        raise MissedError(f"no service answered to a replay: it was none; {heard[-100:]!r}")


def without_pings(recorded: bytes) -> bytes:
    """What a client has said on its first connection, but for its pings.

    All at once they are a flood, for which a server ends a connection before it has read the rest.
    """
    first = recorded.removeprefix(PREFACE).partition(PREFACE)[0]
    kept = [one for kind, one in _frames(first) if kind != PING]
    return PREFACE + b"".join(kept)


def kinds_of(said: bytes) -> set[int]:
    """The kinds of the frames that a server has said."""
    return {kind for kind, _ in _frames(said)}


def _frames(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and bytes of each frame; a last one may be cut short."""
    at = 0
    while at + HEADER_BYTES <= len(content):
        end = at + HEADER_BYTES + int.from_bytes(content[at : at + 3], "big")
        yield content[at + 3], content[at:end]
        at = end


# --- what was submitted before ----------------------------------------------------------------------------------------


async def duplicates(trial: Trial, program: Sequence[str] = BROKER) -> Ran:
    """The same job again and again at once, other content under its name, and a recorded submitter."""
    hit: Counter[str] = Counter()
    async with Siege(trial, program=program) as siege:
        for number in range(trial.of(20, 500)):
            await _submit_copies(siege, number, hit)
        hit["replayed"] = await _replay_submitter(siege, trial.of(3, 30))
    siege.figures |= dict(hit)
    return siege.ran(hit.total())


async def _submit_copies(siege: Siege, number: int, hit: Counter[str]) -> None:
    """One job is made of them all, and none of what is different."""
    course = siege.course
    job_id = UUID(int=course.generator.getrandbits(128), version=4)
    course.history.add("submit", job_id.hex, "invoke")
    same = pb.JobSpec(job_id=job_id.bytes, operation="echo", payload=b"{}", idempotency_key=f"order-{number}")
    other = pb.JobSpec(job_id=job_id.bytes, operation="echo", payload=json.dumps(number).encode())
    stolen = pb.JobSpec(job_id=bytes(reversed(job_id.bytes)), operation="echo", idempotency_key=f"order-{number}")
    async with _apis(siege.api) as apis:
        answers = await asyncio.gather(*(apis[at % CONNECTIONS].submit(same) for at in range(COPIES)))
        results = [result for (result,) in answers]
        made = [one for one in results if not one.duplicate and not one.HasField("error")]
        siege.expect(len(made) == 1, f"{len(made)} jobs were made of {COPIES} copies of one")
        siege.expect(len({one.job_key for one in results}) == 1, "copies of a job were told different numbers")
        for wrong in (other, stolen):
            for (result,) in await asyncio.gather(*(api.submit(wrong) for api in apis)):
                is_refused = result.error.code == code_pb2.ALREADY_EXISTS
                siege.expect(is_refused, f"other content under a name that is taken: {result}")
    course.history.add("submit", job_id.hex, "ok")
    hit["copies"] += COPIES - 1
    hit["other_content"] += 2 * CONNECTIONS


@asynccontextmanager
async def _apis(address: str) -> AsyncIterator[list[Api]]:
    """Several connections."""
    async with AsyncExitStack() as stack:
        yield [Api(await stack.enter_async_context(channel_to(address))) for _ in range(CONNECTIONS)]


async def _replay_submitter(siege: Siege, times: int) -> int:
    """Submissions of a client, as its connection carried them; how often they were sent again."""
    course = siege.course
    async with Proxy(siege.api) as proxy:
        async with MeshClient(proxy.address) as client:
            for _ in range(10):
                job_id = UUID(int=course.generator.getrandbits(128), version=4)
                course.history.add("submit", job_id.hex, "invoke")
                await client.submit_many([JobSpec("echo", json={"at": times}, job_id=str(job_id))])
                course.history.add("submit", job_id.hex, "ok")
        recorded = bytes(proxy.recorded[Direction.TO_BROKER])
    for _ in range(times):
        await _replay(siege.api, recorded)
    return times


ROWS: Final[tuple[Row, ...]] = (
    Row(
        "agent-forged-reports",
        "An agent reports outcomes of what others run, of attempts 0, next and 2^32 - 1, of jobs -2^63 and 2^63 - 1: "
        "all are refused, no job notices",
        forged_reports,
        control=Control("no-ownership", partial(forged_reports, program=without("no-ownership")), finds="was accepted"),
    ),
    Row(
        "agent-replayed",
        "The recorded stream of an agent is sent again while it is there and after it has left: nothing runs or counts "
        "twice",
        replayed_agent,
        control=unguarded("no-superseding", replayed_agent, "lost their streams"),
        is_in_suite=False,
    ),
    Row(
        "submitter-duplicates",
        "A job submitted again, many times at once, with the same and with other content, and as a recorded stream: "
        "one job, everything else is refused",
        duplicates,
        control=planted("any-content", duplicates, "under a name that is taken", is_in_suite=False, is_short=True),
    ),
)
