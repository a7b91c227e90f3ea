"""Defects in what operators ask for (drains, labels, removals), and in what the next attempt starts from."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from broker.dispatch import dispatcher, liveness, matching, operators
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.ledger import Ledger
from broker.dispatch.messages import AttemptProgressed
from broker.dispatch.model import Admin, Agent
from tests.mutants import Mutant


def _only_while_draining(remind: Callable[..., None]) -> Callable[..., None]:
    def wrong(ledger: Ledger, agent: Agent) -> None:
        if agent.admin is Admin.DRAINING:
            remind(ledger, agent)

    return wrong


def _both(relabel: Callable[[Agent], None]) -> Callable[[Agent], None]:
    def wrong(self: Agent) -> None:
        relabel(self)
        self.labels |= self.claims

    return wrong


def _of_any_attempt(on_progressed: Callable[..., None]) -> Callable[..., None]:
    def wrong(ledger: Ledger, event: AttemptProgressed) -> None:
        job = ledger.jobs.get(event.job_key)
        if job is not None:
            on_progressed(ledger, replace(event, attempt=job.attempt, agent=job.agent))

    return wrong


def _by_id(known: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, event: known(self, replace(event, idempotency_key=""))


def _without_its_lease(end_work: Callable[..., None]) -> Callable[..., None]:
    def wrong(ledger: Ledger, agent: Agent, reason: str) -> None:
        jobs = [(job, job.policy) for job in agent.live.values() if agent.admin is Admin.REMOVED]
        for job, policy in jobs:
            job.policy = replace(policy, exclusive=False)
        end_work(ledger, agent, reason)
        for job, policy in jobs:
            job.policy = policy

    return wrong


def _after_its_end(place: Callable[[Ledger], None]) -> Callable[[Ledger], None]:
    def wrong(ledger: Ledger) -> None:
        is_removed, ledger.is_removed = ledger.is_removed, False
        place(ledger)
        ledger.is_removed = is_removed

    return wrong


def _mutant(name: str, promise: str, what: str, owner: Any, member: Any, make: Callable[[Any], Any]) -> Mutant:
    return Mutant(name, "dispatcher", promise, what, owner, member, make)


MUTANTS = (
    _mutant(
        "stopped-not-told",
        "liveness",
        "an agent that was drained to stop while it was away is not told so when it is back",
        liveness,
        "_remind",
        _only_while_draining,
    ),
    _mutant("both-labels", "inv04", "what an agent claims holds beside what operators say", Agent, "relabel", _both),
    _mutant(
        "checkpoint-of-any",
        "P4",
        "a checkpoint counts for the latest attempt, whichever it is of",
        dispatcher._AGENT_REPORTS,
        AttemptProgressed,
        _of_any_attempt,
    ),
    _mutant(
        "key-unasked",
        "P7",
        "of two submissions with one key in a batch each becomes a job",
        Dispatcher,
        "_known",
        _by_id,
    ),
    _mutant(
        "removed-without-lease",
        "P3",
        "exclusive work of an agent that is removed goes on elsewhere at once",
        operators,
        "_end_work",
        _without_its_lease,
    ),
    _mutant(
        "group-goes-on",
        "P5",
        "a group that is removed still gives out work",
        matching,
        "place",
        _after_its_end,
    ),
)
