"""What can go wrong, by whose fault it is.

    MeshError
    +-- RequestError       the caller: what was asked cannot be done, and why
    |   +-- MalformedError     not well formed, or beyond a limit
    |   +-- NotFoundError      names something that does not exist
    |   +-- ConflictError      the same key with other content, or a name that is taken
    |   +-- WrongStateError    exists, but not in a state that allows it
    |   +-- ChangedError       was changed since the caller read it
    |   +-- FullError          a bound is reached; try again later
    |   `-- DeniedError        not allowed, or not known who asks
    +-- AgentError         an agent broke the rules of the stream
    +-- NotOwnerError      this broker does not own the group
    +-- StoppingError      this broker is on its way out
    +-- StoreError         the store refused, failed or is away
    |   +-- StoreBusyError     rolled back for certain; the same batch may be tried again
    |   +-- StoreFailedError   fail-stop: what is on disk is not known
    |   `-- StoreLockedError   another broker uses the same file
    `-- ConfigError        settings that cannot work

The text of an error is a fact, what it is about, and what to do. Only `broker.rpc.status` knows gRPC codes.
"""


class MeshError(Exception):
    """Root of all errors that the mesh raises on purpose.

    `reason` is the machine name (UPPER_SNAKE_CASE) that goes into ErrorInfo; `details` are facts for programs.
    """

    reason = "INTERNAL"

    def __init__(self, text: str, *, reason: str | None = None, **details: str) -> None:
        super().__init__(text)
        self.text = text
        if reason is not None:
            self.reason = reason
        self.details = details


class RequestError(MeshError):
    """The request cannot be served; nothing was changed."""

    reason = "BAD_REQUEST"


class MalformedError(RequestError):
    """The request is not well formed or passes a limit; `fields` in `details` name what is wrong."""

    reason = "MALFORMED"


class NotFoundError(RequestError):
    """The request names something that does not exist."""

    reason = "NOT_FOUND"


class ConflictError(RequestError):
    """The name or key is taken by something else."""

    reason = "ALREADY_EXISTS"


class WrongStateError(RequestError):
    """What is named exists, but its state does not allow this."""

    reason = "WRONG_STATE"


class ChangedError(RequestError):
    """What is named was changed since the caller read it; read it again and decide anew."""

    reason = "CHANGED"


class FullError(RequestError):
    """A bound is reached; `retry_after_s` says when to try again."""

    reason = "FULL"

    def __init__(self, text: str, *, reason: str | None = None, retry_after_s: float = 1.0, **details: str) -> None:
        super().__init__(text, reason=reason, **details)
        self.retry_after_s = retry_after_s


class DeniedError(RequestError):
    """Who asks is not known, or may not do this."""

    reason = "DENIED"


class AgentError(MeshError):
    """An agent broke the rules of the stream; its stream is ended."""

    reason = "AGENT_PROTOCOL"


class NotOwnerError(MeshError):
    """This broker does not own the group; ask again, or ask the owner."""

    reason = "NOT_OWNER"


class StoppingError(MeshError):
    """This broker is stopping; ask again, it or another one will be there."""

    reason = "BROKER_STOPPING"


class StoreError(MeshError):
    """The store refused or failed."""

    reason = "STORE"


class StoreBusyError(StoreError):
    """The transaction was rolled back for certain; the same batch may be tried again."""

    reason = "STORE_BUSY"


class StoreFailedError(StoreError):
    """Fail-stop: whether the last transaction is on disk is not known; start again from the file."""

    reason = "STORE_FAILED"


class StoreLockedError(StoreError):
    """Another broker holds the lock of this store."""

    reason = "STORE_LOCKED"


class ConfigError(MeshError):
    """The settings cannot work; the text names the key, its value and what would."""

    reason = "CONFIG"
