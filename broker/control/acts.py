"""What operators do with an agent: edit, drain, pause, resume, disable, enable, remove.

Shared by the rpc layer and, later, the console. Whether an act is allowed is the dispatcher's to say (`ALLOWED` in
`broker.dispatch.operators`), in the same step that carries it out; each is durable before it is answered.

Who acts is one word, `ACTOR`: without certificates nobody can say who calls, and what a caller claims is not believed.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple

from broker.control.directory import Directory
from broker.control.resources import AgentView, Resources, agent_name
from broker.dispatch import reasons
from broker.dispatch.explain import AgentExplanation, explain_agent
from broker.dispatch.messages import (
    DisableRequested,
    DrainCancelled,
    DrainRequested,
    EnableRequested,
    Event,
    LabelsSet,
    RankSet,
    RemoveRequested,
    RequestRefused,
    ResumeRequested,
)
from broker.dispatch.model import Agent, AgentNo, DrainEnd, DrainThen
from broker.dispatch.operators import INSTEAD, Action, allowed
from broker.engine import Engine
from broker.errors import NotFoundError, WrongStateError
from broker.store.base import AgentWordsRow

ACTOR: Final = "operator"

AgentPath = tuple[str, str, str]
"""Ids of the organisation, its group and the agent."""


class AgentChange(NamedTuple):
    """New values, None for what stays. A display name that is "" is the id; `labels` are sorted `key=value` texts."""

    display_name: str | None = None
    description: str | None = None
    rank: int | None = None
    labels: tuple[str, ...] | None = None


class AgentActs:
    """Acts on one agent, each answered with the agent as it is after it.

    All raise NotFoundError, and WrongStateError with what to do instead.
    """

    def __init__(self, engine: Engine, directory: Directory, resources: Resources) -> None:
        self._engine = engine
        self._directory = directory
        self._resources = resources

    def explain(self, path: AgentPath) -> tuple[AgentView, AgentExplanation]:
        """The agent, and why it is given work or not."""
        view = self._resources.agent(*path)
        said = explain_agent(self._engine.dispatcher(view.name.group_no).ledger, view.name.agent_no)
        assert said is not None, "the dispatcher knows whom the directory knows"
        return view, said

    async def drain(
        self,
        path: AgentPath,
        ends: DrainEnd,
        *,
        then: DrainThen = DrainThen.FINISH,
        deadline_us: int | None = None,
        reason: str = "",
    ) -> AgentView:
        """Give it nothing new and let it end as `ends` says; at the deadline, `then` with what still runs.

        `deadline_us` counts from now; 0 is at once, None is never.
        """
        due_us = 0 if deadline_us is None else max(1, deadline_us)  # to the dispatcher 0 is "not given"
        return await self._act(
            path, lambda ticket, agent: DrainRequested(ticket, agent, ends, then, due_us, ACTOR, reason)
        )

    async def cancel_drain(self, path: AgentPath) -> AgentView:
        """Take back a drain that is not finished."""
        return await self._act(path, lambda ticket, agent: DrainCancelled(ticket, agent, ACTOR))

    async def resume(self, path: AgentPath) -> AgentView:
        """End a pause."""
        return await self._act(path, lambda ticket, agent: ResumeRequested(ticket, agent, ACTOR))

    async def disable(self, path: AgentPath, *, now: bool = False, reason: str = "") -> AgentView:
        """Switch it off: its stream ends when it is idle, or `now` within a second."""
        return await self._act(path, lambda ticket, agent: DisableRequested(ticket, agent, now, ACTOR, reason))

    async def enable(self, path: AgentPath) -> AgentView:
        """Switch it on again; it comes back by itself."""
        return await self._act(path, lambda ticket, agent: EnableRequested(ticket, agent, ACTOR))

    async def edit(
        self,
        path: AgentPath,
        change: AgentChange,
        *,
        check: Callable[[AgentView], None],
        validate_only: bool = False,
    ) -> AgentView:
        """Change what people call it (while it does not run), its rank or its labels. `check` sees it first."""

        async def edit() -> AgentView:
            view = self._resources.agent(*path)
            check(view)
            words, wanted = self._edited(path, view, change)
            labels = tuple(sorted(wanted.operator_labels))
            if validate_only:
                return view._replace(words=words, agent=wanted)
            if wanted.rank != view.agent.rank:
                await self._ask(path, view, lambda ticket, agent: RankSet(ticket, agent, wanted.rank, ACTOR))
            if wanted.operator_labels != view.agent.operator_labels:
                await self._ask(path, view, lambda ticket, agent: LabelsSet(ticket, agent, labels, ACTOR))
            if words != view.words:
                await self._directory.put_agent_words(words)
            return self._resources.agent(*path)

        return await self._resources.turn.carry_out(edit)

    def _edited(self, path: AgentPath, view: AgentView, change: AgentChange) -> tuple[AgentWordsRow, Agent]:
        """Its words and itself as they are to be."""
        words = view.words
        if change.display_name is not None:
            words = words._replace(display_name=change.display_name or view.name.agent_id)
        if change.description is not None:
            words = words._replace(description=change.description)
        if words != view.words and not allowed(Action.EDIT, view.agent):
            raise _wrong_state(path, f"{agent_name(*path)} is {view.status}: {INSTEAD[Action.EDIT]}")
        wanted = replace(view.agent, rank=view.agent.rank if change.rank is None else change.rank)
        if change.labels is not None:
            wanted.operator_labels = frozenset(change.labels)
            wanted.relabel()
        return words, wanted

    async def remove(self, path: AgentPath, *, check: Callable[[AgentView], None], validate_only: bool = False) -> int:
        """Take it out of its group for good; how many attempts it held. `check` as in `edit`."""

        async def remove() -> int:
            view = self._resources.agent(*path)
            check(view)
            held = view.agent.held
            if validate_only:
                if not allowed(Action.REMOVE, view.agent):
                    raise _wrong_state(path, f"{agent_name(*path)} is {view.status}: {INSTEAD[Action.REMOVE]}")
                return held
            await self._ask(path, view, lambda ticket, agent: RemoveRequested(ticket, agent, ACTOR))
            self._directory.remove_agent(view.name)
            return held

        return await self._resources.turn.carry_out(remove)

    async def _act(self, path: AgentPath, make: Callable[[int, AgentNo], Event]) -> AgentView:
        await self._ask(path, self._resources.agent(*path), make)
        return self._resources.agent(*path)

    async def _ask(self, path: AgentPath, view: AgentView, make: Callable[[int, AgentNo], Event]) -> None:
        reply = await self._engine.ask(view.name.group_no, lambda ticket: make(ticket, view.name.agent_no))
        if not isinstance(reply, RequestRefused):
            return
        if reply.reason == reasons.AGENT_UNKNOWN:
            raise NotFoundError(reply.text, reason=reply.reason, resource=agent_name(*path))
        raise _wrong_state(path, reply.text)


def _wrong_state(path: AgentPath, text: str) -> WrongStateError:
    return WrongStateError(text, reason=reasons.AGENT_WRONG_STATE, resource=agent_name(*path))
