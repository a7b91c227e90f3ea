"""Calls of operators about agents: see, announce, change, drain, disable, remove.

What is said in `mesh_client.admin` of changes, removals and lists holds here, too.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Final, Literal
from uuid import uuid4

from mesh_client.connection import Connection
from mesh_client.convert import agent_explanation, agent_view, duration
from mesh_client.errors import MalformedError
from mesh_client.names import agent_name, group_name
from mesh_client.pages import mask, paged
from mesh_client.resources import AgentExplanation, AgentView
from protos.mesh.v1 import admin_service_pb2 as pb
from protos.mesh.v1 import agent_service_pb2

DrainMode = Literal["stop", "pause"]
DrainThen = Literal["finish", "requeue", "kill"]
DRAIN_MODES: Final = {"stop": agent_service_pb2.DRAIN_MODE_STOP, "pause": agent_service_pb2.DRAIN_MODE_PAUSE}
DRAIN_THENS: Final = {
    "finish": agent_service_pb2.DRAIN_THEN_FINISH,
    "requeue": agent_service_pb2.DRAIN_THEN_REQUEUE,
    "kill": agent_service_pb2.DRAIN_THEN_KILL,
}

RANK_MAX: Final = 1_000_000
AGENTS_PAGE: Final = 1_000
"""Agents in a page: the broker looks at all of them for each page."""


class AgentCalls:
    """Agents of one organization."""

    _connection: Connection
    organization: str

    async def get_agent(self, group: str, agent: str) -> AgentView:
        """One agent as it was last heard."""
        request = pb.GetAgentRequest(name=agent_name(self.organization, group, agent))
        return agent_view(await self._connection.call(self._connection.admin.GetAgent, request))

    def list_agents(
        self, group: str | None = None, *, where: str = "", order_by: str = "", limit: int | None = None
    ) -> AsyncIterator[AgentView]:
        """Agents of a group, or of all private groups of the organization."""

        async def page(token: str, size: int) -> tuple[Iterable[AgentView], str]:
            parent = group_name(self.organization, group or "-")
            request = pb.ListAgentsRequest(
                parent=parent, page_size=size, page_token=token, filter=where, order_by=order_by
            )
            response = await self._connection.call(self._connection.admin.ListAgents, request)
            return map(agent_view, response.agents), response.next_page_token

        return paged(page, limit, AGENTS_PAGE)

    async def create_agent(
        self,
        group: str,
        agent: str,
        *,
        display_name: str = "",
        description: str = "",
        rank: int = 0,
        labels: Mapping[str, str] | None = None,
        request_id: str = "",
    ) -> AgentView:
        """Announce an agent: it awaits its set-up until it connects. Raises ConflictError if the name is taken.

        `labels` win over what the agent claims. Raises FullError at the limit of the group or of the plan.
        """
        request = pb.CreateAgentRequest(
            parent=group_name(self.organization, group),
            agent_id=agent,
            agent=pb.Agent(
                display_name=display_name or agent,
                description=description,
                rank=_checked_rank(rank),
                operator_labels=labels or {},
            ),
            request_id=request_id or str(uuid4()),
        )
        return agent_view(await self._connection.call(self._connection.admin.CreateAgent, request))

    async def update_agent(
        self,
        group: str,
        agent: str,
        *,
        display_name: str | None = None,
        description: str | None = None,
        rank: int | None = None,
        labels: Mapping[str, str] | None = None,
        etag: str = "",
        validate_only: bool = False,
    ) -> AgentView:
        """Change what people call an agent, which must not run then, its rank (0 to a million) or its labels.

        `labels` are all that operators give it: those before are taken back. Raises WrongStateError.
        """
        wanted = pb.Agent(
            name=agent_name(self.organization, group, agent),
            display_name=display_name or "",
            description=description or "",
            rank=_checked_rank(rank or 0),
            operator_labels=labels or {},
            etag=etag,
        )
        changed = mask(display_name=display_name, description=description, rank=rank, operator_labels=labels)
        request = pb.UpdateAgentRequest(agent=wanted, update_mask=changed, validate_only=validate_only)
        stub = self._connection.admin
        return agent_view(await self._connection.call(stub.UpdateAgent, request, is_repeatable=not etag))

    async def follow_agent(self, group: str, agent: str, *, every_s: float = 0.5) -> AsyncIterator[AgentView]:
        """The agent as it is now and whenever it has changed, for ever: it is asked for `every_s` seconds."""
        last = None
        while True:
            view = await self.get_agent(group, agent)
            if view != last:
                yield view
            last = view
            await asyncio.sleep(every_s)

    async def explain_agent(self, group: str, agent: str) -> AgentExplanation:
        """Why an agent is given work or not, and what would change that."""
        request = pb.ExplainAgentRequest(name=agent_name(self.organization, group, agent))
        return agent_explanation(await self._connection.call(self._connection.admin.ExplainAgent, request))

    async def drain_agent(
        self,
        group: str,
        agent: str,
        mode: DrainMode = "stop",
        *,
        then: DrainThen = "finish",
        deadline_s: float | None = None,
        reason: str = "",
    ) -> AgentView:
        """Give an agent nothing new and let it end: its process ends, or (`pause`) it stays and waits for `resume`.

        `then` happens after `deadline_s` to what still runs. Raises WrongStateError if it does not run.
        """
        request = pb.DrainAgentRequest(
            name=agent_name(self.organization, group, agent),
            mode=DRAIN_MODES[mode],
            then=DRAIN_THENS[then],
            reason=reason,
        )
        if deadline_s is not None:
            request.deadline.CopyFrom(duration("deadline_s", deadline_s))
        return agent_view(await self._connection.call(self._connection.admin.DrainAgent, request, is_repeatable=False))

    async def cancel_drain(self, group: str, agent: str) -> AgentView:
        """Take back a drain that is not finished: the agent works on."""
        request = pb.CancelDrainRequest(name=agent_name(self.organization, group, agent))
        return agent_view(await self._connection.call(self._connection.admin.CancelDrain, request, is_repeatable=False))

    async def resume_agent(self, group: str, agent: str) -> AgentView:
        """End a pause: the agent is given work again."""
        request = pb.ResumeAgentRequest(name=agent_name(self.organization, group, agent))
        return agent_view(await self._connection.call(self._connection.admin.ResumeAgent, request, is_repeatable=False))

    async def disable_agent(self, group: str, agent: str, *, now: bool = False, reason: str = "") -> AgentView:
        """Switch an agent off: it finishes what it has and is sent away, or (`now`) is stopped within a second."""
        request = pb.DisableAgentRequest(name=agent_name(self.organization, group, agent), now=now, reason=reason)
        stub = self._connection.admin
        return agent_view(await self._connection.call(stub.DisableAgent, request, is_repeatable=False))

    async def enable_agent(self, group: str, agent: str) -> AgentView:
        """Switch an agent on again: it comes back by itself if its process runs."""
        request = pb.EnableAgentRequest(name=agent_name(self.organization, group, agent))
        return agent_view(await self._connection.call(self._connection.admin.EnableAgent, request, is_repeatable=False))

    async def remove_agent(self, group: str, agent: str, *, validate_only: bool = False) -> int:
        """Remove an agent that does not run; how many attempts it held, which start elsewhere.

        `validate_only`: say what would go, and raise what it would be refused with.
        """
        request = pb.DeleteAgentRequest(name=agent_name(self.organization, group, agent), validate_only=validate_only)
        stub = self._connection.admin
        return (await self._connection.call(stub.DeleteAgent, request, is_repeatable=validate_only)).attempts


def _checked_rank(rank: int) -> int:
    if not 0 <= rank <= RANK_MAX:
        raise MalformedError(f"rank {rank}: give a number from 0 to {RANK_MAX}")
    return rank
