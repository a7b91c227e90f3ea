"""Clients and agents that flood, stall, forge, or speak broken HTTP/2.

Here are those that misuse the protocol below gRPC; `messages` has those that send messages which are none or too large,
`forgeries` those that report what is not theirs, and `crowding` those that want more than their share.
"""

from __future__ import annotations

import asyncio
import csv
import re
import struct
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from broker import series
from protos.mesh.v1 import job_service_pb2 as pb
from tests.broker.rpc import http2
from tests.chaos import crowding, forgeries, messages
from tests.chaos.careless import without
from tests.chaos.row import BROKER, Control, MissedError, Ran, Row, Trial
from tests.chaos.siege import Siege
from tests.chaos.stage import unguarded
from tests.chaos.witness import served
from tests.e2e.page import told

BAD_PATHS: Final = (b"/m/\xff\xfe", b"/\xff", b"/mesh.v1.JobService/GetJob\x80", b"/\xc0\xaf", b"/\xed\xa0\x80")
REOPENED_S: Final = 60.0
"""On a machine that is busy with other things only what never comes is late; `recovery` tells how long it was."""
CLOSED_S: Final = 5.0
"""How long the control, which never comes, is waited for."""
UNKNOWN_JOB: Final = "organizations/default/jobs/00000000-0000-4000-8000-000000000000"


# --- what gRPC cannot read --------------------------------------------------------------------------------------------


