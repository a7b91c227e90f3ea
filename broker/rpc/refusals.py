"""Every reason with which a caller, or an agent's stream, can be refused: the tables behind docs/errors.md.

The reason is the machine name in ErrorInfo and never changes its meaning. A refused request has changed nothing; for
those that are UNAVAILABLE it may be unknown whether it was carried out, and the same job ids make no job twice.
"""

from typing import Final, NamedTuple


class Refusal(NamedTuple):
    """A reason, the gRPC code it comes with, when it is given, and what the caller can do."""

    reason: str
    code: str
    when: str
    advice: str


REFUSALS: Final = (
    # --- the request is wrong ---
    Refusal(
        "MALFORMED_MESSAGE", "INVALID_ARGUMENT", "the bytes are no message of this type", "send what the contract says"
    ),
    Refusal(
        "INVALID_MESSAGE",
        "INVALID_ARGUMENT",
        "fields break rules of the contract; the first ones are named",
        "correct the fields",
    ),
    Refusal(
        "MALFORMED_NAME",
        "INVALID_ARGUMENT",
        "a resource name has another form than this call takes",
        "take a name as lists show it",
    ),
    Refusal(
        "MALFORMED_ID",
        "INVALID_ARGUMENT",
        "a chosen id is none, or none can be made from the display name",
        "give an id: a-z, 0-9 and -, a letter first",
    ),
    Refusal(
        "FORBIDDEN_CHARACTER",
        "INVALID_ARGUMENT",
        "a display name has one of the 22 characters it must not have",
        "leave the character out; its position is named",
    ),
    Refusal(
        "TARGET_LEFT_OUT",
        "INVALID_ARGUMENT",
        "an environment is to lose the group that runs its jobs",
        "name another target, or none, in the same change",
    ),
    Refusal(
        "MALFORMED_FILTER",
        "INVALID_ARGUMENT",
        "a filter or an order cannot be read",
        "correct it at the position that is named",
    ),
    Refusal(
        "MALFORMED_PAGE_TOKEN",
        "INVALID_ARGUMENT",
        "a page token is none, or one of another list",
        "begin at the first page",
    ),
    Refusal(
        "MALFORMED_RESUME_TOKEN",
        "INVALID_ARGUMENT",
        "a resume token of a watch is none",
        "take that of the last message, or none",
    ),
    Refusal(
        "PAYLOAD_TOO_LARGE",
        "INVALID_ARGUMENT",
        "a payload is above `limits.payload_bytes_max`",
        "pass a reference to the data",
    ),
    Refusal(
        "TIME_OUT_OF_RANGE",
        "INVALID_ARGUMENT",
        "a time is negative, none, or more than ten years away",
        "give one within ten years",
    ),
    Refusal("START_TWICE", "INVALID_ARGUMENT", "`delay` and `start_at` are both given", "give one of them"),
    Refusal(
        "MALFORMED",
        "INVALID_ARGUMENT",
        "a frame of an agent cannot be understood",
        "mend the agent; its stream is ended",
    ),
    Refusal(
        "AGENT_PROTOCOL",
        "INVALID_ARGUMENT",
        "an agent breaks the rules of its stream",
        "mend the agent; its stream is ended",
    ),
    Refusal(
        "UNAUTHENTICATED",
        "UNAUTHENTICATED",
        "an agent does not say who it is",
        "send the identity in the call's metadata",
    ),
    # --- what it is about is not there, or not so ---
    Refusal(
        "NOT_FOUND",
        "NOT_FOUND",
        "no such organization, group, environment or agent",
        "check the name; lists show what there is",
    ),
    Refusal("JOB_NOT_FOUND", "NOT_FOUND", "no such job in this organization", "check the job id"),
    Refusal("AGENT_NOT_FOUND", "NOT_FOUND", "the agent was removed at this moment", "nothing: it is gone"),
    Refusal("GROUP_REMOVED", "NOT_FOUND", "the group was removed at this moment", "send the job to another group"),
    Refusal("ALREADY_EXISTS", "ALREADY_EXISTS", "the id is taken", "choose another id"),
    Refusal(
        "IDEMPOTENCY_KEY_REUSED",
        "ALREADY_EXISTS",
        "the job id or idempotency key was used for other content",
        "choose a new one, or send the same content",
    ),
    Refusal(
        "REQUEST_ID_REUSED",
        "ALREADY_EXISTS",
        "the request id was used for another request",
        "choose a new one, or send the same request",
    ),
    Refusal(
        "ENVIRONMENT_WITHOUT_GROUP", "FAILED_PRECONDITION", "the environment has no target group", "make one that has"
    ),
    Refusal(
        "GROUP_WITHOUT_ENVIRONMENT",
        "FAILED_PRECONDITION",
        "no environment names the group",
        "make an environment that does",
    ),
    Refusal(
        "JOB_FINAL",
        "FAILED_PRECONDITION",
        "a job that has ended is to be cancelled",
        "nothing: what is final stays as it is",
    ),
    Refusal(
        "JOB_NOT_HELD",
        "FAILED_PRECONDITION",
        "a job is to be decided about that is not held",
        "nothing: it goes on by itself, or has ended",
    ),
    Refusal(
        "JOB_NOT_REQUEUABLE",
        "FAILED_PRECONDITION",
        "a job is to be requeued that is not failed, dead or cancelled",
        "wait for its end, or submit a new job",
    ),
    Refusal(
        "AGENT_WRONG_STATE",
        "FAILED_PRECONDITION",
        "the agent's state does not allow the act",
        "do what the text says instead",
    ),
    Refusal(
        "GROUP_INACTIVE",
        "FAILED_PRECONDITION",
        "no agent of the group is active, and the group lets no job wait for one",
        "submit again when it is active, or let jobs wait",
    ),
    Refusal(
        "GROUP_MANAGED",
        "FAILED_PRECONDITION",
        "a managed group, or one of its agents, is to be made, changed, removed or looked into",
        "ask the operator of the mesh; a private group is yours to change",
    ),
    Refusal(
        "GROUP_IN_USE",
        "FAILED_PRECONDITION",
        "a group is to be removed that has agents, jobs or environments",
        "say `force` to remove all of it",
    ),
    Refusal(
        "ORGANIZATION_IN_USE",
        "FAILED_PRECONDITION",
        "an organization is to be removed that has something",
        "say `force` to remove all of it",
    ),
    Refusal("CHANGED", "ABORTED", "the resource has changed since its etag was read", "read it again and decide anew"),
    # --- a bound is reached ---
    Refusal(
        "QUEUE_FULL",
        "RESOURCE_EXHAUSTED",
        "the group holds `dispatch.queue_jobs_max` live jobs",
        "submit again when jobs have ended",
    ),
    Refusal(
        "QUEUE_BYTES_FULL",
        "RESOURCE_EXHAUSTED",
        "payloads of the group's live jobs fill `dispatch.queue_bytes_max`",
        "submit again when jobs have ended",
    ),
    Refusal(
        "LABEL_SETS_FULL",
        "RESOURCE_EXHAUSTED",
        "the group knows `dispatch.label_sets_max` kinds of operation and labels",
        "use fewer different labels",
    ),
    Refusal(
        "LANES_FULL",
        "RESOURCE_EXHAUSTED",
        "`dispatch.lanes_max` fairness keys and priorities wait in the group",
        "use fewer different fairness keys",
    ),
    Refusal(
        "MAILBOX_FULL",
        "RESOURCE_EXHAUSTED",
        "more submissions, or bytes of them, wait than the broker may hold",
        "submit again after RetryInfo, in smaller batches",
    ),
    Refusal(
        "AGENTS_FULL",
        "RESOURCE_EXHAUSTED",
        "the group has `limits.agents_max` agents",
        "remove agents that are gone, or make another group",
    ),
    Refusal(
        "GROUP_QUOTA",
        "RESOURCE_EXHAUSTED",
        "the organization has as many private groups as its plan allows; limit, current and contact are named",
        "remove one, or ask the contact",
    ),
    Refusal(
        "AGENT_QUOTA",
        "RESOURCE_EXHAUSTED",
        "the organization has as many agents as its plan allows; limit, current and contact are named",
        "remove one, or ask the contact",
    ),
    Refusal(
        "WATCHERS_FULL", "RESOURCE_EXHAUSTED", "`limits.watchers_max` watches are open", "end one, or try again later"
    ),
    Refusal(
        "CHANGES_FULL",
        "RESOURCE_EXHAUSTED",
        "`limits.changes_waiting_max` changes of groups, agents and the like wait",
        "try again after RetryInfo",
    ),
    # --- the broker cannot at present ---
    Refusal("NOT_OWNER", "UNAVAILABLE", "another broker has the group", "ask again, with the same job ids"),
    Refusal("BROKER_STOPPING", "UNAVAILABLE", "the broker is on its way out", "ask again, with the same job ids"),
    Refusal(
        "STORE_UNAVAILABLE", "UNAVAILABLE", "the store takes no commits at present", "submit again after RetryInfo"
    ),
    Refusal(
        "STORE_BUSY", "UNAVAILABLE", "the store is locked by another process, or full", "ask again after RetryInfo"
    ),
    Refusal(
        "STORE_FAILED",
        "UNAVAILABLE",
        "the store has failed; the broker ends and must be started again",
        "ask again, with the same job ids",
    ),
    Refusal("INTERNAL", "INTERNAL", "a mistake of the broker", "report the trace id; the broker's log has it"),
)


