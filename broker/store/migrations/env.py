"""What alembic runs around the steps: on the connection that `broker.store.migrations.upgrade` hands over."""

from alembic import context
from sqlalchemy import Connection

from broker.store import schema


def _run(connection: Connection) -> None:
    # SQLite does undo a change of schema with its transaction, which alembic does not expect of it.
    context.configure(connection=connection, target_metadata=schema.metadata, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


_run(context.config.attributes["connection"])
