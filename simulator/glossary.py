"""What each figure of an answer says: the page `docs/reference/figures.md` is made from it.

`WORK`, `GROUP` and `AGENT` stand for names of a scenario (an agent's is its number), `TIMES` for each of
`measured.TIMES`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from simulator.measured import TIMES, unit_of

_TIMES_WORDS: Final = "mean, quantiles and greatest"
FIGURES: Final[Mapping[str, Mapping[str, str]]] = {
    "work": {
        "WORK.arrived": "jobs that were submitted in the window, also those that were refused",
        "WORK.refused": "of these, jobs that the group did not take because its queue was full",
        "WORK.succeeded": "of these, jobs that succeeded, whenever that was",
        "WORK.failed": "of these, jobs that failed for good, those that expired included",
        "WORK.cancelled": "of these, jobs that were cancelled",
        "WORK.dead": "of these, dead letters: a budget of attempts, crashes or bounces was used up",
        "WORK.expired": "of these, jobs that were not started in time",
        "WORK.retried": "of these, jobs that were assigned more than once",
        "WORK.refused.share": "refused of arrived jobs",
        "WORK.expired.share": "expired of arrived jobs",
        "WORK.wait.share": "jobs that did not start the moment they came, of those that are over",
        "WORK.rate": "arrived jobs a second",
        "WORK.throughput": "jobs a second that succeeded in the window, whenever they came",
        "WORK.latency.TIMES": f"from the submission of a job to its success: {_TIMES_WORDS}. Infinite for jobs that "
        "were not over when the run ended; without those that ended in another way",
        "WORK.latency.count": "jobs behind the figures of latency",
        "WORK.wait.TIMES": f"from the submission of a job to its first assignment: {_TIMES_WORDS}. Infinite for jobs "
        "that waited when the run ended; without those that ended before they were assigned",
        "WORK.wait.count": "jobs behind the figures of wait",
        "WORK.attempts.mean": "assignments a job, of those that are over",
        "WORK.attempts.over3": "share of jobs that were assigned more than three times, of those that are over",
    },
    "groups": {
        "GROUP.utilisation": "slots that ran something, of those whose agents' processes were there",
        "GROUP.AGENT.utilisation": "the same of one agent; in groups of 16 agents at most",
        "GROUP.running.mean": "jobs that ran at the same time",
        "GROUP.running.peak": "the most jobs that ran at the same time",
        "GROUP.slots.mean": "slots of agents whose processes were there",
        "GROUP.agents.mean": "agents whose processes were there",
        "GROUP.up.mean": "agents that were connected and heard",
        "GROUP.availability": "share of time with as many such agents as the group needs (`need`)",
        "GROUP.availability.up": "how long it had enough of them in one stretch, on average",
        "GROUP.availability.down": "how long it had too few of them in one stretch, on average",
        "GROUP.backlog.mean": "jobs that waited: queued, scheduled or held",
        "GROUP.backlog.peak": "the most jobs that waited",
        "GROUP.backlog.drain": "from the peak until nothing waited; `never` if that did not come",
        "GROUP.evenness.count": "assignments behind the figures of evenness",
        "GROUP.evenness.jain": "Jain's index of assignments a slot over all agents: 1 is even, 1/n is all on one of n",
        "GROUP.evenness.peak": "assignments a slot of the agent that got the most, by the mean of all",
        "GROUP.evenness.spread": "the most assignments of an agent less the fewest",
        "GROUP.evenness.sd": "standard deviation of the agents' assignments",
        "GROUP.evenness.window.count": "windows with enough assignments, of agents that were up throughout, to look at",
        "GROUP.evenness.window.least": "the least Jain's index of these windows",
        "GROUP.evenness.window.mean": "the mean Jain's index of these windows",
    },
    "mesh": {
        "lost": "accepted jobs that are nowhere: always 0",
        "unfinished": "jobs that were not over when the run ended",
        "overlapped": "attempts that began while another attempt of the same job ran",
        "wasted.seconds": "time of runs that came to nothing: lost, stopped, failed, or of a job that was over",
        "wasted.share": "that time of all run time",
        "backlog.mean": "jobs that waited, of all groups",
        "backlog.peak": "the most jobs that waited, of all groups",
        "backlog.drain": "from that peak until nothing waited; `never` if that did not come",
        "system.mean": "jobs that were submitted and not over",
        "broker.utilisation": "how busy the broker's event loop was",
        "broker.commits": "commits of the broker's store",
        "cost.per-hour": "what agents and the rest of `cost` come to in an hour",
        "cost.total": "what they came to in the window",
    },
    "fail-over": {
        "failover.detect.TIMES": f"from the loss of an agent until the broker noticed, for each job: {_TIMES_WORDS}",
        "failover.detect.count": "jobs of lost agents",
        "failover.decide.TIMES": f"from the loss of an agent until its jobs waited again: {_TIMES_WORDS}",
        "failover.decide.count": "jobs behind it",
        "failover.reassign.TIMES": f"from the loss of an agent until its jobs were assigned again: {_TIMES_WORDS}",
        "failover.reassign.count": "jobs behind it",
        "failover.restart.TIMES": f"from the loss of an agent until its jobs ran again: {_TIMES_WORDS}",
        "failover.restart.count": "jobs behind it",
        "reconnect.TIMES": "from when agents that had all lost their streams could come back until each was back: "
        f"{_TIMES_WORDS}",
        "reconnect.count": "agents behind it",
        "reconnect.peak": "the most sessions that came about within a second",
    },
}
"""By what they are of. Figures of phases have the same names."""
_WILD: Final = {"WORK": r"[^.]+", "GROUP": r"[^.]+", "AGENT": r"\d+", "TIMES": f"(?:{'|'.join(TIMES)})"}


def entries_of(figure: str) -> list[str]:
    """The entries that a figure of a run falls under, exactly one; no group or work is called like what is no name."""
    found = [entry for entries in FIGURES.values() for entry in entries if _pattern(entry).fullmatch(figure)]
    return [figure] if figure in found else found


def _pattern(entry: str) -> re.Pattern[str]:
    return re.compile(r"\.".join(_WILD.get(part, re.escape(part)) for part in entry.split(".")))


def rows() -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Each heading with its figures: name, unit and meaning."""
    for heading, entries in FIGURES.items():
        yield heading, [(entry, unit_of(entry.replace("TIMES", "mean")), said) for entry, said in entries.items()]
