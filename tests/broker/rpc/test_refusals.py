"""The table of refusals against the page that shows it and the code that uses its reasons."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import grpc

from broker import errors
from broker.dispatch import reasons
from broker.dispatch.liveness import REJECTED_RETRY_LEASES
from broker.dispatch.messages import RequestRefused
from broker.dispatch.model import SECOND_US, DispatchPolicy
from broker.errors import MeshError
from broker.rpc import status
from broker.rpc.refusals import REFUSALS, REJECT, STREAM_REFUSALS
from broker.rpc.sessions import END_CODES
from protos.mesh.v1 import agent_service_pb2 as agent_pb

ROOT = Path(__file__).parents[3]
AT_START = {"CONFIG", "NOT_BUILT", "CLOCK_BEHIND", "PORT_TAKEN", "STORE_LOCKED"}
"""What ends a broker before anybody can call it."""
FAMILIES = {errors.RequestError, errors.WrongStateError, errors.FullError, errors.DeniedError, errors.StoreError}
"""Errors that are never raised without a reason of their own."""


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call in the source of the broker, with the place where it is."""
    for path in sorted((ROOT / "broker").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def reason_of(call: ast.Call) -> ast.expr | None:
    return next((keyword.value for keyword in call.keywords if keyword.arg == "reason"), None)


def kinds_of(root: type[MeshError]) -> set[type[MeshError]]:
    return {root}.union(*map(kinds_of, root.__subclasses__()))


def test_page_of_refusals_has_the_rows_of_the_table() -> None:
    rows = [f"| `{row.reason}` | {row.code} | {row.when} | {row.advice} |" for row in REFUSALS]
    page = (ROOT / "docs" / "errors.md").read_text().splitlines()
    table = page[: page.index("## Sessions of agents")]
    assert [line for line in table if line.startswith("| `")] == rows


def test_pages_have_the_rows_of_the_table_of_streams() -> None:
    errors = (ROOT / "docs" / "errors.md").read_text()
    protocol = (ROOT / "docs" / "protocol.md").read_text()
    for row in STREAM_REFUSALS:
        assert f"| `{row.code}` | {row.comes_as} | {row.retry} | {row.when} | {row.advice} |" in errors
        if row.comes_as == REJECT:
            assert f"| `{row.code}` | {row.retry} | {row.when} | {row.advice} |" in protocol
        else:
            assert f"| `{row.comes_as}`" in protocol
            assert f"`{row.code}`" in protocol.partition("### Statuses")[2].partition("## Leaving")[0]


def test_table_of_streams_has_every_way_in_which_a_session_is_refused_or_ended() -> None:
    ended = {(text.partition(":")[0], code.name) for code, text in END_CODES.values()}
    assert {(row.code, row.comes_as) for row in STREAM_REFUSALS if row.comes_as != REJECT} == ended
    said = set()
    for _, call in calls():
        if isinstance(call.func, ast.Name) and call.func.id in ("_reject", "RejectAgent"):
            code = call.args[call.func.id == "RejectAgent"]
            if isinstance(code, ast.Constant):
                said.add(code.value)
    rejects = {row.code: row for row in STREAM_REFUSALS if row.comes_as == REJECT}
    assert set(rejects) == said
    assert {f"REJECT_CODE_{code}" for code in rejects} <= set(agent_pb.RejectCode.keys())
    for row in rejects.values():
        assert not row.retry_after_s or row.retry == f"after {row.retry_after_s} s"
    leases = REJECTED_RETRY_LEASES * DispatchPolicy().lease_us // SECOND_US
    assert rejects["AGENT_DISABLED"].retry == f"after {REJECTED_RETRY_LEASES} leases ({leases} s)"


def test_table_has_each_reason_once_with_a_code_of_grpc() -> None:
    found = [row.reason for row in REFUSALS]
    assert len(set(found)) == len(found)
    assert {row.code for row in REFUSALS} <= set(grpc.StatusCode.__members__)


def test_table_has_every_reason_that_the_code_gives() -> None:
    given = {value for name, value in vars(reasons).items() if name.isupper() and str(value).isupper()}
    given |= {kind.reason for kind in kinds_of(MeshError) - FAMILIES if kind.__module__ == "broker.errors"}
    for _, call in calls():
        reason = reason_of(call)
        if isinstance(reason, ast.Constant) and str(reason.value).isupper():
            given.add(reason.value)
    known = {row.reason for row in REFUSALS}
    assert given - AT_START - known == set()
    # Names of constants, which the search does not see, are the difference the other way round.
    assert known - given == {status.UNAUTHENTICATED, "MALFORMED_MESSAGE", "INVALID_MESSAGE"} - given


def test_families_of_errors_are_raised_with_a_reason_only() -> None:
    names = {kind.__name__ for kind in FAMILIES}
    bare = [
        place
        for place, call in calls()
        if isinstance(call.func, ast.Name) and call.func.id in names and reason_of(call) is None
    ]
    assert bare == []


def test_reasons_of_a_dispatcher_have_the_codes_of_the_table() -> None:
    codes = {row.reason: grpc.StatusCode[row.code].value[0] for row in REFUSALS}
    refusals = [value for name, value in vars(reasons).items() if name.isupper() and str(value).isupper()]
    assert len(refusals) >= 10
    for reason in refusals:
        refused = RequestRefused(1, reason, "why")
        assert status.status_of(status.error_of(refused)).code == codes[reason], reason
