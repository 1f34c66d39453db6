"""Paths of keys in the configuration, and their notation."""

from __future__ import annotations

import json
import re

#: Keys of objects and indexes of lists, outermost first.
KeyPath = tuple[str | int, ...]

_STEP = re.compile(r"""(?:^|\.)(?P<key>[^.\[\]"]+)|\[(?P<index>[0-9]{1,9})\]|\[(?P<quoted>"(?:[^"\\]|\\.)*")\]""")


def format_path(path: KeyPath) -> str:
    """Write a path: `agents.list[0].model`, `models.providers["my.host"].api`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step.replace("-", "_").isidentifier():
            text += f".{step}" if text else step
        else:
            text += f"[{json.dumps(step, ensure_ascii=False)}]"
    return text or "(the whole file)"


def parse_path(text: str) -> KeyPath:
    """Read a path in the notation of `format_path`; `agents.list.0.model` is accepted, too.

    Raises `ValueError` with a message for users.
    """
    path: list[str | int] = []
    position = 0
    while position < len(text):
        found = _STEP.match(text, position)
        if found is None:
            break
        if found["index"] is not None:
            path.append(int(found["index"]))
        else:
            path.append(found["key"] if found["quoted"] is None else str(json.loads(found["quoted"], strict=False)))
        position = found.end()
    if not path or position < len(text):
        raise ValueError(f"{text} is not a key of a configuration; write it like gateway.port or agents.list[0].model")
    return tuple(path)
