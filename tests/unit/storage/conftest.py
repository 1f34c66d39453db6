"""Two gateways that share a database, as their transcripts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from support.transcripts import Transcripts

from service.storage.database.database import Database
from service.storage.database.open import open_database


@pytest.fixture
def ann(database: Database) -> Iterator[Transcripts]:
    """A gateway."""
    with closing(Transcripts(database, new_id=map("ann {}".format, count()).__next__)) as opened:
        yield opened


@pytest.fixture
def ben(ann: Transcripts, database_url: str | None, tmp_path: Path) -> Iterator[Transcripts]:
    """Another gateway that shares its database."""
    del ann
    opened = Transcripts(open_database(database_url, tmp_path), new_id=map("ben {}".format, count()).__next__)
    with closing(opened):
        yield opened
