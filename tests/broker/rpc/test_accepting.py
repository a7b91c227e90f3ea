from __future__ import annotations

import asyncio
from typing import Any

from broker.rpc.accepting import REQUESTS, guard
from broker.rpc.server import Health, Listener, options_of
from broker.settings import LimitSettings
from tests.broker.rpc import http2
from tests.broker.running import WAIT_S


async def test_requests_for_calls_are_answered_and_never_dropped_when_the_accepting_loop_fails() -> None:
    """A dropped one is memory that gRPC's core still writes to."""
    reopened = asyncio.Event()
    listener = Listener(
        "port", "127.0.0.1:0", Health([]).register, options_of(LimitSettings(), 16), lambda _: reopened.set()
    )
    await listener.start()
    await asyncio.sleep(0)  # the loop's first request
    requests = {task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__name__", "") in REQUESTS}
    assert len(requests) > 1

    writer = await http2.send(listener.address, b"/\xff")
    async with asyncio.timeout(WAIT_S):
        await reopened.wait()
        await asyncio.wait(requests)
    writer.close()

    assert not any(task.cancelled() for task in requests)
    await listener.stop(0)


async def test_guard_is_set_once_and_keeps_the_loops_own_way_to_make_tasks() -> None:
    made: list[str] = []

    def own(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        made.append(coroutine.__name__)
        return asyncio.Task(coroutine, loop=loop)

    async def work() -> str:
        return "done"

    loop = asyncio.get_running_loop()
    loop.set_task_factory(own)
    guard(loop)
    guarded = loop.get_task_factory()
    guard(loop)
    assert loop.get_task_factory() is guarded
    assert await asyncio.create_task(work()) == "done"
    assert made == ["work"]


async def test_request_can_be_cancelled_by_everybody_else() -> None:
    async def _request_call() -> None:
        await asyncio.get_running_loop().create_future()

    guard(asyncio.get_running_loop())
    request = asyncio.create_task(_request_call())
    await asyncio.sleep(0)
    request.cancel()
    await asyncio.wait({request})
    assert request.cancelled()
