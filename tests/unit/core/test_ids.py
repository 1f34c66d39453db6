"""Identifiers: well-formed, unique and ordered by time."""

import time
import uuid

from service.core.ids import new_uuid, uuid_of


def test_uuid_is_version_7_of_the_current_millisecond() -> None:
    before = time.time_ns() // 1_000_000
    parsed = uuid.UUID(text := new_uuid())
    assert str(parsed) == text
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert before <= parsed.int >> 80 <= time.time_ns() // 1_000_000


def test_uuids_are_unique() -> None:
    assert len({new_uuid() for _ in range(10_000)}) == 10_000


def test_uuids_sort_by_creation_time() -> None:
    first = new_uuid()
    time.sleep(0.003)
    assert first < new_uuid()


def test_uuid_of_a_name_is_the_same_each_time() -> None:
    parsed = uuid.UUID(uuid_of(1_700_000_000_000, "run session"))
    assert str(parsed) == uuid_of(1_700_000_000_000, "run session") != uuid_of(1_700_000_000_000, "other session")
    assert (parsed.version, parsed.variant, parsed.int >> 80) == (7, uuid.RFC_4122, 1_700_000_000_000)
