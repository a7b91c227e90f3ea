"""What can fail, by name. A fault strikes a mesh and says whether it met something."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from broker.dispatch import reasons
from broker.dispatch.messages import (
    DisableRequested,
    DrainRequested,
    JobAccepted,
    JobSubmitted,
    RankSet,
    Reply,
    RequestRefused,
    StopReason,
)
from broker.dispatch.model import DrainEnd, DrainThen, JobKey, Spread
from simulator.fuzz.agent import AgentProcess
from simulator.fuzz.broken import expect
from simulator.fuzz.broker import COMMIT_US
from simulator.fuzz.course import OPERATOR, OTHER_DIGEST
from simulator.fuzz.mesh import Mesh, again_id
from simulator.fuzz.timeline import MS, Pipe, S, Stream

ATTEMPT_MAX: Final = 2**63
FAR: Final = 1_000
"""More attempts than a job makes: the next one may be given to the forger in this very moment."""


def _cut(mesh: Mesh, *, is_silent: bool = False) -> bool:
    stream = mesh.any_stream()
    if stream is not None:
        stream.cut(is_silent=is_silent)
    return stream is not None


def _any_pipe(mesh: Mesh) -> Pipe | None:
    stream = mesh.any_stream()
    return None if stream is None else mesh.chance.choice((stream.up, stream.down))


def _cut_one_way(mesh: Mesh) -> bool:
    pipe = _any_pipe(mesh)
    if pipe is not None:
        pipe.is_cut = True
    return pipe is not None


def _cut_off(mesh: Mesh) -> bool:
    return _on_agent(mesh, lambda agent: agent.cut_off(mesh.chance.choice((3 * S, 8 * S, 16 * S))))


def _cut_zone(mesh: Mesh) -> bool:
    """Every second agent is away at once."""
    for_us, side = mesh.chance.choice((3 * S, 16 * S)), mesh.chance.randrange(2)
    agents = [agent for agent in mesh.alive() if agent.number % 2 == side]
    for agent in agents:
        agent.cut_off(for_us)
    return bool(agents)


def _cut_all(mesh: Mesh) -> bool:
    """All come back at once."""
    streams = [agent.stream for agent in mesh.alive() if agent.stream is not None]
    for stream in streams:
        stream.cut()
    return bool(streams)


def _delay(mesh: Mesh, most_us: int = 9 * S) -> bool:
    pipe = _any_pipe(mesh)
    if pipe is None:
        return False
    pipe.extra_us = mesh.chance.randrange(most_us)
    mesh.timeline.after(mesh.chance.randrange(8 * S), lambda: setattr(pipe, "extra_us", 0))
    return True


def _resync(mesh: Mesh) -> bool:
    stream = _known_stream(mesh)
    if stream is not None:
        mesh.broker.resync(stream)
    return stream is not None


def _known_stream(mesh: Mesh) -> Stream | None:
    stream = mesh.any_stream()
    return stream if mesh.broker.is_up and stream in mesh.broker.peers else None


def _on_agent(mesh: Mesh, act: Callable[[AgentProcess], None]) -> bool:
    agent = mesh.any_agent()
    if agent is not None:
        act(agent)
    return agent is not None


def _clone_agent(mesh: Mesh) -> bool:
    """Somebody starts an agent that runs already, or that only stands still."""
    agent = mesh.any_agent()
    if agent is None or agent in mesh.clones:
        return False
    if mesh.chance.random() < 0.5:
        agent.freeze(mesh.chance.choice((S, 12 * S)))
    mesh.clone(agent)
    return True


def _freeze_agent(mesh: Mesh) -> bool:
    return _on_agent(mesh, lambda agent: agent.freeze(mesh.chance.choice((S, 5 * S, 12 * S, 20 * S))))


def _mute_agent(mesh: Mesh) -> bool:
    return _on_agent(mesh, lambda agent: agent.mute(mesh.chance.choice((3 * S, 9 * S, 15 * S))))


def _forge(mesh: Mesh, *, is_progress: bool = False) -> bool:
    """An agent reports what another one runs, or an attempt that never was."""
    agent = mesh.any_agent()
    if agent is None or not mesh.broker.is_up or agent.stream not in mesh.broker.peers or not mesh.accepted:
        return False
    key = mesh.chance.choice(list(mesh.accepted.values()))
    job = mesh.broker.dispatcher.ledger.jobs.get(key)
    latest = 1 if job is None else job.attempt
    attempt = mesh.chance.choice((0, ATTEMPT_MAX, latest, latest + FAR))
    if agent.session.holds((key, attempt)) or (job is not None and job.agent == agent.number):
        return False  # that would be its own report
    mesh.broker.forge(agent.stream, key, attempt, is_progress=is_progress)
    return True


def _kill_broker(mesh: Mesh) -> bool:
    if not mesh.broker.is_up:
        return False
    mesh.broker.kill()
    down_us = mesh.chance.choice((50 * MS, S, 4 * S, 35 * S))
    mesh.timeline.after(mesh.chance.randrange(50 * MS, 50 * MS + down_us), mesh.broker.start)
    return True


def _fail_commit(mesh: Mesh) -> bool:
    mesh.broker.fails_next_commit = True
    return True


def _stall_broker(mesh: Mesh) -> bool:
    if mesh.broker.is_up:
        mesh.broker.stall(mesh.chance.choice((600 * MS, 3 * S, 13 * S)))
    return mesh.broker.is_up


def _slow_store(mesh: Mesh) -> bool:
    mesh.broker.commit_us_max = 2 * S
    mesh.timeline.after(3 * S, lambda: setattr(mesh.broker, "commit_us_max", COMMIT_US))
    return True


def _operate(mesh: Mesh) -> bool:
    """An operator drains or disables an agent, or lets it work again."""
    if not mesh.broker.is_up:
        return False
    chance, agent = mesh.chance, mesh.any_number()
    ends, then = chance.choice(list(DrainEnd)), chance.choice(list(DrainThen))
    deadline_us, is_now = chance.choice((MS, 3 * S)), chance.random() < 0.5
    act = chance.randrange(5)
    if act == 0:
        mesh.judge.choose(agent, then)
        mesh.broker.ask(lambda ticket: DrainRequested(ticket, agent, ends, then, deadline_us, OPERATOR))
    elif act == 1:
        mesh.judge.chosen.add((agent, StopReason.DISABLED))
        mesh.broker.ask(lambda ticket: DisableRequested(ticket, agent, is_now, OPERATOR))
    else:
        mesh.let_work(agent)
    return True


def _drain_by(mesh: Mesh) -> bool:
    """An agent that runs something is drained, with a deadline that comes soon."""
    busy = [agent for agent in mesh.alive() if agent.job_keys]
    if not (mesh.broker.is_up and busy):
        return False
    agent, ends, then = (
        mesh.chance.choice(busy).number,
        mesh.chance.choice(list(DrainEnd)),
        mesh.chance.choice(list(DrainThen)),
    )
    deadline_us = mesh.chance.randrange(100 * MS, S)
    mesh.judge.choose(agent, then)
    mesh.broker.ask(lambda ticket: DrainRequested(ticket, agent, ends, then, deadline_us, OPERATOR))
    return True


def _configure(mesh: Mesh) -> bool:
    """An operator changes how the group spreads its work, and the rank of an agent."""
    if not mesh.broker.is_up:
        return False
    agent, rank = mesh.any_number(), mesh.chance.randrange(3)
    mesh.broker.ask(lambda ticket: RankSet(ticket, agent, rank, OPERATOR))
    mesh.broker.configure(mesh.chance.choice(list(Spread)), refuses_inactive=mesh.chance.random() < 0.3)
    return True


def _cancel(mesh: Mesh) -> bool:
    if not (mesh.broker.is_up and mesh.accepted):
        return False
    _cancel_job(mesh, mesh.chance.choice(list(mesh.accepted.values())))
    return True


def _cancel_job(mesh: Mesh, key: JobKey) -> None:
    if mesh.broker.is_up:
        mesh.judge.cancel(mesh.broker, key)


def _cancel_away(mesh: Mesh) -> bool:
    """What an agent runs is cancelled while its stream is away for a moment."""
    keys = {agent.name: agent.job_keys for agent in mesh.alive() if agent.stream is not None and agent.job_keys}
    if not (mesh.broker.is_up and keys):
        return False
    name = mesh.chance.choice(list(keys))
    stream = mesh.agents[name].stream
    if stream is not None:
        stream.cut()
    key = mesh.chance.choice(keys[name])
    mesh.timeline.after(mesh.chance.randrange(20 * MS, 300 * MS), lambda: _cancel_job(mesh, key))
    return True


def _drain_away(mesh: Mesh) -> bool:
    """An agent is drained to stop and soon away: it holds nothing any more before it can be told that it is done."""
    agent = mesh.any_agent()
    if not mesh.broker.is_up or agent is None or agent.stream is None:
        return False
    number = agent.number
    mesh.broker.ask(lambda ticket: DrainRequested(ticket, number, DrainEnd.STOP, DrainThen.FINISH, 0, OPERATOR))
    mesh.timeline.after(mesh.chance.randrange(10 * MS, 2 * S), lambda: agent.cut_off(16 * S))
    return True


def _submit_again(mesh: Mesh) -> bool:
    """Somebody says the id of an accepted job: with the same content it is that job, with other it is refused."""
    if not (mesh.broker.is_up and mesh.accepted):
        return False
    number = mesh.chance.choice(list(mesh.accepted))
    is_other = mesh.chance.random() < 0.5
    first = mesh.accepted[number]

    def ask(ticket: int) -> JobSubmitted:
        event = mesh.submission(number, ticket)
        return replace(event, digest=OTHER_DIGEST) if is_other else event

    mesh.broker.ask(ask, partial(_expect_first, mesh, first, is_other))
    return True


def _expect_first(mesh: Mesh, first: JobKey, is_other: bool, reply: Reply) -> None:
    is_refused = isinstance(reply, RequestRefused) and reply.reason == reasons.KEY_REUSED
    mesh.chronicle.count("refused: other content" if is_refused else "accepted again")
    expect(is_refused == is_other, "P7", f"job {first} submitted again was answered by {reply}")
    if not isinstance(reply, RequestRefused):
        key = getattr(reply, "job_key", None)
        expect(key == first, "P7", f"job {first} submitted again became job {key}")


def _say_key_again(mesh: Mesh) -> bool:
    """Somebody says the key of a job under another id: it is that job, also when both are said at once."""
    numbers = [number for number in mesh.course.submitted if mesh.submission(number, 0).idempotency_key]
    if not (mesh.broker.is_up and numbers):
        return False
    number = mesh.chance.choice(numbers)
    first = mesh.accepted.get(number)
    is_other = mesh.chance.random() < 0.5
    digest = OTHER_DIGEST if is_other else mesh.submission(number, 0).digest

    def ask(ticket: int) -> JobSubmitted:
        event = replace(mesh.submission(number, ticket), job_id=again_id(number), digest=digest)
        mesh.judge.asked[event.job_id] = event
        return event

    if first is not None:
        mesh.broker.ask(ask, partial(_expect_first, mesh, first, is_other))
        return True
    if is_other:
        mesh.contested.add(number)
    if mesh.chance.random() < 0.5:
        mesh.ask_once(number)
        mesh.broker.ask(ask, partial(_expect_one, mesh, number))
    else:
        mesh.broker.ask(ask, partial(_expect_one, mesh, number))
        mesh.ask_once(number)
    return True


def _expect_one(mesh: Mesh, number: int, reply: Reply) -> None:
    """Two said one key, and neither has been answered before: one of them is first."""
    if mesh.refusal(reply) is not None:
        return
    if isinstance(reply, JobAccepted):
        mesh.judge.same_keys.append(reply.job_key)
        return
    is_late = isinstance(reply, RequestRefused) and reply.reason == reasons.KEY_REUSED and number in mesh.contested
    expect(is_late, "P7", f"the key of job {number} was answered by {reply}")


def _remove_agent(mesh: Mesh) -> bool:
    if mesh.broker.is_up:
        mesh.remove(mesh.any_number())
    return mesh.broker.is_up


def _label(mesh: Mesh) -> bool:
    """An operator says in which zone an agent is, whatever it claims, or takes that back."""
    if mesh.broker.is_up:
        mesh.label(mesh.any_number(), *mesh.chance.choice(((), ("zone=x",), ("zone=y",))))
    return mesh.broker.is_up


def _kill_broker_briefly(mesh: Mesh) -> bool:
    if mesh.broker.is_up:
        mesh.broker.kill()
        mesh.timeline.after(mesh.chance.randrange(50 * MS, 4 * S), mesh.broker.start)
    return True


FAULTS: Final[Mapping[str, Callable[[Mesh], bool]]] = {
    "cut": _cut,
    "cut-silently": partial(_cut, is_silent=True),
    "cut-one-way": _cut_one_way,
    "cut-off": _cut_off,
    "cut-zone": _cut_zone,
    "cut-all": _cut_all,
    "delay": _delay,
    "resync": _resync,
    "kill-agent": lambda mesh: _on_agent(mesh, AgentProcess.kill),
    "clone-agent": _clone_agent,
    "freeze-agent": _freeze_agent,
    "mute-agent": _mute_agent,
    "stop-agent": lambda mesh: _on_agent(mesh, AgentProcess.drain),
    "forge": _forge,
    "kill-broker": _kill_broker,
    "fail-commit": _fail_commit,
    "stall-broker": _stall_broker,
    "slow-store": _slow_store,
    "operate": _operate,
    "configure": _configure,
    "cancel": _cancel,
    "submit-again": _submit_again,
    "say-key-again": _say_key_again,
    "remove-agent": _remove_agent,
    "label": _label,
    "cancel-away": _cancel_away,
    "drain-away": _drain_away,
    "drain-by": _drain_by,
    "forge-progress": partial(_forge, is_progress=True),
}
"""All that a swarm draws from. New ones come last: `tests/simulation/seeds.txt` counts on it."""

GENTLE: Final[Mapping[str, Callable[[Mesh], bool]]] = {
    "cut": _cut,
    "delay-a-little": partial(_delay, most_us=300 * MS),
    "resync": _resync,
    "kill-broker-briefly": _kill_broker_briefly,
    "stall-broker": _stall_broker,
}
"""Faults after which every agent is back in time, or counts as heard: no work is lost by them."""
