from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2

from broker import errors
from broker.dispatch import reasons
from broker.dispatch.messages import RequestRefused
from broker.errors import MeshError
from broker.rpc.status import InvalidMessageError, Violation, error_of, status_of
from tests.broker.running import Refusal


@pytest.mark.parametrize(
    ("error", "code", "kinds"),
    [
        (errors.MalformedError("m", field="f"), "INVALID_ARGUMENT", {"ErrorInfo", "BadRequest"}),
        (errors.NotFoundError("m", resource="r"), "NOT_FOUND", {"ErrorInfo", "ResourceInfo"}),
        (errors.ConflictError("m", resource="r"), "ALREADY_EXISTS", {"ErrorInfo", "ResourceInfo"}),
        (errors.WrongStateError("m", resource="r"), "FAILED_PRECONDITION", {"ErrorInfo", "ResourceInfo"}),
        (errors.ChangedError("m", resource="r"), "ABORTED", {"ErrorInfo", "ResourceInfo"}),
        (errors.FullError("m"), "RESOURCE_EXHAUSTED", {"ErrorInfo", "QuotaFailure", "RetryInfo"}),
        (errors.DeniedError("m"), "PERMISSION_DENIED", {"ErrorInfo"}),
        (errors.DeniedError("m", reason="UNAUTHENTICATED"), "UNAUTHENTICATED", {"ErrorInfo"}),
        (errors.AgentError("m"), "INVALID_ARGUMENT", {"ErrorInfo"}),
        (errors.NotOwnerError("m"), "UNAVAILABLE", {"ErrorInfo", "RetryInfo"}),
        (errors.StoppingError("m"), "UNAVAILABLE", {"ErrorInfo", "RetryInfo"}),
        (errors.StoreBusyError("m"), "UNAVAILABLE", {"ErrorInfo", "RetryInfo"}),
        (errors.StoreFailedError("m"), "UNAVAILABLE", {"ErrorInfo", "RetryInfo"}),
    ],
)
def test_status_has_the_code_and_details_of_its_family(error: MeshError, code: str, kinds: set[str]) -> None:
    refusal = Refusal(status_of(error))
    assert (refusal.code, refusal.text) == (grpc.StatusCode[code].value[0], "m")
    assert (refusal.reason, refusal.kinds) == (error.reason, kinds)
    assert refusal.detail(error_details_pb2.ErrorInfo).domain == "mesh"


@pytest.mark.parametrize("letter", ["x", "ä", "組"])
def test_status_fits_into_trailers_whatever_callers_sent(letter: str) -> None:
    long = letter * 100_000
    violations = [Violation(long, long)] * 1_000
    for error in (
        errors.MalformedError(long, field=long),
        errors.NotFoundError(long, resource=long),
        errors.FullError(long, subject=long),
        InvalidMessageError(long, reason="INVALID_MESSAGE", violations=violations, message=None),
    ):
        status = status_of(error)
        assert status.ByteSize() < 4_096
        assert status.message.startswith(letter * 300)
        assert status.message.endswith(" ...")
        assert Refusal(status).reason == error.reason


def test_status_of_every_error_that_a_caller_may_see_has_a_code() -> None:
    def families(root: type[MeshError]) -> set[type[MeshError]]:
        return {root}.union(*map(families, root.__subclasses__()))

    inside = {MeshError, errors.RequestError, errors.ConfigError}
    seen = {kind for kind in families(MeshError) if kind.__module__ == "broker.errors"} - inside
    codes = {kind: status_of(kind("m")).code for kind in seen}
    assert grpc.StatusCode.INTERNAL.value[0] not in codes.values()


def test_status_of_our_own_mistake_says_nothing_of_it() -> None:
    refusal = Refusal(status_of(errors.ConfigError("listen = secret")))
    assert refusal.code == grpc.StatusCode.INTERNAL.value[0]
    assert "secret" not in refusal.text


def test_every_refusal_of_a_dispatcher_has_a_family() -> None:
    refusals = [value for name, value in vars(reasons).items() if name.isupper() and value.isupper()]
    assert len(refusals) >= 7
    for reason in refusals:
        error = error_of(RequestRefused(1, reason, "why"))
        assert (error.reason, error.text) == (reason, "why")
