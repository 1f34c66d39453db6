"""A database as it is, seen without changing it."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from service.storage.database.errors import StoreError
from service.storage.database.inspection import inspect_database
from service.storage.database.open import FILE_NAME, open_database
from service.storage.database.schema import HEAD


def set_revision(url: str | None, directory: Path, revision: str) -> None:
    engine = sa.create_engine(url or f"sqlite:///{directory / FILE_NAME}")
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    engine.dispose()


def test_schema_is_told_from_older_and_newer_ones(empty_database_url: str | None, tmp_path: Path) -> None:
    empty = inspect_database(empty_database_url, tmp_path)
    assert (empty.revision, empty.is_current, empty.is_newer) == (None, False, False)
    assert list(tmp_path.iterdir()) == []

    open_database(empty_database_url, tmp_path).close()
    current = inspect_database(empty_database_url, tmp_path)
    assert (current.revision, current.is_current, current.is_newer) == (HEAD, True, False)
    assert abs(current.clock_ahead_seconds) < 1

    for revision, is_newer in (("0001", False), ("9999", True)):
        set_revision(empty_database_url, tmp_path, revision)
        other = inspect_database(empty_database_url, tmp_path)
        assert (other.revision, other.is_current, other.is_newer) == (revision, False, is_newer)


def test_unreachable_database_is_an_error_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        inspect_database("postgresql+psycopg://anna:hidden@127.0.0.1:9/nothing", tmp_path)
    assert "hidden" not in str(caught.value)
    (tmp_path / FILE_NAME).write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match="not a database"):
        inspect_database(None, tmp_path)
