"""What tells two states of a small mesh apart: two of the same digest go on alike, whatever happens next.

Only what decides: the primary state of the dispatcher (its indexes are judged by invariant 11 in each step), what is on
disk, the sessions, what is under way, what ran and what was judged. Times count by their distance from now, and what
lies further back than any deadline reaches counts as one; sessions and beats count by which is which, not by number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b
from operator import attrgetter
from typing import Any, Final

from agent_stub.session import AgentSession, Frame, Hello, Phase
from broker.dispatch.model import Agent, AgentNo, Job
from broker.dispatch.model import Phase as JobPhase
from broker.dispatch.rows import AgentRow, JobRow
from simulator.fuzz.frames import BrokerFrame
from simulator.fuzz.line import Line
from simulator.fuzz.small import SmallMesh
from simulator.fuzz.small_agent import SmallAgent
from simulator.fuzz.stepped import SteppedBroker
from simulator.fuzz.timeline import START_US, S

DIGEST_BYTES: Final = 16
FAR_US: Final = 20 * S
"""No deadline of `simulator.fuzz.bounds.POLICY` reaches as far back."""
TOLD: Final = frozenset(
    {"accepted_us", "active_until_us", "admin_us", "assigned_us", "connected_us", "created_us", "finished_us"}
    | {"labels_us", "last_connected_us", "order_us"}
)
"""Times that are told and decide nothing here: no job has a deadline for its start, and none overtakes another."""
FLAGS: Final = frozenset({"started_us", "closed_us"})
"""Times of which it counts only whether there is one."""
ELSEWHERE: Final = frozenset(
    {"agent_class", "heap_key", "ahead", "behind", "has_returned", "lane", "live", "suspects", "session", "sent"}
    | {"heard_us", "away_until_us", "fence_us", "last_assigned_no", "due_us"}
)
"""What follows from the rest, or is read apart. A deadline that is armed too early wakes for nothing (invariant 6)."""
CONSTANT: Final = frozenset({"job_id", "digest", "policy", "operator_labels", "claims", "labels", "operations", "rank"})

Values = Callable[[Any, int], tuple[object, ...]]
Plain = tuple[object, ...]


def digest(mesh: SmallMesh) -> bytes:
    """DIGEST_BYTES that are the same for states that go on alike, and else differ."""
    lines = sorted((_of_line(mesh, line) for line in mesh.lines), key=repr)
    agents = [_of_agent(mesh, agent) for agent in mesh.agents.values()]
    judge, journal = mesh.judge, mesh.journal
    judged = (
        sorted(judge.ended.items()),
        sorted(judge.taken.items()),
        sorted(judge.cancelled),
        sorted(journal.started.items()),
        sorted(journal.succeeded),
        sorted(journal.executing.items()),
    )
    own = (mesh.left, mesh.is_due, mesh.accepted, list(mesh.drained))
    state = (own, lines, agents, _of_broker(mesh.broker, mesh.timeline.now_us), judged)
    return blake2b(repr(state).encode(), digest_size=DIGEST_BYTES).digest()


def _apart(at_us: int, now_us: int) -> int:
    """A time as its distance from now; what is no time of the run (none, a duration) as it is."""
    return at_us if at_us < START_US else START_US + max(at_us - now_us, -FAR_US)


def _values_of(names: Iterable[str]) -> Values:
    """A reader of the fields that decide."""
    chosen = [name for name in names if name not in TOLD | ELSEWHERE | CONSTANT]
    read_times = attrgetter(*(name for name in chosen if name.endswith("_us") and name not in FLAGS))
    read_flags = attrgetter(*(name for name in chosen if name in FLAGS), "__class__")
    read_plain = attrgetter(*(name for name in chosen if not name.endswith("_us")))

    def values(one: Any, now_us: int) -> Plain:
        times = [_apart(at_us, now_us) for at_us in read_times(one)]
        return (*read_plain(one), *times, *(bool(flag) for flag in read_flags(one)[:-1]))

    return values


_JOB: Final = _values_of(Job.__slots__)
_AGENT: Final = _values_of(Agent.__slots__)
_JOB_ROW: Final = _values_of(JobRow._fields)
_AGENT_ROW: Final = _values_of(AgentRow._fields)
_SESSION: Final = attrgetter(
    *("phase", "capacity", "_taken_max", "epoch", "is_leaving", "_connect_seq", "_capacity_seq", "_is_capacity_owed"),
    *("_is_capacity_due", "_is_resync_due", "_is_drain_request_due", "_is_drained_by_broker", "_listed"),
)


def _of_broker(broker: SteppedBroker, now_us: int) -> Plain:
    stored = broker.stored
    on_disk = (
        [_JOB_ROW(row, now_us) for row in stored.jobs.values()],
        [_AGENT_ROW(row, now_us) for row in stored.agents.values()],
        [(key, row.state, row.attempt) for key, row in stored.finished.items()],
        list(stored.results.items()),
    )
    if not broker.is_up:
        return (False, broker.epoch, on_disk)
    ledger = broker.dispatcher.ledger
    turns = sorted(agent.last_assigned_no for agent in ledger.agents.values())
    agents = [
        (
            _AGENT(agent, now_us),
            agent.is_present,
            [(key, _apart(at_us, now_us)) for key, at_us in agent.sent.items()],
            _since(agent, broker.heard.get(agent.no, 0), now_us),
            turns.index(agent.last_assigned_no),
        )
        for agent in ledger.agents.values()
    ]
    own = (
        [(no, _apart(at_us, now_us)) for no, at_us in ledger.unoffered.items()],
        list(ledger.lazy),
        _apart(ledger.lazy_since_us, now_us) if ledger.lazy else 0,
        max(ledger.recovering_until_us - now_us, 0),
        max(ledger.shaken_until_us - now_us, 0),
        ledger.is_unfinished,
        ledger.acceptance_no,
    )
    jobs = [
        (_JOB(job, now_us), _apart(job.fence_us, now_us) if job.policy.exclusive and job.phase is JobPhase.AWAY else 0)
        for job in ledger.jobs.values()
    ]
    return (True, broker.epoch, on_disk, jobs, agents, own)


def _since(agent: Agent, heard_us: int, now_us: int) -> int:
    """When it was heard, or, while it is away with work, until when it may come back."""
    if agent.is_present:
        return _apart(max(agent.heard_us, heard_us), now_us)
    return _apart(agent.away_until_us, now_us) if agent.live else 0


def _of_line(mesh: SmallMesh, line: Line) -> Plain:
    agent = mesh.agents.get(AgentNo(line.number))
    beats = agent.session._beat_seq if agent is not None and agent.line is line else 0
    peer = mesh.broker.peers.get(line) if mesh.broker.is_up else None
    known = None if peer is None else mesh.broker.dispatcher.ledger.agents[peer.agent].session == peer.session
    return (
        line.number,
        agent is not None and agent.line is line,
        [_of_frame(frame, beats) for frame in line.up.frames],
        [_of_answer(frame, beats) for frame in line.down.frames],
        line.up.is_cut,
        line.down.is_cut,
        line.ends_at_broker,
        line.ends_at_agent,
        known,
        None if peer is None else peer.incarnation,
    )


def _of_frame(frame: Hello | Frame, beats: int) -> object:
    if isinstance(frame, Hello) or frame.heartbeat is None:
        return repr(frame)
    rest = (frame.capacity, frame.accepted, frame.rejected, frame.started, frame.outcomes, frame.hello, frame.goodbye)
    return (beats - frame.heartbeat.seq, repr(rest))


def _of_answer(frame: BrokerFrame, beats: int) -> Plain:
    welcome = None if frame.welcome is None else (frame.welcome.epoch, list(frame.welcome.verdicts))
    beat = None if frame.beat is None else (frame.beat[0] - beats, frame.beat[1])
    rest = (frame.acknowledged, frame.cancels, frame.assigns, frame.drain, frame.undrain, frame.drained_to)
    return (welcome, frame.reject_retry_us, beat, frame.resync, repr(rest))


def _of_agent(mesh: SmallMesh, agent: SmallAgent) -> Plain:
    runs = [(run.key, run.status) for run in agent.runs.values()]
    late_us = max(agent.again_us - mesh.timeline.now_us, 0)
    own = (agent.process, agent.is_over, agent.line is None, runs, late_us)
    return own if agent.is_over else (*own, _of_session(agent.session, mesh.timeline.now_us))


def _of_session(session: AgentSession, now_us: int) -> Plain:
    attempts, outbox = session._attempts, session._outbox
    held = [
        (key, one.is_running, one.stop, one.outcome, one.is_sent)
        for known in (attempts.held, attempts.forgotten)
        for key, one in known.items()
    ]
    by_job = (list(attempts.exclusive), attempts._live.keys(), attempts._blocked.keys())
    waiting = [one.key for one in attempts._waiting]
    unsent = (list(outbox.accepts), list(outbox.starts), list(outbox.rejects), list(outbox.outcomes))
    is_live = session.phase is Phase.LIVE
    beats = [(session._beat_seq - seq, _apart(at_us, now_us)) for seq, at_us in session._beats]
    times = (
        _apart(session._contact_us, now_us) if is_live or attempts.exclusive else 0,
        _apart(max(session._given_us, session._contact_us), now_us) if is_live else 0,
        _apart(session._beat_sent_us, now_us) if is_live else 0,
        _apart(session._hello_sent_us, now_us) if session._listed is not None else 0,
        beats if is_live else [],
    )
    return (
        _SESSION(session),
        len(attempts.forgotten),
        held,
        by_job,
        waiting,
        unsent,
        sorted(session._cancelled),
        times,
    )
