"""What agents said of their machines in Hello: shown to people, used for nothing else.

Kept in memory only, for each agent that has begun a session since this broker started: it says it again with its next
Hello, and no number of restarts grows a table. It stays when the agent goes, because then people want to know where it
was. Agents that are older than a field leave it empty.
"""

from typing import Final, NamedTuple

from broker.dispatch.messages import AttemptId
from broker.dispatch.model import AgentNo, GroupNo, SessionId

Stuck = frozenset[AttemptId]
"""Attempts whose handler was told to stop and runs on."""


class Machine(NamedTuple):
    """Where an agent runs, in its own words; only `peer` is what the broker sees: address and port of the stream."""

    version: str = ""
    host: str = ""
    pid: int = 0
    user: str = ""
    os: str = ""
    ip: str = ""
    peer: str = ""
    time_zone: str = ""
    started_us: int = 0


UNKNOWN: Final = Machine()


class Presence:
    """The newest `Machine` of each agent. As many as there are agents, each of a few hundred bytes."""

    def __init__(self) -> None:
        self._machines: dict[tuple[GroupNo, AgentNo], Machine] = {}
        self._stuck: dict[SessionId, Stuck] = {}

    def note(self, group_no: GroupNo, agent_no: AgentNo, machine: Machine) -> None:
        """The agent has begun a session from there."""
        self._machines[group_no, agent_no] = machine

    def machine(self, group_no: GroupNo, agent_no: AgentNo) -> Machine:
        """Where the agent was last; `UNKNOWN` before its first session with this broker."""
        return self._machines.get((group_no, agent_no), UNKNOWN)

    def forget(self, group_no: GroupNo, agent_no: AgentNo) -> None:
        """Nobody knows the agent any more."""
        self._machines.pop((group_no, agent_no), None)

    def note_stuck(self, session: SessionId, stuck: Stuck) -> None:
        """What the agent says of its handlers in this session; nothing of one that has ended.

        Of a session, not of an agent: a stream that is not let in, or is taken over, says nothing of the live one.
        """
        if stuck:
            self._stuck[session] = stuck
        else:
            self._stuck.pop(session, None)

    def stuck(self, session: SessionId) -> Stuck:
        """Attempts that hold a slot of the session's agent although they were told to stop."""
        return self._stuck.get(session, frozenset())
