"""The latest result of a function."""

from __future__ import annotations

from service.core.latest import Latest


def test_result_is_kept_for_same_objects_only() -> None:
    calls: list[tuple[object, ...]] = []

    def join(*parts: list[int]) -> list[int]:
        calls.append(parts)
        return [number for part in parts for number in part]

    latest, one, two = Latest(join), [1], [2]
    assert latest(one, two) == [1, 2]
    assert latest(one, two) is latest(one, two)
    assert len(calls) == 1
    for changed in ((two, one), ([1], [2]), (one, two)):
        assert latest(*changed) == join(*changed)
    assert len(calls) == 1 + 2 * 3
