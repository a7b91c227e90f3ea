"""The way from any older file to the schema of this release: one line of steps, for SQLite and PostgreSQL alike.

`upgrade` runs inside the transaction of the connection that it is given, so a step that fails leaves the file as it
was. A step is written by hand into `versions/`; a test holds the result against `broker.store.schema`.
"""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

FOLDER: Final = Path(__file__).parent


def head() -> str:
    """The revision that this release writes and reads."""
    revision = _script().get_current_head()
    assert revision is not None
    return revision


def current(connection: Connection) -> str | None:
    """The revision of this database; None if it has never had a schema of ours."""
    return MigrationContext.configure(connection).get_current_revision()


def is_known(revision: str) -> bool:
    """Whether there is a way from this revision to the head; a newer release's has none."""
    return any(step.revision == revision for step in _script().walk_revisions())


def upgrade(connection: Connection) -> None:
    """Take the database to the head, inside the transaction of `connection`, which the caller commits."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _script() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _config() -> Config:
    config = Config()
    # A percent sign in the path of an installation is not an interpolation.
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
