"""The way from any older file to the schema of this release: one line of steps, for SQLite and PostgreSQL alike.

`upgrade` runs inside the transaction of the connection that it is given, so a step that fails leaves the file as it
was. A step is written by hand into `versions/`; a test holds the result against `broker.store.schema`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, inspect, text

if TYPE_CHECKING:
    from alembic.config import Config

HEAD: Final = "0001"
"""The revision that this release writes and reads; known here so that an ordinary start needs no alembic, which is slow
to import. A test holds it against the steps."""
FOLDER: Final = Path(__file__).parent


def current(connection: Connection) -> str | None:
    """The revision of this database; None if it has never had a schema of ours."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return revision


def is_known(revision: str) -> bool:
    """Whether there is a way from this revision to the head; a newer release's has none."""
    from alembic.script import ScriptDirectory

    return any(step.revision == revision for step in ScriptDirectory.from_config(_config()).walk_revisions())


def upgrade(connection: Connection) -> None:
    """Take the database to the head, inside the transaction of `connection`, which the caller commits."""
    from alembic import command

    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    # A percent sign in the path of an installation is not an interpolation.
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