class StreamRefusal(NamedTuple):
    """Why an agent has no session, or none any more: a code, and how it comes: as a Reject, or with this status.

    `retry_after_s` is what a Reject asks for (0: never); `retry` says it to people.
    """

    code: str
    comes_as: str
    retry: str
    when: str
    advice: str
    retry_after_s: int = 0


REJECT: Final = "Reject"
STREAM_REFUSALS: Final = (
    # --- the session does not come about ---
    StreamRefusal("STOPPING", REJECT, "after 1 s", "the broker is on its way out", "dial again", 1),
    StreamRefusal(
        "STORE_UNAVAILABLE", REJECT, "after 1 s", "its store takes no commits", "dial again; work goes on", 1
    ),
    StreamRefusal(
        "OVERLOADED",
        REJECT,
        "when it says, within 20 s",
        "more agents connect at once than `limits.hellos_per_s`, and those that wait for their turn fill 5 s",
        "dial again then: each agent is told another time",
    ),
    StreamRefusal(
        "AGENT_DISABLED",
        REJECT,
        "after 3 leases (30 s)",
        "an operator disabled the agent, and there is nothing to settle",
        "go on asking; end nothing",
    ),
    StreamRefusal(
        "QUARANTINED",
        REJECT,
        "after 3 leases (30 s)",
        "another process of this agent has taken over, and is here",
        "two have the same name: end one; go on asking",
    ),
    StreamRefusal(
        "WRONG_MESH",
        REJECT,
        "after 30 s",
        "the agent has work or outcomes of another mesh in hand",
        "go on asking; a person starts the right broker, or moves the agent's spool away",
        30,
    ),
    StreamRefusal(
        "SUPERSEDED",
        REJECT,
        "no",
        "a stream of this process with the same or a higher `connect_seq` is live",
        "a mistake: count up with each Hello",
    ),
    StreamRefusal(
        "UNKNOWN_GROUP",
        REJECT,
        "no",
        "there is no such organisation or group",
        "end the process; correct the identity",
    ),
    StreamRefusal(
        "REMOVED",
        REJECT,
        "no",
        "an operator removed the agent",
        "end the process; it must be announced again (`mesh agents add`)",
    ),
    # --- the session ends ---
    StreamRefusal(
        "SUPERSEDED",
        "ABORTED",
        "-",
        "a newer stream of this agent has taken over",
        "of your own process: nothing. Of another one: two have the same name, end one",
    ),
    StreamRefusal("SILENT", "DEADLINE_EXCEEDED", "yes", "nothing was heard for a whole lease", "dial again"),
    StreamRefusal(
        "AGENT_DISABLED",
        "FAILED_PRECONDITION",
        "yes",
        "an operator disabled the agent",
        "dial again; a Reject says when",
    ),
    StreamRefusal(
        "REMOVED", "PERMISSION_DENIED", "once", "an operator removed the agent", "dial again once; the Reject is final"
    ),
    StreamRefusal(
        "OVERLOADED",
        "RESOURCE_EXHAUSTED",
        "yes",
        "answers were not read for a whole lease",
        "read the stream, dial again",
    ),
    StreamRefusal("NOT_OWNER", "UNAVAILABLE", "yes", "another broker has the group", "dial again"),
    StreamRefusal("FAILED", "INTERNAL", "yes", "a mistake of the broker; its log has it", "dial again"),
)
"""Beside these, a stream is ended with a reason of `REFUSALS` when a frame or an identity is wrong."""
