"""Why a job or an agent is where it is, and what would move it: in sentences, from the same books and predicates that
decide (`may_take`, `limit_reached`), so that an explanation is never another opinion.

Times are said as durations from now. Agents are named by number; whoever shows a text to people puts names in its place
by `Verdict.agent`.
"""

from collections.abc import Callable
from itertools import takewhile
from typing import Final, NamedTuple, assert_never

from broker.dispatch.ledger import Ledger
from broker.dispatch.model import (
    SECOND_US,
    Admin,
    Agent,
    AgentNo,
    DrainThen,
    Job,
    JobKey,
    JobState,
    Link,
    Phase,
    Placing,
    Spread,
)
from broker.dispatch.placement import may_take
from broker.dispatch.rows import JobRow

HELD_CHOICES: Final = "a person decides: `mesh jobs resolve JOB retry`, or fail, or succeed"

TOO_MANY_KINDS: Final = "the group has as many kinds of agents as it may"


class Verdict(NamedTuple):
    """Whether one agent could be given the job now, and why not."""

    agent: AgentNo
    can_take: bool
    why: str


class Obstacle(NamedTuple):
    """One thing that keeps new work from an agent: a word for programs, a sentence, and what would end it."""

    reason: str
    what: str
    until: str


class AgentExplanation(NamedTuple):
    """Whether an agent is given work, what changes that, and everything that is in the way."""

    summary: str
    next_step: str
    obstacles: tuple[Obstacle, ...]


class Explanation(NamedTuple):
    """One sentence on where something stands, one on what moves it, and (for a job that waits) each agent's part."""

    summary: str
    next_step: str
    verdicts: tuple[Verdict, ...] = ()


def explain_job(ledger: Ledger, key: JobKey) -> Explanation | None:
    """Where a live job stands; None for one that is final or unknown: its row says all."""
    job = ledger.jobs.get(key)
    if job is None:
        return None
    return _BY_STATE[job.state](ledger, job)


def explain_final(row: JobRow) -> Explanation:
    """How a final job ended, from its row."""
    attempts = (
        f"after {row.attempt} attempts{_budgets(row)}"
        if row.attempt > 1
        else "at its first attempt"
        if row.attempt
        else ""
    )
    why = f" ({row.code})" if row.code else ""
    summary = f"{row.state} {attempts}".rstrip() + why + (f": {row.message}" if row.message else "")
    is_good = row.state == JobState.SUCCEEDED
    return Explanation(summary, "nothing, it is final" if is_good else "nothing; requeue it to run it as a new job")


def _budgets(row: JobRow) -> str:
    """How many of its attempts were used up by what, for a dead letter."""
    if row.state != JobState.DEAD:
        return ""
    budgets = (("failures", row.failures), ("crashes", row.crashes), ("bounces", row.bounces))
    return f": {', '.join(f'{number} {name}' for name, number in budgets if number)}"


def explain_agent(ledger: Ledger, number: AgentNo) -> AgentExplanation | None:
    """Whether an agent is given work, and what would change that; None if there is no such agent."""
    agent = ledger.agents.get(number)
    if agent is None:
        return None
    holds = f"it holds {agent.held}" + (f" of {agent.capacity} attempts" if agent.is_present else " attempts")
    obstacles = _obstacles(ledger, agent)
    if agent.is_present and agent.held >= agent.capacity:
        obstacles.append(Obstacle("no_capacity", "it is full", "an attempt of its own ends"))
    if obstacles:
        return AgentExplanation(f"gets nothing new: {obstacles[0].what}; {holds}", obstacles[0].until, tuple(obstacles))
    return AgentExplanation(f"may be given work: {holds}", f"a job comes that it can take, and {_turn(ledger)}", ())


def _turn(ledger: Ledger) -> str:
    """When an agent with room is the one: the group's way to place, in words."""
    match ledger.policy.placing:
        case Placing.LEAST_LOADED:
            return "no other agent is less loaded"
        case Placing.ROUND_ROBIN:
            return "it is its turn: the group places by turns"
        case Placing.RANDOM:
            return "it is drawn: the group places at random"
        case Placing.POWER_OF_D:
            return f"it is the least loaded of {ledger.policy.placing_choices} agents that are drawn"
        case _:
            assert_never(ledger.policy.placing)


# --- jobs -----------------------------------------------------------------------------------------------------------


