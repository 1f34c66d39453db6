"""`find` and `grep` in a real directory: results, limits and process clean-up."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.polling import until
from support.processes import command_of, running_children
from support.workspace_tools import SECRET, make_workspace, refusal, use

from service.core.concurrency import Deadline, deadline, sleep, spawn
from service.tools.process_slots import ProcessSlots
from service.tools.tool import ToolContext, ToolError
from service.tools.workspace.globs import compile_glob
from service.tools.workspace.paths import MAX_DEPTH
from service.tools.workspace.search import FindTool, GrepTool
from service.tools.workspace.search_limits import MAX_MATCHES, MAX_PATHS
from service.tools.workspace.search_process import MAX_FILE_BYTES

FIND, GREP = FindTool(ProcessSlots()), GrepTool(ProcessSlots())


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    root = make_workspace(tmp_path)
    for path, text in {
        "README.md": "# Title\nSee src.\n",
        "src/app.py": "import os\n\n\ndef main():\n    return os.name\n",
        "src/lib/tool.py": "def Main():\r\n    pass\r\n",
        "src/lib/tool.ts": "export {}\n",
        ".git/config": "def main\n",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(text.encode())
    return root


@pytest.fixture
def no_child_is_left() -> Iterator[None]:
    before = set(running_children(recursive=False))
    yield
    assert set(running_children(recursive=False)) <= before


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("*.py", ".", ["src/app.py", "src/lib/tool.py"]),
        ("*.py", "src/lib", ["src/lib/tool.py"]),
        ("src/*.py", ".", ["src/app.py"]),
        ("src/**/*.{py,ts}", ".", ["src/app.py", "src/lib/tool.py", "src/lib/tool.ts"]),
        ("l[a-i]b", ".", ["src/lib/"]),
        ("**", "src/lib", ["src/lib/tool.py", "src/lib/tool.ts"]),
        ("config", ".", ["(no path matches)"]),
        ("config", ".git", [".git/config"]),
        ("*.md", "README.md", ["README.md"]),
    ],
)
def test_find_reports_paths_from_workspace(workspace: Path, pattern: str, path: str, found: list[str]) -> None:
    assert use(workspace, FIND, pattern=pattern, path=path).splitlines() == found


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("a?c", "x/abc", True),
        ("[!a]b", "ab", False),
        ("[]]", "]", True),
        ("a,b}", "a,b}", True),
        ("{a,{b,c}}.x", "c.x", True),
        ("**/x/*", "x/a", True),
        ("**/x/*", "x/a/b", False),
        ("a*", "a\nb", True),
        ("./a/*", "a/b", True),
        ("a+(b)", "a+(b)", True),
        ("[[]id].tsx", "[id].tsx", True),
        ("..a/.b", "..a/.b", True),
        ("a\\*b", "a*b", True),
        ("a\\*b", "axb", False),
        ("[^a]b", "cb", True),
        ("x{1..3}", "x2", True),
        ("{a}", "{a}", True),
        ("x/**y", "x/a/y", False),
    ],
)
def test_globs_are_those_of_shell(pattern: str, path: str, *, matches: bool) -> None:
    assert compile_glob(pattern)(path) is matches


def test_grep_reports_lines_with_their_numbers(workspace: Path) -> None:
    assert use(workspace, GREP, pattern=r"def main\b") == "src/app.py:4: def main():"
    assert use(workspace, GREP, pattern="main", ignore_case=True, glob="*.py").splitlines() == [
        "src/app.py:4: def main():",
        "src/lib/tool.py:1: def Main():",
    ]
    assert use(workspace, GREP, pattern="^See", path="README.md") == "README.md:2: See src."
    assert use(workspace, GREP, pattern="pass$") == "src/lib/tool.py:2:     pass"
    assert use(workspace, GREP, pattern="nowhere") == "(no line matches)"


def test_grep_reports_lines_around(workspace: Path) -> None:
    assert use(workspace, GREP, pattern="os", glob="*.py", context=1).splitlines() == [
        "src/app.py:1: import os",
        "src/app.py-2- ",
        "--",
        "src/app.py-4- def main():",
        "src/app.py:5:     return os.name",
    ]


def test_invalid_search_is_refused_with_reason(workspace: Path) -> None:
    assert "not a valid regular expression" in refusal(workspace, GREP, pattern="(")
    assert "is invalid" in refusal(workspace, FIND, pattern="{a")
    assert '"gone" does not exist' in refusal(workspace, GREP, pattern="x", path="gone")


@pytest.mark.parametrize("pattern", ["../*.py", "src/../*.md", "..", ".", "./", "src//*.py", "src/"])
def test_glob_that_no_path_can_match_is_refused(workspace: Path, pattern: str) -> None:
    for told in (refusal(workspace, FIND, pattern=pattern), refusal(workspace, GREP, pattern="x", glob=pattern)):
        assert "it is relative to `path`" in told


def test_absolute_glob_is_refused(workspace: Path) -> None:
    told = refusal(workspace, FIND, pattern=f"{workspace}/src/*.py")
    assert told.startswith(f"No path can match the glob '{workspace}/src/*.py': it is relative to `path`")


def test_glob_with_too_many_alternatives_is_refused(workspace: Path) -> None:
    assert "more than 1000 alternatives" in refusal(workspace, FIND, pattern="{a,b}" * 16)
    assert "more than 1000 alternatives" in refusal(workspace, GREP, pattern="x", glob="{1..2000}")


@pytest.mark.parametrize("pattern", ["*a" * 30 + "b", "?*" * 100 + "z", "**/" * 100 + "z"])
def test_glob_of_many_wildcards_does_not_backtrack(workspace: Path, pattern: str) -> None:
    (workspace / ("a" * 200)).touch()
    assert use(workspace, FIND, pattern=pattern) == "(no path matches)"


@pytest.mark.parametrize("pattern", ["[ab", "src/[a", "[a/b]", "{[a,b}"])
def test_bracket_that_is_not_closed_is_refused(workspace: Path, pattern: str) -> None:
    assert "a [ without a ]" in refusal(workspace, FIND, pattern=pattern)


def test_results_are_bounded_and_say_so(workspace: Path) -> None:
    (workspace / "many.txt").write_text("needle\n" * (MAX_MATCHES + 1))
    lines = use(workspace, GREP, pattern="needle").splitlines()
    assert len(lines) == MAX_MATCHES + 1
    assert lines[-1].startswith("[limit of 200")
    for number in range(MAX_PATHS + 1):
        (workspace / f"f{number}").touch()
    lines = use(workspace, FIND, pattern="f*").splitlines()
    assert len(lines) == MAX_PATHS + 1
    assert lines[-1].startswith("[limit of 1000")


def test_grep_leaves_out_what_is_not_text_and_says_so(workspace: Path) -> None:
    (workspace / "binary").write_bytes(b"needle\0")
    with (workspace / "huge").open("wb") as file:
        file.write(b"needle\n" * 2_000)
        file.truncate(MAX_FILE_BYTES + 1)
    os.mkfifo(workspace / "fifo")
    with suppress(PermissionError):
        os.mknod(workspace / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    (workspace / "latin").write_bytes(b"caf\xe9 needle\n")
    assert use(workspace, GREP, pattern="needle").splitlines() == [
        "latin:1: caf� needle",
        "[skipped: 1 binary files]",
        f"[skipped: 1 files of more than {MAX_FILE_BYTES} bytes]",
    ]


def test_long_line_is_cut(workspace: Path) -> None:
    (workspace / "a.txt").write_text("needle" + "x" * 1_000_000)
    assert len(use(workspace, GREP, pattern="needle")) < 500


def test_match_in_long_line_is_shown(workspace: Path) -> None:
    (workspace / "a.txt").write_text("x" * 10_000 + "needle" + "y" * 10_000)
    (told,) = use(workspace, GREP, pattern="needle").splitlines()
    assert told.startswith("a.txt:1: [9800 characters omitted] xxx")
    assert "xneedley" in told
    assert told.endswith("yyy [line truncated]")


def test_first_line_begins_behind_mark_of_utf8(workspace: Path) -> None:
    (workspace / "a.txt").write_bytes(b"\xef\xbb\xbfneedle")
    assert use(workspace, GREP, pattern="^needle") == "a.txt:1: needle"


def test_strange_names_take_one_line_each(workspace: Path) -> None:
    for name in (b"two\nlines.odd", b"caf\xe9.odd", "tên.odd".encode()):
        (workspace / os.fsdecode(name)).write_text("needle")
    found = use(workspace, FIND, pattern="*.odd").splitlines()
    assert sorted(found) == ["caf\ufffd.odd", "two\\nlines.odd", "tên.odd"]
    assert len(use(workspace, GREP, pattern="needle").splitlines()) == 3


def test_searches_stay_inside(workspace: Path) -> None:
    (workspace / "file-link").symlink_to(workspace.parent / "outside" / "secret.txt")
    (workspace / "directory-link").symlink_to(workspace.parent / "outside")
    assert use(workspace, GREP, pattern="secret") == "(no line matches)"
    assert use(workspace, FIND, pattern="*link").splitlines() == [
        "directory-link (a symbolic link)",
        "file-link (a symbolic link)",
    ]
    for tool in (FIND, GREP):
        for path in ("file-link", "directory-link", "..", "/", str(workspace.parent / "outside")):
            told = refusal(workspace, tool, pattern=SECRET, path=path)
            assert "outside the workspace" in told


def test_tree_that_is_too_deep_is_searched_as_far_as_allowed(workspace: Path) -> None:
    top = os.open(workspace, os.O_RDONLY)
    for _ in range(MAX_DEPTH + 50):
        os.mkdir("d", dir_fd=top)
        below = os.open("d", os.O_RDONLY, dir_fd=top)
        os.close(top)
        top = below
    os.close(top)
    lines = use(workspace, FIND, pattern="d").splitlines()
    assert len(lines) == MAX_DEPTH + 2
    assert lines[-1] == f"[skipped: 1 directories more than {MAX_DEPTH} deep]"


@pytest.mark.usefixtures("no_child_is_left")
def test_regular_expression_that_explodes_is_ended(workspace: Path) -> None:
    (workspace / "a.txt").write_text("a" * 60 + "b\n")
    told = refusal(workspace, GrepTool(ProcessSlots(), seconds=0.2), pattern="^(a+)+$")
    assert told.startswith("The search did not end within 0.2 seconds.")


def test_search_that_runs_out_of_time_reports_what_it_found(workspace: Path) -> None:
    for number in range(3_000):  # more than can be searched, and each of them quickly
        (workspace / f"{number:04}.txt").write_text("needle\n" if number == 0 else "a" * 17 + "b\n")
    told = use(workspace, GrepTool(ProcessSlots(), seconds=5.0), pattern="needle|^(a+)+$")
    assert told.splitlines() == [
        "0000.txt:1: needle",
        "[time limit reached; use a narrower path]",
    ]


@pytest.mark.usefixtures("no_child_is_left")
def test_cancelled_search_is_killed(workspace: Path) -> None:
    (workspace / "a.txt").write_text("a" * 60 + "b\n")
    began = time.monotonic()
    with pytest.raises(Deadline), deadline(0.5):
        GREP.run({"pattern": "^(a+)+$"}, ToolContext("main", workspace, "k", "r"))
    assert time.monotonic() - began < 10


def test_without_workspace_there_is_nothing_to_search() -> None:
    with pytest.raises(ToolError, match="has no workspace"):
        FIND.run({"pattern": "*"}, ToolContext("a", None, "", ""))


def test_process_that_is_killed_from_outside_is_defect_not_result(workspace: Path) -> None:
    (workspace / "a.txt").write_text("a" * 60 + "b\n")
    before = set(running_children(recursive=False))

    def kill() -> None:
        found = until(lambda: set(running_children(recursive=False)) - before)
        sleep(0.5)  # it is searching
        for child in found:
            child.send_signal(signal.SIGKILL)

    killer = spawn(kill)
    with pytest.raises(RuntimeError, match="ended with status -9"):
        use(workspace, GREP, pattern="^(a+)+$")
    killer.join()


SEARCH_PROGRAM = "service.tools.workspace.search_process"


def test_searches_run_no_more_processes_than_their_cap(workspace: Path) -> None:
    (workspace / "a.txt").write_text("a" * 40 + "b")
    slots = ProcessSlots(2)
    grep, most, done = GrepTool(slots, seconds=1.0), 0, 0

    def search() -> None:
        nonlocal done
        with suppress(ToolError):
            use(workspace, grep, pattern="^(a+)+$")
        done += 1

    for _ in range(6):
        spawn(search)
    while done < 6:
        searches = [child for child in running_children() if SEARCH_PROGRAM in command_of(child)]
        most = max(most, len(searches))
        sleep(0.01)
    assert 0 < most <= slots.limit


def test_search_that_finds_no_room_says_so(workspace: Path) -> None:
    slots = ProcessSlots(1)
    with slots.hold(1), pytest.raises(ToolError, match="busy: 1 tool processes are running"), slots.hold(0.01):
        pass
    assert use(workspace, FindTool(slots), pattern="nothing") == "(no path matches)"
