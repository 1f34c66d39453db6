"""Identifiers: well-formed, different, and in the order of their making."""

import time
import uuid

from service.core.ids import new_uuid


def test_an_id_is_a_uuid_of_version_7_of_this_moment() -> None:
    before = time.time_ns() // 1_000_000
    parsed = uuid.UUID(text := new_uuid())
    assert str(parsed) == text
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert before <= parsed.int >> 80 <= time.time_ns() // 1_000_000


def test_ids_differ() -> None:
    assert len({new_uuid() for _ in range(10_000)}) == 10_000


def test_later_ids_stand_behind_earlier_ones() -> None:
    first = new_uuid()
    time.sleep(0.003)
    assert first < new_uuid()
