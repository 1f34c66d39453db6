"""Generate docs/configuration-reference.md from the schema and the tables of OpenClaw's keys; run as a script."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import orjson
from pydantic import PlainValidator, SecretStr
from pydantic.fields import FieldInfo

from service.config.json_schema import read_descriptions
from service.config.openclaw_keys import IGNORED, PLACES, RESTRICTIONS
from service.config.problems import Section
from service.config.schema import Config

REFERENCE = Path(__file__).parents[2] / "docs" / "configuration-reference.md"

_HEAD = """# Configuration reference

Every key of `openclaw.json`. Times and sizes carry their unit in their name. `*` stands for a name of your choice and
`[]` for an item of a list. `openclaw config schema` prints the same as a JSON Schema.

This file is generated: `python tests/support/configuration_reference.py` writes it.
"""

_OPENCLAW = """
## Keys of OpenClaw

This gateway reads OpenClaw's files. Their keys are *honoured* (the tables above), *refused* or *ignored*. A key that
neither this gateway nor OpenClaw has is refused, as it may be misspelt.

### Refused because they restrict

These keys withhold something from an agent or a caller in a way that this gateway cannot. With a value that is not
harmless the gateway does not start.

| Key | Harmless | Remedy |
|---|---|---|
"""

_IGNORED = """
### Ignored because they cannot matter

Each is named in a notice when the gateway starts. Keys below them are ignored, too, except for those above.

| Why | Keys |
|---|---|
"""

_KINDS: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    SecretStr: "text",
    IPv4Network: "IP address or network",
}


class Key(NamedTuple):
    """A key of the schema: path as a pattern, field, description, and the section if it has keys of its own."""

    pattern: str
    field: FieldInfo
    description: str
    section: type[Section] | None


def schema_keys(
    section: type[Section] = Config, prefix: str = "", once: set[type[Section]] | None = None
) -> Iterator[Key]:
    """Yield every key of `section` and below, in order; of sections in `once`, which grows, none below them."""
    descriptions = read_descriptions(section)
    for name, field in section.model_fields.items():
        pattern = f"{prefix}{field.alias or name}"
        suffix, inner = _inner_section(field.annotation)
        yield Key(pattern, field, descriptions.get(name, ""), inner)
        if inner is not None and not (once and inner in once):
            yield from schema_keys(inner, f"{pattern}{suffix}.", once)
            if once is not None:
                once.add(inner)


def _inner_section(annotation: Any) -> tuple[str, type[Section] | None]:
    """Return the section in `annotation`, and what its keys stand below: nothing, `.*` or `[]`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "", annotation
    if origin is dict:
        return f".*{_inner_section(arguments[1])[0]}", _inner_section(arguments[1])[1]
    if origin is tuple:
        return "[]", _inner_section(arguments[0])[1]
    inner = (_inner_section(argument) for argument in arguments) if origin in (Annotated, Union, UnionType) else ()
    return next((found for found in inner if found[1] is not None), ("", None))


def render() -> str:
    """Return the text of the reference."""
    parts = [_HEAD]
    shown: set[type[Section]] = set()
    for top in (key for key in schema_keys() if "." not in key.pattern):
        parts.append(
            f"\n## {top.pattern}\n\n{top.description}\n\n| Key | Type | Default | Meaning |\n|---|---|---|---|\n"
        )
        assert top.section is not None
        parts += [_row(key) for key in schema_keys(top.section, f"{top.pattern}.", shown)]
    parts.append(_OPENCLAW)
    for row in RESTRICTIONS:
        parts.append(f"| {_pattern(row.pattern)} | {_cell(row.harmless.description)} | {_cell(row.remedy)} |\n")
    parts.append(_IGNORED)
    for reason, patterns in IGNORED.items():
        parts.append(f"| {_cell(reason)} | {', '.join(_pattern(pattern) for pattern in patterns)} |\n")
    return "".join(parts) + _places()


def _row(key: Key) -> str:
    kind, meaning = "time or false" if _is_time(key.field) else _kind(key.field.annotation), key.description
    return f"| `{key.pattern}` | {_cell(kind)} | {_cell(_default(key))} | {_cell(meaning)} |\n"


def _default(key: Key) -> str:
    if key.field.is_required():
        return "required"
    default = key.field.get_default(call_default_factory=True)
    if _is_time(key.field) and default is not None:
        return f'`"{default // 86_400}d"`'
    return "" if key.section is not None or default in (None, (), {}) else f"`{_json(default)}`"


def _is_time(field: FieldInfo) -> bool:
    return any(isinstance(one, PlainValidator) and one.json_schema_input_type == str | bool for one in field.metadata)


def _kind(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f'"{value}"' for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_kind(argument) for argument in arguments if argument is not NoneType))
    if origin is Annotated:
        return _kind(arguments[0])
    if origin is tuple:
        return "list"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, Section)):
        return "object"
    return _KINDS.get(annotation, "IP address or network")


def _pattern(pattern: str) -> str:
    places = "|".join(f"{{{name}}}" for name in PLACES)
    return f"`{re.sub(places, lambda found: found[0][1:-1].upper(), pattern)}`".replace("|", "\\|")


def _places() -> str:
    rows = [f"* `{name.upper()}`: {', '.join(f'`{place}`' for place in places)}\n" for name, places in PLACES.items()]
    return "\nIn both tables\n\n" + "".join(rows)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode().replace(",", ", ")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    REFERENCE.write_text(render(), encoding="utf-8")
