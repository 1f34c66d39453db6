"""File name patterns of coding tools: `*`, `?`, `[abc]`, `{a,b}`, and `**` for any number of directories."""

from __future__ import annotations

import re
from collections.abc import Callable

from service.tools.tool import ToolError


def compile_glob(pattern: str) -> Callable[[str], bool]:
    """Return a predicate for relative paths. A pattern without a slash is matched against the file name only.

    Raises `ToolError` for an invalid pattern and for one that cannot match any path.
    """
    pattern = pattern.removeprefix("./")
    _check_steps(pattern)
    try:
        regex = re.compile(_to_regex(pattern), re.DOTALL)
    except (re.error, RecursionError):
        raise ToolError(f"The glob {pattern!r} is invalid. Use *, **, ?, [abc] and {{a,b}}.") from None
    if "/" in pattern:
        return lambda path: regex.fullmatch(path) is not None
    return lambda path: regex.fullmatch(path.rpartition("/")[2]) is not None


def _check_steps(pattern: str) -> None:
    if {"", ".", ".."}.isdisjoint(pattern.split("/")):
        return
    raise ToolError(
        f"No path can match the glob {pattern!r}: it is relative to `path`, so it neither begins nor ends with "
        "a slash, and nothing between its slashes is empty, `.` or `..`. To search elsewhere, change `path`."
    )


_PIECES = re.compile(r"\*\*/|\*+|\?|\[!?\]?[^\]/]*\]|[{},]|.", re.DOTALL)
_PLAIN = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
_BRACES = {"{": "(?:", ",": "|", "}": ")"}


def _to_regex(pattern: str) -> str:
    depth = 0
    parts = []
    for piece in _PIECES.findall(pattern):
        depth += piece == "{"
        parts.append(_BRACES[piece] if depth and piece in _BRACES else _piece_to_regex(piece))
        depth -= piece == "}" and depth > 0
    return "".join(parts)


def _piece_to_regex(piece: str) -> str:
    if piece in _PLAIN:
        return _PLAIN[piece]
    if piece.startswith("**"):
        return ".*"
    if len(piece) > 1:
        negated = piece.startswith("[!")
        members = re.sub(r"([\\\[^])", r"\\\1", piece[2 if negated else 1 : -1])
        return f"[{'^/' if negated else ''}{members}]"
    if piece == "[":
        raise ToolError("The glob has a [ without a ] before the next slash. Write [[] for a literal [.")
    return re.escape(piece)
