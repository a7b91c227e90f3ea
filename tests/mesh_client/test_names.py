from __future__ import annotations

from uuid import UUID

import pytest

from mesh_client import MalformedError
from mesh_client.names import agent_name, id_bytes, id_text, job_name, new_id, part_after, quoted


def test_id_has_the_same_text_as_a_uuid() -> None:
    made = new_id()
    assert id_text(made) == str(UUID(bytes=made))
    assert id_bytes(id_text(made)) == id_bytes(made) == made


def test_job_name_has_the_usual_text_whatever_form_the_id_had() -> None:
    made = new_id()
    names = {job_name("acme", form) for form in (made, made.hex(), id_text(made).upper())}
    assert names == {f"organizations/acme/jobs/{id_text(made)}"}


@pytest.mark.parametrize("wrong", ["", "x", b"", bytes(15)])
def test_what_is_no_id_is_refused(wrong: str | bytes) -> None:
    with pytest.raises(MalformedError, match="not a job id") as caught:
        id_bytes(wrong)
    assert caught.value.reason == "JOB_ID"


def test_part_is_found_by_its_collection_and_not_by_an_id_of_that_name() -> None:
    name = agent_name("groups", "jobs", "agents")
    assert [part_after(name, collection) for collection in ("organizations", "groups", "agents", "jobs")] == [
        "groups",
        "jobs",
        "agents",
        "",
    ]


def test_quoted_value_cannot_leave_its_quotes() -> None:
    assert quoted('a" OR b\\') == r'"a\" OR b\\"'
