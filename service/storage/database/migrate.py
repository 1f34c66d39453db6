"""Migrate a database to the schema of this version.

All steps run in the caller's transaction, which holds the database's lock: a process killed here leaves the database
unchanged, and of several processes that start together one migrates while the others wait.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from service.storage.database.caller_schema import daily_usage
from service.storage.database.errors import StoreError
from service.storage.database.schema import HEAD

#: All tables, those about callers included.
_METADATA = daily_usage.metadata

_VERSIONS = Path(__file__).parent / "migrations"


def current_revision(connection: sa.Connection) -> str | None:
    """Return the schema revision; `None` for an empty database or one without revision numbers."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one_or_none()
    return revision


def migrate(connection: sa.Connection) -> None:
    """Migrate the database to `HEAD` in the open transaction of `connection`.

    Raises `StoreError` for a schema of a newer version.
    """
    revision = current_revision(connection)
    if revision == HEAD:
        return
    if revision is None and connection.dialect.name == "sqlite":
        _refuse_unknown_version(connection)
        if not sa.inspect(connection).get_table_names():
            _create(connection)
            return
    _upgrade(connection, revision)


def _create(connection: sa.Connection) -> None:
    """Create the schema in an empty SQLite database without importing Alembic (12 MB)."""
    _METADATA.create_all(connection)
    version = sa.Table("alembic_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True))
    version.create(connection)
    connection.execute(version.insert().values(version_num=HEAD))
    # Versions without revision numbers check this number and refuse unknown ones.
    connection.exec_driver_sql("PRAGMA user_version = 3")


def _upgrade(connection: sa.Connection, revision: str | None) -> None:
    # Imported only when needed: Alembic takes 12 MB and 50 ms.
    from alembic.config import Config  # noqa: PLC0415
    from alembic.runtime.environment import EnvironmentContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    script = ScriptDirectory(str(_VERSIONS), version_locations=[str(_VERSIONS)])
    known = {one.revision for one in script.walk_revisions()}
    if revision is not None and revision not in known:
        raise _made_by_newer(revision)
    environment = EnvironmentContext(
        Config(),
        script,
        fn=lambda current, _context: script._upgrade_revs("head", current),  # noqa: SLF001 - as Alembic's own command
    )
    environment.configure(connection=connection, transactional_ddl=True)
    environment.run_migrations()


def _refuse_unknown_version(connection: sa.Connection) -> None:
    version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if version > 2:  # noqa: PLR2004 - the last number before revisions
        raise _made_by_newer(str(version))


def _made_by_newer(revision: str) -> StoreError:
    return StoreError(
        f"its schema has version {revision}, but this program supports versions up to {HEAD}. Run a newer version, or "
        "use another state directory."
    )
