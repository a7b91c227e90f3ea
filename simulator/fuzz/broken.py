"""What a run has found: a promise or an invariant that does not hold."""

from typing import Final

LIVENESS: Final = "liveness"
"""After the faults everything must come to its end."""
CRASH: Final = "crash"
"""An exception that nobody foresaw, in the code under test."""


class BrokenPromiseError(AssertionError):
    """`promise` is `inv01` to `inv15`, `P1` to `P7`, LIVENESS or CRASH.

    The invariants are those of `broker.dispatch.invariants`, the promises those of docs/concepts.md; of these P8 is
    judged as `inv15` and P9 as `inv14`.
    """

    def __init__(self, promise: str, text: str) -> None:
        super().__init__(f"[{promise}] {text}")
        self.promise = promise
        self.text = text


def expect(holds: object, promise: str, text: str) -> None:
    """Raises BrokenPromiseError unless it holds."""
    if not holds:
        raise BrokenPromiseError(promise, text)