async def path_not_utf8(trial: Trial, program: Sequence[str] = BROKER, within_s: float = REOPENED_S) -> Ran:
    """One request each time, at both ports in turn; the listener it ends is there again, and streams never left."""
    recovery_ms: list[float] = []
    async with Siege(trial, program=program) as siege:
        for at in range(trial.of(6, 60)):
            name, address = (("mesh", siege.mesh), ("api", siege.api))[at % 2]
            began_s = time.monotonic()
            writer = await http2.send(address, BAD_PATHS[at % len(BAD_PATHS)])
            try:
                await _reopened(siege, name, address, at // 2 + 1, within_s)
            finally:
                writer.close()
            recovery_ms.append((time.monotonic() - began_s) * 1_000)
        restarts = sum((await told(siege.course.mesh, series.ACCEPTOR_RESTARTS)).values())
    return siege.ran(int(restarts), recovery_ms=recovery_ms)


async def _reopened(siege: Siege, name: str, address: str, times: int, within_s: float) -> None:
    """Return when a new connection is served, by a listener that was opened so often again."""
    try:
        async with asyncio.timeout(within_s):
            while (await told(siege.course.mesh, series.ACCEPTOR_RESTARTS)).get((name,), 0) < times:
                await served(address)
            await served(address)
    except TimeoutError:
        raise AssertionError(f"nobody new is served on the {name} port after a path that is not UTF-8") from None


async def mutated_frames(trial: Trial, program: Sequence[str] = BROKER) -> Ran:
    """Frames with a changed type, flags, stream, length or content, on both ports."""
    frames = trial.of(20_000, 1_000_000)
    hit: Counter[str] = Counter()
    async with Siege(trial, program=program) as siege:
        for address in (siege.mesh, siege.api):
            await siege.attack("mutated", address, frames // 10)
        siege.mark()
        for address in (siege.mesh, siege.api):
            hit.update(await siege.attack("mutated", address, frames // 2))
        restarts = sum((await told(siege.course.mesh, series.ACCEPTOR_RESTARTS)).values())
    if hit["worked"] < frames:
        raise MissedError(f"of {hit['frames']} frames the broker read {hit['worked']} only: the mutations are too wild")
    siege.figures |= {"frames_sent": hit["frames"], "connections": hit["connections"], "acceptor_restarts": restarts}
    return siege.ran(hit["worked"])


# --- floods -----------------------------------------------------------------------------------------------------------


async def rapid_reset(trial: Trial, program: Sequence[str] = BROKER) -> Ran:
    """Calls that are taken back as soon as they are made, on both ports at once."""
    return await _flood(trial, ("rapid-reset",), 20_000, program)


async def frame_floods(trial: Trial) -> Ran:
    """Frames that cost their sender nothing and want an answer, and a block of headers that never ends."""
    return await _flood(trial, ("settings", "pings", "empty-data", "continuation"), trial.of(5_000, 100_000))


async def _flood(trial: Trial, names: Sequence[str], frames: int, program: Sequence[str] = BROKER) -> Ran:
    hit: Counter[str] = Counter()
    async with Siege(trial, program=program) as siege:
        ports = (siege.mesh, siege.api)
        await asyncio.gather(*(siege.attack(name, port, frames // 10) for name in names for port in ports))
        siege.mark()
        for name in names:
            both = Counter[str]()
            for counts in await asyncio.gather(*(siege.attack(name, port, frames) for port in ports)):
                both.update(counts)
            if not both["worked"]:
                raise MissedError(f"the broker read nothing of the flood {name}")
            hit.update(both)
            siege.figures[f"{name}_worked".replace("-", "_")] = both["worked"]
    siege.figures |= {"connections": hit["connections"], "frames_sent": hit["frames"]}
    return siege.ran(hit["worked"])


async def calls_without_end(trial: Trial, program: Sequence[str] = BROKER) -> Ran:
    """h2load: as many real calls as go through, on many connections."""
    calls = trial.of(5_000, 200_000)
    body = trial.folder / "call"
    asked = pb.GetJobRequest(name=UNKNOWN_JOB).SerializeToString()
    body.write_bytes(b"\0" + struct.pack(">I", len(asked)) + asked)
    async with Siege(trial, program=program) as siege:
        await _h2load(siege.api, calls // 5, body)
        siege.mark()
        began_s = time.monotonic()
        answered = await _h2load(siege.api, calls, body)
        siege.figures["calls_per_s"] = answered / (time.monotonic() - began_s)
        siege.expect(answered == calls, f"{calls - answered} of {calls} calls of h2load were not answered")
    return siege.ran(answered)


async def _h2load(address: str, calls: int, body: Path) -> int:
    """How many were answered."""
    shape = ("-n", str(calls), "-c", "20", "-m", "20", "-d", str(body))
    headers = ("-H", "content-type: application/grpc", "-H", "te: trailers")
    said = await _told_by("h2load", *shape, *headers, f"http://{address}/mesh.v1.JobService/GetJob")
    found = re.search(r"(\d+) succeeded", said)
    if found is None:
        raise MissedError(f"h2load did not say what it did: {said[-200:]}")
    return int(found[1])


# --- silence ----------------------------------------------------------------------------------------------------------


async def slow_loris(trial: Trial, program: Sequence[str] = BROKER) -> Ran:
    """Connections that say nothing, or never end what they began, on both ports; and slowhttptest's beside them."""
    connections = trial.of(120, 1_200)
    async with Siege(trial, program=program) as siege:
        silences = [siege.attack("silent", port, connections // 2) for port in (siege.mesh, siege.api)]
        slow = [
            _slowhttptest(port, connections // 4, trial.folder / name)
            for name, port in (("mesh", siege.mesh), ("api", siege.api))
        ]
        hit: Counter[str] = Counter()
        for counts in await asyncio.gather(*silences):
            hit.update(counts)
        begun = sum(await asyncio.gather(*slow))
    if not begun:
        raise MissedError("slowhttptest opened no connection")
    siege.expect(hit["cut"] == hit["mute"], f"{hit['mute'] - hit['cut']} silent connections were never cut")
    siege.figures |= {"silent_cut": hit["cut"], "slowhttptest_connections": begun}
    return siege.ran(hit["connections"] + begun)


async def _slowhttptest(address: str, connections: int, told: Path) -> int:
    """How many connections it had open, by the file that it writes; the server may end each at once."""
    shape = ("-H", "-c", str(connections), "-r", str(connections), "-i", "1", "-l", "4", "-p", "3")
    said = await _told_by("slowhttptest", *shape, "-g", "-o", str(told), "-u", f"http://{address}/")
    if "Test ended" not in said:
        raise MissedError(f"slowhttptest did not end in good order: {said[-200:]}")
    return opened_of(told.with_suffix(".csv").read_text())


def opened_of(table: str) -> int:
    """Of the table of slowhttptest, second by second: the connections that stand, and those that stood, at last."""
    last = list(csv.DictReader(table.split("\n")))[-1]
    return int(last["Connected"]) + int(last["Closed"])


async def _told_by(*command: str) -> str:
    """What a program says until it ends."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return said.decode(errors="replace")


ROWS: Final[tuple[Row, ...]] = (
    Row(
        "peer-path-not-utf8",
        "A request whose path is not UTF-8 ends gRPC's accepting: the port is open again, no stream ends",
        path_not_utf8,
        control=Control(
            "no-acceptor-guard",
            partial(path_not_utf8, program=without("no-acceptor-guard"), within_s=CLOSED_S),
            finds="nobody new is served",
        ),
    ),
    Row(
        "peer-mutated-frames",
        "HTTP/2 frames with a changed type, flags, stream, length or content: no crash, no hang, everybody good is "
        "served, at most 20 MiB more",
        mutated_frames,
        control=unguarded("keeps-calls", mutated_frames, "the broker grew by"),
    ),
    Row(
        "peer-rapid-reset",
        "20,000 calls on each port that are taken back at once: everybody good is served, at most 20 MiB more",
        rapid_reset,
        control=unguarded("keeps-calls", rapid_reset, "the broker grew by"),
        is_in_suite=False,
    ),
    Row(
        "peer-frame-floods",
        "Floods of SETTINGS, PING, empty DATA, and of CONTINUATION without end: the same",
        frame_floods,
        control_of="peer-rapid-reset",
        is_in_suite=False,
    ),
    Row(
        "peer-slow-loris",
        "Connections that say nothing or never end what they began: cut after the handshake timeout, everybody good "
        "is served",
        slow_loris,
        needs=("slowhttptest",),
        control=unguarded("no-handshake-timeout", slow_loris, "were never cut"),
        is_in_suite=False,
    ),
    Row(
        "peer-calls-without-end",
        "Calls of h2load, as fast as it can on 20 connections: every call is answered, everybody good is served",
        calls_without_end,
        needs=("h2load",),
        control=unguarded("keeps-calls", calls_without_end, "the broker grew by"),
        is_in_suite=False,
    ),
    *messages.ROWS,
    *forgeries.ROWS,
    *crowding.ROWS,
)
