from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, create_mock_engine, text
from sqlalchemy.schema import CreateIndex, CreateTable

from broker.dispatch.rows import JobRow
from broker.store import file, migrations, schema
from broker.store.connection import StoreConnection


@pytest.fixture
def migrated(tmp_path: Path) -> Iterator[Connection]:
    """A database that the migrations made, as a broker's first start does."""
    path = tmp_path / "mesh.db"
    file.create(path)
    connection = StoreConnection(path, is_writer=False)
    with connection.begin() as transaction:
        yield transaction
    connection.close()


def _definitions(connection: Connection) -> dict[str, str]:
    rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    # Space and the order of constraints are the writer's; each line is one column or constraint.
    return {name: "\n".join(sorted(line.strip(" ,\t") for line in sql.splitlines())) for name, sql in rows}


def test_migrations_make_the_schema(migrated: Connection) -> None:
    assert compare_metadata(MigrationContext.configure(migrated), schema.metadata) == []


def test_migrations_make_the_schema_word_for_word(migrated: Connection) -> None:
    # The comparison above does not see conditions of indexes, nor AUTOINCREMENT.
    with create_engine("sqlite://").begin() as fresh:
        schema.metadata.create_all(fresh)
        expected = _definitions(fresh)
    made = _definitions(migrated)
    del made["alembic_version"]

    assert made == expected
    assert "job_live" in made


def test_migrations_are_one_line_that_ends_at_the_head(migrated: Connection) -> None:
    assert migrations.current(migrated) == migrations.HEAD
    assert migrations.is_known(migrations.HEAD)
    assert not migrations.is_known("9999")


def test_job_has_the_columns_of_its_row_first() -> None:
    assert tuple(schema.job.c.keys())[: len(JobRow._fields)] == JobRow._fields


def test_schema_is_one_for_postgresql_too() -> None:
    dialect = create_mock_engine("postgresql://", lambda *_: None).dialect
    job = str(CreateTable(schema.job).compile(dialect=dialect))
    indexes = {str(index.name): str(CreateIndex(index).compile(dialect=dialect)) for index in schema.job.indexes}

    assert "job_key BIGINT NOT NULL" in job
    assert indexes["job_live"].endswith(f"WHERE {schema.IS_LIVE}")
