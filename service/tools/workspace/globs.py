"""File name patterns as in Bash: `*`, `?`, `[abc]`, `{a,b}`, and `**` for any number of directories."""

from __future__ import annotations

import re
from collections.abc import Callable

from wcmatch import glob

from service.tools.tool import ToolError

_FLAGS = glob.GLOBSTAR | glob.BRACE | glob.DOTGLOB | glob.FORCEUNIX
_MAX_ALTERNATIVES = 1_000
_CLOSED_BRACKETS = re.compile(r"\[!?\]?[^\]/]*\]")


def compile_glob(pattern: str) -> Callable[[str], bool]:
    """Return a predicate for relative paths. A pattern without a slash is matched against the file name only.

    Raises `ToolError` for an invalid pattern and for one that cannot match any path.
    """
    pattern = pattern.removeprefix("./")
    _check_steps(pattern)
    _check_pairs(pattern)
    try:
        flags = _FLAGS if "/" in pattern else _FLAGS | glob.MATCHBASE
        return glob.compile(pattern, flags=flags, limit=_MAX_ALTERNATIVES).match
    except Exception:  # noqa: BLE001 - the class of its one error, too many alternatives, is private
        text = f"The glob {pattern!r} has more than {_MAX_ALTERNATIVES} alternatives in braces. Use fewer."
        raise ToolError(text) from None


def _check_steps(pattern: str) -> None:
    if {"", ".", ".."}.isdisjoint(pattern.split("/")):
        return
    raise ToolError(
        f"No path can match the glob {pattern!r}: it is relative to `path`, so it neither begins nor ends with "
        "a slash, and nothing between its slashes is empty, `.` or `..`. To search elsewhere, change `path`."
    )


def _check_pairs(pattern: str) -> None:
    rest = _CLOSED_BRACKETS.sub("", pattern)
    if "[" in rest:
        raise ToolError("The glob has a [ without a ] before the next slash. Write [[] for a literal [.")
    if rest.count("{") > rest.count("}"):
        raise ToolError(f"The glob {pattern!r} is invalid: it has a {{ without a }}. Write [{{] for a literal {{.")
