"""File tools in a real directory: results, limits and errors."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from support.workspace_tools import FILE_TOOLS, SECRET, make_workspace, refusal, use

from service.tools.process_slots import ProcessSlots
from service.tools.tool import ToolContext, ToolError
from service.tools.workspace.files import MAX_EDIT_BYTES, MAX_LISTED, MAX_WRITE_BYTES
from service.tools.workspace.search import FindTool, GrepTool


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return make_workspace(tmp_path)


@pytest.fixture
def outside(workspace: Path) -> Path:
    return workspace.parent / "outside"


def test_read_numbers_lines(workspace: Path) -> None:
    (workspace / "a.txt").write_text("một\r\nhai\n\nbốn")
    assert use(workspace, "read", path="a.txt") == "     1\tmột\n     2\thai\n     3\t\n     4\tbốn"


def test_read_takes_window_and_says_where_to_go_on(workspace: Path) -> None:
    (workspace / "a.txt").write_text("".join(f"line {number}\n" for number in range(1, 100_001)))
    text = use(workspace, "read", path="a.txt", offset=90_000, limit=2)
    assert text == " 90000\tline 90000\n 90001\tline 90001\n[more lines follow; continue with offset 90002]"
    assert use(workspace, "read", path="a.txt", offset=100_000) == "100000\tline 100000"


@pytest.mark.parametrize(
    ("content", "offset", "told"), [("", 2, "0 lines"), ("a\n", 2, "1 line."), ("a\nb", 3, "2 lines"), ("a\nb", 9, "2")]
)
def test_read_beyond_end_reports_how_many_lines_there_are(
    workspace: Path, content: str, offset: int, told: str
) -> None:
    (workspace / "a.txt").write_text(content)
    assert f"has only {told}" in refusal(workspace, "read", path="a.txt", offset=offset)


def test_read_of_empty_file_says_so(workspace: Path) -> None:
    (workspace / "a.txt").touch()
    assert use(workspace, "read", path="a.txt") == "(the file is empty)"


def test_read_reports_binary_file_as_such(workspace: Path) -> None:
    (workspace / "a.png").write_bytes(b"\x89PNG\0\0")
    assert "is a binary file of 6 bytes" in refusal(workspace, "read", path="a.png")


def test_mark_of_utf8_is_not_shown_and_stays(workspace: Path) -> None:
    (workspace / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert use(workspace, "read", path="a.txt") == "     1\tone\n     2\ttwo"
    assert "at line 1" in use(workspace, "edit", path="a.txt", old_text="one\ntwo", new_text="uno\ndue")
    assert (workspace / "a.txt").read_bytes() == b"\xef\xbb\xbfuno\r\ndue\r\n"


def test_read_shows_what_is_not_utf8_with_replacement_characters_and_says_so(workspace: Path) -> None:
    (workspace / "a.txt").write_bytes(b"caf\xe9\nplain\n\xff")
    note = "[not UTF-8: bytes that could not be read are shown as U+FFFD]"
    assert use(workspace, "read", path="a.txt") == f"     1\tcaf\ufffd\n     2\tplain\n     3\t\ufffd\n{note}"
    assert use(workspace, "read", path="a.txt", limit=1).splitlines()[1:] == [
        "[more lines follow; continue with offset 2]",
        note,
    ]
    assert note not in use(workspace, "read", path="a.txt", offset=2, limit=1)


def test_read_says_nothing_of_utf8_that_is_in_order(workspace: Path) -> None:
    (workspace / "a.txt").write_text("a real \ufffd\n")
    assert use(workspace, "read", path="a.txt") == "     1\ta real \ufffd"
    for start in ("", "a", "ab", "abc"):  # whichever byte of a character a long line is cut at
        (workspace / "a.txt").write_text(start + "\U0001f980" * 9_000)
        shown = (start + "\U0001f980" * 2_000)[:2_000]
        assert use(workspace, "read", path="a.txt") == f"     1\t{shown} [line truncated]"


def test_write_makes_directories_and_replaces_files(workspace: Path) -> None:
    assert use(workspace, "write", path="a/b/c.txt", content="đầu") == "Created a/b/c.txt (6 bytes)."
    assert use(workspace, "write", path=f"{workspace}/a/b/c.txt", content="") == "Replaced a/b/c.txt (0 bytes)."
    assert (workspace / "a/b/c.txt").read_text() == ""


def test_write_makes_workspace_itself(workspace: Path) -> None:
    fresh = workspace / "not" / "there"
    assert "The workspace is empty" in refusal(fresh, "ls")
    use(fresh, "write", path="a", content="x")
    assert use(fresh, "ls") == "a (1 bytes)"


def test_write_keeps_mode_and_leaves_no_temporary_file(workspace: Path) -> None:
    (workspace / "run.sh").write_text("old")
    (workspace / "run.sh").chmod(0o750)
    use(workspace, "write", path="run.sh", content="new")
    assert stat.S_IMODE((workspace / "run.sh").stat().st_mode) == 0o750
    assert [path.name for path in workspace.iterdir()] == ["run.sh"]


def test_write_leaves_other_names_of_file_alone(workspace: Path, outside: Path) -> None:
    os.link(outside / "secret.txt", workspace / "link.txt")
    use(workspace, "write", path="link.txt", content="mine")
    assert (outside / "secret.txt").read_text() == SECRET


def test_write_does_not_replace_directory(workspace: Path) -> None:
    (workspace / "a").mkdir()
    assert refusal(workspace, "write", path="a", content="x") == '"a" is a directory, not a file.'
    assert "not a file" in refusal(workspace, "write", path=".", content="x")


def test_write_refuses_more_than_it_can_write_at_once(workspace: Path) -> None:
    told = refusal(workspace, "write", path="a", content="x" * (MAX_WRITE_BYTES + 1))
    assert told == f"The content has {MAX_WRITE_BYTES + 1} bytes; at most {MAX_WRITE_BYTES} can be written at once."
    assert use(workspace, "ls") == "(the directory is empty)"


def test_edit_replaces_one_place(workspace: Path) -> None:
    (workspace / "a.py").write_text("x = 1\ny = 2\n")
    assert use(workspace, "edit", path="a.py", old_text="y = 2", new_text="y = 3") == "Edited a.py at line 2."
    edits = [{"old_text": "x = 1", "new_text": "x = 5"}, {"old_text": "5\ny", "new_text": "6\ny"}]
    assert use(workspace, "edit", path="a.py", edits=edits) == "Edited a.py at lines 1, 1."
    assert (workspace / "a.py").read_text() == "x = 6\ny = 3\n"


def test_edit_that_fails_changes_nothing_and_says_why(workspace: Path) -> None:
    (workspace / "a.py").write_text("x\nx\ny\n")
    assert "occurs 2 times" in refusal(workspace, "edit", path="a.py", old_text="x", new_text="z")
    assert "was not found" in refusal(workspace, "edit", path="a.py", old_text="Y", new_text="z")
    edits = [{"old_text": "y", "new_text": "z"}, {"old_text": "y", "new_text": "z"}]
    assert refusal(workspace, "edit", path="a.py", edits=edits).startswith("edits[1]: old_text was not found")
    for wrong in ({}, {"old_text": "x"}, {"old_text": "y", "new_text": "z", "edits": edits}):
        assert "Give either" in refusal(workspace, "edit", path="a.py", **wrong)
    assert (workspace / "a.py").read_text() == "x\nx\ny\n"


def test_edit_that_would_change_nothing_is_refused(workspace: Path) -> None:
    (workspace / "a.txt").write_text("x\ny\n")
    same = "old_text and new_text are equal, so there is nothing to change."
    assert refusal(workspace, "edit", path="a.txt", old_text="x", new_text="x") == same
    assert refusal(workspace, "edit", path="a.txt", old_text="x\ny", new_text="x\r\ny") == same
    edits = [{"old_text": "x", "new_text": "z"}, {"old_text": "y", "new_text": "y"}]
    assert refusal(workspace, "edit", path="a.txt", edits=edits) == f"edits[1]: {same}"
    assert (workspace / "a.txt").read_text() == "x\ny\n"


def test_edit_keeps_line_ends_of_file(workspace: Path) -> None:
    (workspace / "a.txt").write_bytes(b"one\r\ntwo\r\n")
    use(workspace, "edit", path="a.txt", old_text="one\ntwo", new_text="1\n2\r\n3")
    assert (workspace / "a.txt").read_bytes() == b"1\r\n2\r\n3\r\n"


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"a\0b", "binary"), (b"a\xe9b", "not UTF-8 at byte 1"), (b"a" * (MAX_EDIT_BYTES + 1), "larger than")],
)
def test_edit_refuses_what_it_could_only_damage(workspace: Path, content: bytes, told: str) -> None:
    (workspace / "a").write_bytes(content)
    assert told in refusal(workspace, "edit", path="a", old_text="a", new_text="b")
    assert (workspace / "a").read_bytes() == content


def test_ls_reports_kinds_and_sizes(workspace: Path, outside: Path) -> None:
    (workspace / "dir").mkdir()
    (workspace / "a.txt").write_text("abc")
    (workspace / "link").symlink_to(outside)
    os.mkfifo(workspace / "pipe")
    assert use(workspace, "ls") == "a.txt (3 bytes)\ndir/\nlink (a symbolic link)\npipe (a FIFO)"
    assert use(workspace, "ls", path="dir") == "(the directory is empty)"
    assert "is not a directory" in refusal(workspace, "ls", path="a.txt")


def test_ls_of_crowded_directory_is_bounded(workspace: Path) -> None:
    for number in range(MAX_LISTED + 5):
        (workspace / f"{number:05}").touch()
    lines = use(workspace, "ls").splitlines()
    assert lines[MAX_LISTED - 1 :] == ["00999 (0 bytes)", "[5 more; use find to narrow them down]"]


ODD_NAMES = {
    b"two\nlines": r"two\nlines",
    b"caf\xe9": "caf\ufffd",
    b"caf\xc2\x85": r"caf\x85",
    b"\x1b[31m": r"\x1b[31m",
    "\u202e\U000e0001".encode(): r"\u202e\U000e0001",
    "tên".encode(): "tên",
    b"it's": "it's",
    b"$'plain'": "$'plain'",
}


def test_odd_names_are_shown_on_one_printable_line_each(workspace: Path) -> None:
    (workspace / "a\tb").mkdir()
    for raw in ODD_NAMES:
        (workspace / "a\tb" / os.fsdecode(raw)).write_bytes(raw)
    assert use(workspace, "ls") == r"a\tb/"
    shown = {f"{name} ({len(raw)} bytes)": name for raw, name in ODD_NAMES.items()}
    assert sorted(use(workspace, "ls", path="a\tb").splitlines()) == sorted(shown)
    assert sorted(use(workspace, FindTool(ProcessSlots()), pattern="*", path="a\tb").splitlines()) == sorted(
        rf"a\tb/{name}" for name in shown.values()
    )


@pytest.mark.parametrize("raw", [raw for raw in ODD_NAMES if raw != b"caf\xe9"])
def test_odd_name_is_used_as_it_is(workspace: Path, raw: bytes) -> None:
    path, shown = f"a\tb/{raw.decode()}", rf"a\tb/{ODD_NAMES[raw]}"
    assert use(workspace, "write", path=path, content="tea") == f"Created {shown} (3 bytes)."
    assert (workspace / "a\tb" / os.fsdecode(raw)).read_text() == "tea"
    assert use(workspace, GrepTool(ProcessSlots()), pattern="$", path=path) == f"{shown}:1: tea"


def test_without_workspace_there_are_no_files() -> None:
    for name in ("read", "write", "edit", "ls"):
        with pytest.raises(ToolError, match="has no workspace"):
            FILE_TOOLS[name].run(
                {"path": "a", "content": "", "old_text": "a", "new_text": "b"}, ToolContext("a", None, "", "")
            )
