from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.store import file, schema, statements
from broker.store.connection import StoreConnection


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[StoreConnection]:
    """An empty store's connection."""
    path = tmp_path / "mesh.db"
    file.create(path)
    made = StoreConnection(path, is_writer=True)
    yield made
    made.close()


FINDERS = {
    "jobs_by_id": (statements.jobs_by_id(8), "job_id_in_group"),
    "live_keys": (statements.live_keys(8), "sqlite_autoindex_submission_key_1"),
    "jobs_by_key": (statements.jobs_by_key(8), "INTEGER PRIMARY KEY"),
    "bodies": (statements.bodies(8), "INTEGER PRIMARY KEY"),
    "blobs": (statements.blobs(8), "sqlite_autoindex_blob_1"),
    "LIVE_JOBS": (statements.LIVE_JOBS, "job_live"),
    "FIRST_ACCEPTED": (statements.FIRST_ACCEPTED, "INTEGER PRIMARY KEY"),
    "JOBS_WITH_ID": (statements.JOBS_WITH_ID, "job_id_in_group"),
    "WHOLE_JOB": (statements.WHOLE_JOB, "INTEGER PRIMARY KEY"),
    "BLOBS_OF": (statements.BLOBS_OF, "sqlite_autoindex_blob_1"),
    "ATTEMPTS_OF": (statements.ATTEMPTS_OF, "sqlite_autoindex_attempt_1"),
    "TRANSITIONS_OF": (statements.TRANSITIONS_OF, "transition_job"),
    "REPEAT_OF": (statements.REPEAT_OF, "job_repeat"),
    "PAST_JOBS": (statements.PAST_JOBS, "job_finished"),
    "PAST_KEYS": (statements.PAST_KEYS, "submission_key_expiry"),
    "DELETE_JOB": (statements.DELETE_JOB, "INTEGER PRIMARY KEY"),
    "DELETE_BLOB": (statements.DELETE_BESIDE[0], "sqlite_autoindex_blob_1"),
    "DELETE_ATTEMPT": (statements.DELETE_BESIDE[1], "sqlite_autoindex_attempt_1"),
    "DELETE_TRANSITION": (statements.DELETE_BESIDE[2], "transition_job"),
    "UPDATE_JOB": (statements.UPDATE_JOB, "INTEGER PRIMARY KEY"),
    "FINISH_JOB": (statements.FINISH_JOB, "INTEGER PRIMARY KEY"),
    "update_rows": (statements.update_rows(schema.job, ("state", "job_key"), {"code": ""}, 16), "INTEGER PRIMARY KEY"),
}


@pytest.mark.parametrize(("statement", "index"), FINDERS.values(), ids=FINDERS)
def test_statement_finds_its_rows_by_index(connection: StoreConnection, statement: str, index: str) -> None:
    marks = (None,) * statement.count("?")

    plan = [row[3] for row in connection.driver.execute(f"EXPLAIN QUERY PLAN {statement}", marks)]

    assert any(index in step for step in plan), plan
    assert not any(step.startswith(("SCAN job", "SCAN submission_key", "SCAN blob")) for step in plan), plan
    assert not any("TEMP B-TREE" in step for step in plan), plan


def test_key_is_taken_only_when_the_former_one_has_expired(connection: StoreConnection) -> None:
    statement = statements.PUT_KEY

    connection.driver.execute(statement, (1, "key", 2, b"digest", 10, 0))
    taken = connection.driver.execute(statement, (1, "key", 3, b"digest", 20, 9)).rowcount
    given = connection.driver.execute(statement, (1, "key", 4, b"digest", 20, 10)).rowcount

    assert (taken, given) == (0, 1)
