from __future__ import annotations

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc.aio import AioRpcError, Metadata

from mesh_client import MeshClientError, errors
from mesh_client.errors import ERROR_OF_CODE, error_of_call, error_of_status
from tests.mesh_client.broker import status

EXIT_CODES = {
    "MalformedError": 2,
    "NotFoundError": 3,
    "DeniedError": 4,
    "UnavailableError": 5,
    "FullError": 5,
    "MeshTimeoutError": 5,
    "ConflictError": 6,
    "WrongStateError": 6,
    "JobFailedError": 1,
    "JobDeadError": 1,
    "JobCancelledError": 1,
    "InternalError": 1,
    "MeshClientError": 1,
}


def test_every_kind_has_the_exit_code_of_the_convention() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MeshClientError)]
    assert {kind.__name__: kind.exit_code for kind in kinds} == EXIT_CODES


def test_every_kind_has_a_next_step_of_its_own() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MeshClientError)]
    assert all(kind.next_step for kind in kinds)
    own = [kind.next_step for kind in kinds if kind.__base__ is MeshClientError]
    assert len(set(own)) == len(own)


@pytest.mark.parametrize(("code", "kind"), ERROR_OF_CODE.items())
def test_status_becomes_the_error_of_its_code(code: int, kind: type[MeshClientError]) -> None:
    error = error_of_status(status(code, "a fact", "SOME_REASON", resource="organizations/a"))
    assert type(error) is kind
    assert (error.text, error.reason, error.details) == ("a fact", "SOME_REASON", {"resource": "organizations/a"})


def test_status_with_field_violations_names_the_fields() -> None:
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="jobs[0].priority", description="must be <= 5")
    error = error_of_status(status(code_pb2.INVALID_ARGUMENT, "not valid", "INVALID", bad))
    assert error.text == "not valid; jobs[0].priority: must be <= 5"


def test_status_that_says_the_fields_already_does_not_repeat_them() -> None:
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="name", description="is empty")
    error = error_of_status(status(code_pb2.INVALID_ARGUMENT, "name: is empty", "INVALID", bad))
    assert error.text == "name: is empty"


def test_status_of_an_unknown_code_is_a_plain_failure() -> None:
    error = error_of_status(status_pb2.Status(code=code_pb2.UNIMPLEMENTED))
    assert type(error) is MeshClientError
    assert (error.text, error.reason) == ("FAILED", "FAILED")


def failed(code: grpc.StatusCode, details: str, *trailing: tuple[str, str | bytes]) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(*trailing), details=details)


def test_call_that_reached_nobody_says_where_and_what_to_do() -> None:
    error = error_of_call(failed(grpc.StatusCode.UNAVAILABLE, "Connection refused"), "127.0.0.1:7402")
    assert isinstance(error, errors.UnavailableError)
    assert "127.0.0.1:7402" in error.text
    assert "mesh serve --dev" in error.text


@pytest.mark.parametrize(
    "trailing",
    [
        pytest.param(b"\xff\xff", id="not a status"),
        pytest.param(status(code_pb2.NOT_FOUND, "x", "X").SerializeToString(), id="of another code"),
    ],
)
def test_call_is_believed_when_its_details_make_no_sense(trailing: bytes) -> None:
    call = failed(grpc.StatusCode.PERMISSION_DENIED, "go away", ("grpc-status-details-bin", trailing))
    error = error_of_call(call, "127.0.0.1:7402")
    assert isinstance(error, errors.DeniedError)
    assert (error.text, error.reason) == ("go away", "PERMISSION_DENIED")


def test_stream_whose_end_grpc_cannot_explain_may_be_tried_again() -> None:
    error = error_of_call(failed(grpc.StatusCode.INTERNAL, "Internal error from Core"), "127.0.0.1:7402")
    assert isinstance(error, errors.UnavailableError)
    assert error.reason == "STATUS_LOST"


def test_call_that_a_stopping_broker_cancelled_may_be_tried_again() -> None:
    error = error_of_call(failed(grpc.StatusCode.CANCELLED, ""), "127.0.0.1:7402")
    assert isinstance(error, errors.UnavailableError)
    assert error.text == "the broker at 127.0.0.1:7402 ended the call"


def test_port_that_does_not_know_the_call_is_named_as_the_one_for_agents() -> None:
    error = error_of_call(failed(grpc.StatusCode.UNIMPLEMENTED, "Method not found!"), "127.0.0.1:7401")
    assert (type(error), error.reason) == (errors.MalformedError, "UNIMPLEMENTED")
    assert "Perhaps it is the mesh port, which is for agents" in error.text
