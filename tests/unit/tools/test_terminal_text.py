"""Conversion of terminal output to plain text."""

from __future__ import annotations

import os

import pytest

from service.tools.terminal_text import is_binary, to_plain_text


@pytest.mark.parametrize(
    ("printed", "plain"),
    [
        ("tab\there\nnewline ü 😀\n", "tab\there\nnewline ü 😀\n"),
        ("\x1b[1;31mred\x1b[0m \x1b[38:5:196mred\x1b[m", "red red"),
        ("\x1b]0;a title\x07text \x1b]8;;http://x/\x1b\\link\x1b]8;;\x1b\\", "text link"),
        ("\x1bP1;2|abc\x1b\\after", "after"),
        ("\x1b]never ended\nnext line", "\nnext line"),
        ("\x1b(Bcharset \x1b7saved\x1b8 \x1b[", "charset saved "),
        ("one\r\ntwo\r\n", "one\ntwo\n"),
        (" 10%\r100%\n", " 10%\n100%\n"),
        ("N\x08NA\x08AM\x08ME", "NAME"),
        ("a\0b\0", "a\nb\n"),
        ("bell\x07 \x01\x7f\x85end\fpage", "bell end\npage"),
    ],
)
def test_terminal_codes_go_and_text_stays(printed: str, plain: str) -> None:
    assert to_plain_text(printed) == plain


def test_long_unfinished_sequences_take_linear_time() -> None:
    for piece in ("\x1b]", "\x1b[", "\x1bP", "\x1b[1;", "\x08"):
        assert len(to_plain_text(piece * 500_000)) < 500_000


@pytest.mark.parametrize(
    "data",
    [b"\0" * 1000, os.urandom(4096), "a wide text, not narrow".encode("utf-16-le"), b"\x7fELF" + b"\1\0\0" * 100],
)
def test_data_that_is_not_text_is_binary(data: bytes) -> None:
    assert is_binary(data.decode(errors="replace"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello\n",
        b"/bin/sleep\x00100\x00",
        b"a\0b\0c\0",
        "grün und süß".encode("latin-1"),
        b"\x1b[31mx\x1b[0m\r\n",
    ],
)
def test_text_with_odd_characters_is_text(data: bytes) -> None:
    assert not is_binary(data.decode(errors="replace"))
