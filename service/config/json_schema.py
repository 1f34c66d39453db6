"""Descriptions of the configuration's keys: the docstrings below the fields of its sections.

They are read from the source when somebody asks. Pydantic would read them whenever the sections are imported, which
would take a fifth longer.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from service.config.problems import Section
from service.config.schema import Config


def read_descriptions(section: type[Section]) -> dict[str, str]:
    """Return the descriptions of a section's own and inherited fields, by the names of the attributes."""
    found: dict[str, str] = {}
    for base in reversed(section.__mro__):
        if issubclass(base, Section):
            found.update(_read_docstrings(base))
    return found


def describe_schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration's file (2020-12), with descriptions."""
    document = Config.model_json_schema(by_alias=True)
    schemas = {Config.__name__: document, **document["$defs"]}
    for section in _sections(Section):
        properties = schemas.get(section.__name__, {}).get("properties", {})
        for name, text in read_descriptions(section).items():
            key = section.model_fields[name].alias or name
            if key in properties:
                properties[key]["description"] = text
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document}


def _sections(section: type[Section]) -> Iterator[type[Section]]:
    for one in section.__subclasses__():
        yield one
        yield from _sections(one)


def _read_docstrings(section: type[Section]) -> Iterator[tuple[str, str]]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(definition, ast.ClassDef)  # noqa: S101 - for the type checker
    for field, below in pairwise(definition.body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                yield name, inspect.cleandoc(text)
