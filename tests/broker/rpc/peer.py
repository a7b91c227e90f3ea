"""An agent of a few lines over a real stream: it says what the test tells it to, and reads only when it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count

import grpc
import grpc.aio

from protos.mesh.v1 import agent_service_pb2 as pb
from protos.mesh.v1 import agent_service_pb2_grpc, job_pb2
from tests.broker.running import WAIT_S, channel_to

CONNECT = "/mesh.v1.AgentService/Connect"
SUCCEEDED = job_pb2.OUTCOME_STATUS_SUCCEEDED

Key = tuple[int, int]

_connects = count(1)


def attempts(*keys: Key) -> pb.AttemptList:
    return pb.AttemptList(job_keys=[key for key, _ in keys], attempts=[attempt for _, attempt in keys])


def hello(
    agent: str,
    *,
    slots: int = 4,
    operations: Sequence[str] = ("echo",),
    connect_seq: int = 0,
    held: Sequence[Key] = (),
    finished: Sequence[Key] = (),
    outcomes: Sequence[pb.Outcome] = (),
    labels: Mapping[str, str] | None = None,
    incarnation: bytes = b"",
) -> pb.AgentFrame:
    """Hello of a process whose incarnation follows from the agent's id, unless it is given."""
    said = pb.Hello(
        incarnation_id=incarnation or agent.encode().ljust(16, b"-"),
        connect_seq=connect_seq or next(_connects),
        operations=operations,
        slots=slots,
        capacity=pb.Capacity(seq=1, attempts=slots),
        held=attempts(*held),
        finished=attempts(*finished),
        outcomes=outcomes,
        labels=labels,
    )
    return pb.AgentFrame(hello=said)


def succeeded(key: Key, content: bytes = b"done") -> pb.Outcome:
    return pb.Outcome(job_key=key[0], attempt=key[1], status=SUCCEEDED, result=job_pb2.Result(content=content))


def failed(key: Key) -> pb.Outcome:
    """For good: it is not tried again."""
    failure = job_pb2.Failure(code="csv.bad_row", message="line 7", retryable=False)
    return pb.Outcome(job_key=key[0], attempt=key[1], status=job_pb2.OUTCOME_STATUS_FAILED, failure=failure)


def stopped(key: Key) -> pb.Outcome:
    """Its handler ended because it was told to."""
    return pb.Outcome(job_key=key[0], attempt=key[1], status=job_pb2.OUTCOME_STATUS_CANCELLED)


def key_of(assign: pb.Assign) -> Key:
    return assign.job_key, assign.attempt


def tasks_of(*names: str) -> set[asyncio.Task[object]]:
    """Tasks of the broker's streams."""
    return {task for task in asyncio.all_tasks() if task.get_name().partition("-")[0] in names}


class Peer:
    """One stream. Nothing is read but by the methods below; frames that were read and not asked for are dropped."""

    def __init__(self, call: grpc.aio.StreamStreamCall[pb.AgentFrame, pb.BrokerFrame]) -> None:
        self.call = call

    async def say(self, frame: pb.AgentFrame) -> None:
        await self.call.write(frame)

    async def frame(self) -> pb.BrokerFrame:
        """The next frame."""
        async with asyncio.timeout(WAIT_S):
            found = await self.call.read()
        assert isinstance(found, pb.BrokerFrame), f"the stream has ended: {self.call}"
        return found

    async def frame_with(self, *names: str) -> pb.BrokerFrame:
        """The next frame that holds one of the fields."""
        while True:
            frame = await self.frame()
            if any(held.name in names for held, _ in frame.ListFields()):
                return frame

    async def welcome(self) -> pb.Welcome:
        return (await self.frame_with("welcome", "reject")).welcome

    async def assigned(self, number: int) -> list[pb.Assign]:
        """The next assignments, this many."""
        found: list[pb.Assign] = []
        while len(found) < number:
            found += (await self.frame_with("assigns")).assigns
        assert len(found) == number
        return found

    async def accept(self, *keys: Key) -> None:
        await self.say(pb.AgentFrame(accepted=attempts(*keys), started=attempts(*keys)))

    async def report(self, *outcomes: pb.Outcome) -> pb.BrokerFrame:
        """Report outcomes; the frame that answers the first of them."""
        await self.say(pb.AgentFrame(outcomes=outcomes))
        return await self.frame_with("outcomes_accepted", "outcomes_refused")

    async def settled(self) -> None:
        """Return when the broker has read all that was said before: it answers this outcome of no job after it."""
        while True:
            answer = await self.report(succeeded((9_999, 1)))
            if any(refused.job_key == 9_999 for refused in answer.outcomes_refused):
                return

    async def ending(self) -> tuple[grpc.StatusCode, str]:
        """How the broker ended the stream; what it still sent is read and dropped."""
        async with asyncio.timeout(WAIT_S):
            with suppress(grpc.aio.AioRpcError):
                while await self.call.read() is not grpc.aio.EOF:
                    pass
            return await self.call.code(), await self.call.details() or ""


@asynccontextmanager
async def stream_to(address: str, agent: str = "a1", *, identity: str | None = None) -> AsyncIterator[Peer]:
    """A stream on a connection of its own that has said nothing yet; cancelled in the end."""
    metadata = (("mesh-dev-identity", f"default/default/{agent}" if identity is None else identity),)
    async with channel_to(address) as channel:
        stub: agent_service_pb2_grpc.AgentServiceAsyncStub = agent_service_pb2_grpc.AgentServiceStub(channel)
        call = stub.Connect(metadata=metadata if identity != "" else ())
        try:
            yield Peer(call)
        finally:
            call.cancel()


@asynccontextmanager
async def agent_on(
    address: str,
    agent: str = "a1",
    *,
    slots: int = 4,
    labels: Mapping[str, str] | None = None,
    incarnation: bytes = b"",
) -> AsyncIterator[Peer]:
    """An agent that was welcomed."""
    async with stream_to(address, agent) as peer:
        await peer.say(hello(agent, slots=slots, labels=labels, incarnation=incarnation))
        assert (await peer.welcome()).session_id
        yield peer