def _scheduled(ledger: Ledger, job: Job) -> Explanation:
    wait = _in(ledger, job.not_before_us)
    if job.failures:
        tries = f"{job.failures} of {job.policy.failures_max} failures"
        return Explanation(f"backs off after {tries}", f"it is queued again {wait}")
    return Explanation("its start time has not come", f"it is queued {wait}")


def _queued(ledger: Ledger, job: Job) -> Explanation:
    first_rank = _first_rank(ledger, job)
    agents = [agent for agent in ledger.agents.values() if agent.admin != Admin.REMOVED]
    return Explanation(*_wait(ledger, job), tuple(_verdict(ledger, job, agent, first_rank) for agent in agents))


def _first_rank(ledger: Ledger, job: Job) -> int | None:
    """The rank that takes all where agents fail over in order; None where ranks do not matter."""
    if ledger.policy.spread is not Spread.ORDERED:
        return None
    return min((agent.rank for agent in ledger.agents.values() if may_take(job, agent)), default=None)


def _wait(ledger: Ledger, job: Job) -> tuple[str, str]:
    """Why a queued job waits, the strongest reason first."""
    if not ledger.agents:
        return "the group has no agent", "an agent joins the group"
    if not any(agent.is_active for agent in ledger.agents.values()):
        return "no agent of the group is active", "an agent connects, or an operator resumes or enables one"
    label_set = job.lane.level.label_set
    if not ledger.placement.classes_for(label_set):
        asked = ", ".join([f"`{label_set.operation}`", *sorted(label_set.labels)])
        return f"no agent that is there offers {asked}", f"an agent connects that offers {asked}"
    if not any(may_take(job, agent) for agent in ledger.agents.values()):
        offer = f"the agents that offer `{label_set.operation}` are away, or held back"
        return offer, "one of them comes back, or an operator lets it work"
    if ledger.limit_reached(job):
        limit = f"as many jobs of the limit {job.lane.limit_key!r} run as may: {job.policy.running_max}"
        return limit, "one of them ends"
    if job.is_suspect:
        text = f"agents died with it {job.crashes} times: it waits for an agent that holds no other such job"
        return text, "such a job ends, or an agent without one has room"
    ahead = _ahead(ledger, job)
    text = f"jobs of its kind ahead of it: {ahead}" if ahead else "it is the next one of its kind"
    return f"all agents that may take it are full; {text}", "an agent that may take it has room"


def _ahead(ledger: Ledger, job: Job) -> int:
    """Jobs of its lane in front of it. Lanes beside it share by turns, so they are not counted."""
    lane = ledger.queue.lane_of(job)
    place = job.order_us, job.key
    return sum(1 for _ in takewhile(lambda other: (other.order_us, other.key) < place, lane.in_order())) + sum(
        (other.order_us, other.key) < place for other in lane.returned
    )


def _verdict(ledger: Ledger, job: Job, agent: Agent, first_rank: int | None) -> Verdict:
    why = next((one.what for one in _obstacles(ledger, agent)), "")
    why = why or _unfit(job, agent) or _full(job, agent, first_rank)
    assert bool(why) or may_take(job, agent), "an explanation must not contradict the placement"
    return Verdict(agent.no, not why, why or "it may take it and has room")


def _unfit(job: Job, agent: Agent) -> str:
    label_set = job.lane.level.label_set
    if label_set.operation in agent.unfit:
        return f"it has refused `{label_set.operation}` as unfit since it connected"
    if label_set.operation not in agent.operations:
        return f"it does not offer `{label_set.operation}`"
    missing = label_set.labels - agent.labels
    if missing:
        return f"it lacks the label {', '.join(sorted(missing))}"
    return "" if agent.agent_class is not None else TOO_MANY_KINDS


def _full(job: Job, agent: Agent, first_rank: int | None) -> str:
    if agent.held >= agent.capacity:
        return f"it is full: {agent.held} of {agent.capacity} attempts"
    if job.is_suspect and agent.suspects:
        return "it holds another job that agents died with"
    if first_rank is not None and first_rank < agent.rank:
        return f"agents of an earlier rank than its {agent.rank} work"
    return ""


def _assigned(ledger: Ledger, job: Job) -> Explanation:
    return _with_attempt(ledger, job, "the agent has taken it and has not started it", "the agent starts it")


def _running(ledger: Ledger, job: Job) -> Explanation:
    since = f"it has run for {_apart(ledger, job.started_us)}"
    due_us = ledger.job_due_us(job)
    return _with_attempt(ledger, job, since, f"it ends, or is stopped {_in(ledger, due_us)}" if due_us else "it ends")


