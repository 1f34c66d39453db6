"""The symbolic links that lead to a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.core.symlinks import find_links, is_inside


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path.resolve()


def test_links_of_a_path_and_of_their_targets_are_found_in_order(root: Path) -> None:
    (root / "real" / "deep").mkdir(parents=True)
    (root / "real" / "deep" / "file").write_text("x")
    (root / "first").symlink_to("second")
    (root / "second").symlink_to(root / "real")
    (root / "real" / "up").symlink_to("../real/deep")
    assert list(find_links(root / "first" / "up" / "file")) == [root / "first", root / "second", root / "real" / "up"]
    assert list(find_links(root / "real" / "deep" / "file")) == []


def test_missing_paths_and_loops_end(root: Path) -> None:
    assert list(find_links(root / "nothing" / "file")) == []
    (root / "loop").symlink_to("loop")
    assert set(find_links(root / "loop")) == {root / "loop"}


def test_path_is_inside_a_directory_however_that_is_named(root: Path) -> None:
    (root / "real").mkdir()
    (root / "alias").symlink_to("real")
    assert is_inside(root / "real" / "x", root / "alias")
    assert not is_inside(root / "realm", root / "alias")
