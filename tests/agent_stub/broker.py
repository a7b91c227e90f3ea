"""A broker of a few lines over real gRPC: it says what the test tells it to and keeps what it hears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration

from protos.mesh.v1 import agent_service_pb2 as pb
from protos.mesh.v1 import agent_service_pb2_grpc

WAIT_S = 10.0

Answer = Callable[[pb.Hello], pb.BrokerFrame]
Context = grpc.aio.ServicerContext[pb.AgentFrame, pb.BrokerFrame]


def duration(seconds: float) -> Duration:
    whole = int(seconds)
    return Duration(seconds=whole, nanos=round((seconds - whole) * 1_000_000_000))


def welcome(
    hello: pb.Hello, *stopped: tuple[int, int], epoch: int = 1, lease_s: float = 10.0, mesh_id: str = ""
) -> pb.BrokerFrame:
    """Keep all that is listed but `stopped`."""
    held = zip(hello.held.job_keys, hello.held.attempts, strict=True)
    return pb.BrokerFrame(
        welcome=pb.Welcome(
            session_id=hello.connect_seq,
            epoch=epoch,
            mesh_id=mesh_id,
            heartbeat_interval=duration(lease_s / 5),
            idle_heartbeat_interval=duration(lease_s / 2),
            lease=duration(lease_s),
            lease_margin=duration(lease_s / 5),
            verdicts=[pb.VERDICT_STOP if key in stopped else pb.VERDICT_KEEP for key in held],
        )
    )


def attempts(*keys: tuple[int, int]) -> pb.AttemptList:
    return pb.AttemptList(job_keys=[key for key, _ in keys], attempts=[attempt for _, attempt in keys])


def assign(job_key: int, operation: str, payload: bytes = b"", attempt: int = 1) -> pb.Assign:
    job_id = job_key.to_bytes(16, "big")
    return pb.Assign(job_key=job_key, job_id=job_id, attempt=attempt, operation=operation, payload=payload)


@dataclass
class Session:
    """One stream as the broker sees it. What the agent sends is worked in the order of `next_*` calls."""

    hello: pb.Hello
    identity: str
    context: Context
    frames: asyncio.Queue[pb.AgentFrame] = field(default_factory=asyncio.Queue)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    acknowledges_heartbeats: bool = True
    ending: tuple[grpc.StatusCode, str] | None = None

    async def send(self, frame: pb.BrokerFrame) -> None:
        await self.context.write(frame)

    async def assign(self, *assigns: pb.Assign) -> None:
        await self.send(pb.BrokerFrame(assigns=assigns))

    async def acknowledge(self, *outcomes: pb.Outcome) -> None:
        keys = [(outcome.job_key, outcome.attempt) for outcome in outcomes]
        await self.send(pb.BrokerFrame(outcomes_accepted=attempts(*keys)))

    async def frame_with(self, *names: str) -> pb.AgentFrame:
        """The next frame that holds one of the fields; those before it are passed over."""
        async with asyncio.timeout(WAIT_S):
            while True:
                frame = await self.frames.get()
                if any(held.name in names for held, _ in frame.ListFields()):
                    return frame

    async def outcome(self) -> pb.Outcome:
        frame = await self.frame_with("outcomes")
        assert len(frame.outcomes) == 1
        return frame.outcomes[0]

    async def cut(self) -> None:
        """End the stream without a word."""
        self.ended.set()

    async def abort(self, code: grpc.StatusCode, text: str) -> None:
        """End the stream with a status."""
        self.ending = (code, text)
        self.ended.set()


class Broker(agent_service_pb2_grpc.AgentServiceServicer):
    """Start with `async with`; each stream that says Hello becomes a `Session`, answered by `answer`."""

    def __init__(self, answer: Answer = welcome, address: str = "127.0.0.1:0") -> None:
        self.answer = answer
        self.sessions: asyncio.Queue[Session] = asyncio.Queue()
        self.hellos = 0
        self.address = address
        self._server = grpc.aio.server()

    async def __aenter__(self) -> Broker:
        agent_service_pb2_grpc.add_AgentServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port(self.address)}"
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(grace=None)

    async def session(self) -> Session:
        """The next stream that was welcomed."""
        async with asyncio.timeout(WAIT_S):
            return await self.sessions.get()

    async def Connect(self, request_iterator: AsyncIterator[pb.AgentFrame], context: Context) -> None:  # type: ignore[override]  # noqa: N802
        first = await anext(request_iterator)
        self.hellos += 1
        answer = self.answer(first.hello)
        await context.write(answer)
        if not answer.HasField("welcome"):
            return
        identity = dict(context.invocation_metadata() or ())["mesh-dev-identity"]
        session = Session(first.hello, str(identity), context)
        self.sessions.put_nowait(session)
        reader = asyncio.create_task(self._read(request_iterator, session))
        await session.ended.wait()
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        if session.ending is not None:
            await context.abort(*session.ending)

    async def _read(self, request_iterator: AsyncIterator[pb.AgentFrame], session: Session) -> None:
        async for frame in request_iterator:
            if frame.HasField("heartbeat") and session.acknowledges_heartbeats:
                ack = pb.HeartbeatAck(seq=frame.heartbeat.seq, epoch=1)
                await session.send(pb.BrokerFrame(heartbeat_ack=ack))
            session.frames.put_nowait(frame)
        session.ended.set()
