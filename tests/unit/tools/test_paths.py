"""Attacks on the workspace's boundary with paths, links, races and special files."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import pytest
from support.processes import started
from support.workspace_tools import SECRET, make_workspace, refusal, use

from service.tools.tool import ToolError
from service.tools.workspace.hidden_files import HiddenFiles
from service.tools.workspace.paths import MAX_DEPTH, MAX_LINKS, open_regular_file

#: -100 is AT_FDCWD, 2 is RENAME_EXCHANGE.
_EXCHANGE_FOR_EVER = """
import ctypes, os, sys
one, other = map(os.fsencode, sys.argv[1:])
exchange = ctypes.CDLL(None).renameat2
assert exchange(-100, one, -100, other, 2) == 0
print("begun", flush=True)
while True:
    exchange(-100, one, -100, other, 2)
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return make_workspace(tmp_path)


@pytest.fixture
def outside(workspace: Path) -> Path:
    return workspace.parent / "outside"


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


Setup = Callable[[Path, Path], str]


def absolute(_workspace: Path, outside: Path) -> str:
    return str(outside / "secret.txt")


def upwards(_workspace: Path, _outside: Path) -> str:
    return "../outside/secret.txt"


def down_and_up(workspace: Path, _outside: Path) -> str:
    (workspace / "a").mkdir()
    return "a/../../outside/secret.txt"


def up_from_an_absolute_path(workspace: Path, _outside: Path) -> str:
    return f"{workspace}/../outside/secret.txt"


def sibling_with_the_same_beginning(workspace: Path, outside: Path) -> str:
    sibling = workspace.with_name(workspace.name + "-2")
    sibling.symlink_to(outside)
    return str(sibling / "secret.txt")


def link_to_a_file(workspace: Path, outside: Path) -> str:
    (workspace / "link").symlink_to(outside / "secret.txt")
    return "link"


def link_to_a_directory(workspace: Path, outside: Path) -> str:
    (workspace / "link").symlink_to(outside)
    return "link/secret.txt"


def relative_link(workspace: Path, _outside: Path) -> str:
    (workspace / "a").mkdir()
    (workspace / "a" / "link").symlink_to("../../outside/secret.txt")
    return "a/link"


def link_of_links(workspace: Path, outside: Path) -> str:
    (workspace / "first").symlink_to("second")
    (workspace / "second").symlink_to(outside)
    return "first/secret.txt"


def link_upwards_of_a_directory_reached_by_a_link(workspace: Path, _outside: Path) -> str:
    (workspace / "a" / "b").mkdir(parents=True)
    (workspace / "jump").symlink_to("a/b")
    return "jump/../../../outside/secret.txt"


def process_root(_workspace: Path, outside: Path) -> str:
    return f"/proc/self/root{outside}/secret.txt"


def link_to_a_process_root(workspace: Path, outside: Path) -> str:
    (workspace / "link").symlink_to("/proc/self/root")
    return f"link{outside}/secret.txt"


ESCAPES = [
    absolute,
    upwards,
    down_and_up,
    up_from_an_absolute_path,
    sibling_with_the_same_beginning,
    link_to_a_file,
    link_to_a_directory,
    relative_link,
    link_of_links,
    link_upwards_of_a_directory_reached_by_a_link,
    process_root,
    link_to_a_process_root,
]


@pytest.mark.parametrize("escape", ESCAPES, ids=lambda escape: escape.__name__)
def test_no_path_leads_outside(workspace: Path, outside: Path, escape: Setup) -> None:
    path = escape(workspace, outside)
    for name, arguments in (
        ("read", {}),
        ("write", {"content": "broken"}),
        ("edit", {"old_text": "secret", "new_text": "broken"}),
        ("ls", {}),
    ):
        assert "outside the workspace" in refusal(workspace, name, path=path, **arguments), name
    assert (outside / "secret.txt").read_text() == SECRET
    assert [path.name for path in outside.iterdir()] == ["secret.txt"]


def test_links_that_stay_inside_are_followed(workspace: Path) -> None:
    (workspace / "a" / "b").mkdir(parents=True)
    (workspace / "a" / "b" / "c.txt").write_text("inside")
    (workspace / "relative").symlink_to("a/b")
    (workspace / "absolute").symlink_to(workspace / "a" / "b" / "c.txt")
    (workspace / "a" / "up").symlink_to("../relative/../b/c.txt")
    for path in ("relative/c.txt", "absolute", "a/up", "relative/../b/c.txt", "./a//b/../../absolute/"):
        assert use(workspace, "read", path=path) == "     1\tinside"
    use(workspace, "write", path="absolute", content="changed")
    assert (workspace / "absolute").is_symlink()
    assert (workspace / "a" / "b" / "c.txt").read_text() == "changed"


def test_links_in_circle_come_to_end(workspace: Path) -> None:
    (workspace / "a").symlink_to("b")
    (workspace / "b").symlink_to("a")
    assert f"more than {MAX_LINKS} symbolic links" in refusal(workspace, "read", path="a")


def test_further_names_of_workspace_are_understood(workspace: Path) -> None:
    (workspace / "a.txt").write_text("x")
    other = workspace.with_name("other")
    other.symlink_to(workspace)
    for path in ("a.txt", f"{other}/a.txt", f"{workspace}/a.txt"):
        assert use(workspace, "read", path=path) == "     1\tx"


def test_workspace_that_is_link_is_not_followed(workspace: Path, outside: Path) -> None:
    workspace.rmdir()
    workspace.symlink_to(outside)
    assert "in its path is a symbolic link" in refusal(workspace, "read", path="secret.txt")