def _with_attempt(ledger: Ledger, job: Job, summary: str, next_step: str) -> Explanation:
    """A job with a live attempt: what is known of that attempt says more than the job's state."""
    agent = ledger.agents[job.agent]
    where = f"attempt {job.attempt} on agent {agent.agent_id}"
    if job.phase is Phase.SENT:
        until_us = agent.sent[job.key] + ledger.policy.accept_timeout_us
        return Explanation(f"{where}: sent, not taken yet", f"it is taken, or placed elsewhere {_in(ledger, until_us)}")
    if job.phase is Phase.AWAY:
        until_us = ledger.take_away_us(job, agent)
        text = f"{where}: the agent's stream ended {_apart(ledger, agent.closed_us)} ago"
        return Explanation(text, f"the agent comes back with it, or it is taken away {_in(ledger, until_us)}")
    if job.phase is Phase.STOPPING:
        text = f"{where}: told to stop ({job.stop_reason})"
        return Explanation(text, f"the agent confirms, or it is given up {_in(ledger, job.stop_by_us)}")
    return Explanation(f"{where}: {summary}", next_step)


def _held(ledger: Ledger, job: Job) -> Explanation:
    text = "held: its agent was lost, or did not confirm a stop, so nobody knows how far it came"
    due_us = ledger.job_due_us(job)
    return Explanation(text, HELD_CHOICES + (f"; it fails {_in(ledger, due_us)} if nobody does" if due_us else ""))


_BY_STATE: Final[dict[JobState, Callable[[Ledger, Job], Explanation]]] = {
    JobState.SCHEDULED: _scheduled,
    JobState.QUEUED: _queued,
    JobState.ASSIGNED: _assigned,
    JobState.RUNNING: _running,
    JobState.HELD: _held,
}


# --- agents ---------------------------------------------------------------------------------------------------------


def _obstacles(ledger: Ledger, agent: Agent) -> list[Obstacle]:
    """What keeps new work from the agent, room and fitness aside, the strongest first."""
    admin, link = agent.admin, agent.link
    said = f" by {agent.admin_actor}" if agent.admin_actor else ""
    said += f" ({agent.admin_reason})" if agent.admin_reason else ""
    silent = f"nothing was heard of it for {_apart(ledger, agent.heard_us)}"
    again = "its process is started again on its machine"
    rows = (
        (admin is Admin.REMOVED, "removed", f"it was removed{said}", "its last exclusive attempt is fenced"),
        (admin is Admin.DISABLED, "disabled", f"it is disabled{said}", "an operator enables it"),
        (admin is Admin.DRAINING, "draining", f"it drains{said}", _drain_end(ledger, agent)),
        (link is Link.NEVER, "awaiting_setup", "it has never connected", "it is set up and connects"),
        (link is Link.STOPPED, "stopped", "it was drained to stop", again),
        (link is Link.LEFT, "stopped", "it left in good order", again),
        (link is Link.GONE, "no_response", "its stream ended", "its process connects again, or is started again"),
        (link is Link.SUSPECT, "no_response", silent, "it is heard again"),
        (admin is Admin.PAUSED, "paused", f"it is paused{said}", "an operator resumes it"),
        (_has_no_kind(agent), "kinds", TOO_MANY_KINDS, "it is given labels that other agents have, or a kind goes"),
        (agent.is_leaving, "leaving", "it asked to leave (SIGTERM)", "its process ends and is started again"),
        (agent.is_busy, "busy", "it refused work as busy", "it states its capacity again"),
        (agent.is_deaf, "deaf", "it did not take what it was sent", "it takes, refuses or reports something"),
    )
    return [Obstacle(reason, what, until) for is_so, reason, what, until in rows if is_so]


def _has_no_kind(agent: Agent) -> bool:
    return agent.is_present and agent.agent_class is None


def _drain_end(ledger: Ledger, agent: Agent) -> str:
    end = "what it holds ends; then an operator " + ("starts it again" if agent.drain_ends == "stop" else "resumes it")
    if agent.admin_due_us and agent.drain_then is not DrainThen.FINISH:
        return f"{end}; what still runs is stopped {_in(ledger, agent.admin_due_us)}"
    return end


def _in(ledger: Ledger, at_us: int) -> str:
    return f"in {max(0, at_us - ledger.now_us) / SECOND_US:.1f} s"


def _apart(ledger: Ledger, at_us: int) -> str:
    return f"{max(0, ledger.now_us - at_us) / SECOND_US:.1f} s"