@pytest.mark.parametrize("path", ["nul\0byte", "x" * 300, "a/" * 3_000 + "b", "missing/file"])
def test_paths_that_cannot_be_are_explained(workspace: Path, path: str) -> None:
    assert refusal(workspace, "read", path=path)


def test_tree_that_is_too_deep_is_refused(workspace: Path) -> None:
    before = open_files()
    assert f"more than {MAX_DEPTH} directories" in refusal(workspace, "write", path="d/" * 500 + "f", content="x")
    assert open_files() == before


@pytest.mark.parametrize("name", ["read", "write", "edit"])
def test_fifos_and_devices_are_refused_at_once(workspace: Path, name: str) -> None:
    arguments = {"content": "x", "old_text": "a", "new_text": "b"}
    os.mkfifo(workspace / "fifo")
    assert refusal(workspace, name, path="fifo", **arguments) == '"fifo" is a FIFO, not a file.'
    with suppress(PermissionError):
        os.mknod(workspace / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        assert refusal(workspace, name, path="zero", **arguments) == '"zero" is a device, not a file.'


def test_huge_file_is_read_in_part(workspace: Path) -> None:
    with (workspace / "one-line").open("wb") as file:
        file.write(b"start" * 4_000)
        file.truncate(256 * 1024 * 1024)  # a hole: nothing is stored
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast line\n")
    assert use(workspace, "read", path="one-line", offset=2) == "     2\tlast line"


def test_huge_line_is_cut(workspace: Path) -> None:
    (workspace / "a").write_bytes(b"x" * 3_000_000 + b"\nnext\n")
    first, second = use(workspace, "read", path="a").splitlines()
    assert first == "     1\t" + "x" * 2_000 + " [line truncated]"
    assert second == "     2\tnext"


@contextmanager
def repeating(action: Callable[[], None]) -> Iterator[None]:
    """Do `action` over and over in another thread."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            action()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def attempts(enough: Callable[[], object]) -> Iterator[int]:
    """Count to 1,500, and on until there is `enough`, but not for ever."""
    give_up_at = time.monotonic() + 120
    for number in count():
        if (number >= 1_500 and enough()) or time.monotonic() > give_up_at:
            return
        yield number


@contextmanager
def changing_places(one: Path, other: Path) -> Iterator[None]:
    """Let two files change places over and over, in a process of its own: each name always stands for one of them."""
    command = [sys.executable, "-I", "-S", "-c", _EXCHANGE_FOR_EVER, str(one), str(other)]
    with started(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        try:
            yield
        finally:
            process.kill()


def test_directory_that_turns_into_link_and_back_never_leads_outside(workspace: Path, outside: Path) -> None:
    (workspace / "dir").mkdir()
    (workspace / "dir" / "secret.txt").write_text("inside")
    (workspace / "evil").symlink_to(outside)
    outcomes: dict[str, int] = {}
    with changing_places(workspace / "dir", workspace / "evil"):
        for number in attempts(lambda: len(outcomes) > 1):
            try:
                told = use(workspace, "read", path="dir/secret.txt")
            except ToolError as error:
                told = str(error)
            outcomes[told] = outcomes.get(told, 0) + 1
            with suppress(ToolError):
                use(workspace, "write", path="dir/new.txt", content=str(number))
            with suppress(ToolError):
                use(workspace, "edit", path="dir/secret.txt", old_text="secret", new_text="broken")
    assert outcomes.pop("     1\tinside") > 0
    assert any("outside the workspace" in told for told in outcomes), "the attack never took place"
    assert not any(SECRET in told for told in outcomes)
    assert [path.name for path in outside.iterdir()] == ["secret.txt"]
    assert (outside / "secret.txt").read_text() == SECRET


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_file_that_turns_into_something_else_and_back_is_never_followed(
    workspace: Path, outside: Path, kind: str
) -> None:
    (workspace / "file").write_text("inside")
    if kind == "link":
        (workspace / "evil").symlink_to(outside / "secret.txt")
    else:
        os.mkfifo(workspace / "evil")
    outcomes: set[str] = set()
    with changing_places(workspace / "file", workspace / "evil"):
        for _ in attempts(lambda: len(outcomes) > 1):
            try:
                outcomes.add(use(workspace, "read", path="file"))
            except ToolError as error:
                outcomes.add(str(error))
    assert "     1\tinside" in outcomes
    assert len(outcomes) > 1, "the attack never took place"
    assert not any(SECRET in told for told in outcomes)


def test_file_is_not_followed_even_in_moment_it_is_opened(workspace: Path, outside: Path) -> None:
    (workspace / "file").write_text("inside")
    (workspace / "evil").symlink_to(outside / "secret.txt")
    directory = os.open(workspace, os.O_RDONLY)
    contents = set()
    try:
        with changing_places(workspace / "file", workspace / "evil"):
            for _ in range(30_000):
                with suppress(ToolError, OSError), open_regular_file("file", directory, "file", HiddenFiles()) as file:
                    contents.add(file.read())
    finally:
        os.close(directory)
    assert contents == {b"inside"}


def test_readers_see_file_whole_while_it_is_replaced(workspace: Path) -> None:
    versions = {letter * 50_000 for letter in "ab"}
    use(workspace, "write", path="a", content=min(versions))
    seen = set()

    def read() -> None:
        seen.add((workspace / "a").read_text())

    with repeating(read):
        for _ in range(100):
            for version in versions:
                use(workspace, "write", path="a", content=version)
    assert seen <= versions
