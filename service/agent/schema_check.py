"""Check a JSON value against a schema of a caller's.

Run as a program, `python -I schema_check.py`: `{schema, value}` on standard input, a JSON object on standard output. A
schema can make a check slow without bound, and an explanation more so: the program limits its own memory and CPU time.
Without `value` only the schema is checked.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jsonschema_rs

#: CPU time of a check.
CHECK_SECONDS = 2

_MAX_MEMORY_BYTES = 512 * 1024 * 1024
_MAX_CHARACTERS = 300


def compile_schema(schema: Any) -> jsonschema_rs.Validator:
    """Compile a schema, which may refer to itself only; formats are checked. Raises `ValueError` for an invalid one."""
    import jsonschema_rs  # noqa: PLC0415 - ten megabytes that few runs need

    options = jsonschema_rs.FancyRegexOptions(backtrack_limit=10_000, size_limit=1 << 20, dfa_size_limit=1 << 20)
    try:
        return jsonschema_rs.validator_for(
            schema, validate_formats=True, retriever=_refuse_reference, pattern_options=options
        )
    except (ValueError, TypeError, jsonschema_rs.ReferencingError) as error:
        raise ValueError(_cut(str(error).partition("\n")[0])) from None


def explain(validator: jsonschema_rs.Validator, value: Any) -> str | None:
    """Describe the first fault of `value` with its path, `None` if it is valid."""
    error = next(iter(validator.iter_errors(value)), None)
    if error is None:
        return None
    path = to_path(error.instance_path)
    return f"`{path}`: {_cut(error.message)}" if path else _cut(error.message)


def to_path(steps: Iterable[str | int]) -> str:
    """Write a path as `steps[0].name`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")


def main() -> int:
    """Print `{"refused": ...}` for an invalid schema, else `{"fault": ...}`, which is null for a valid value.

    The last line counts: a fault is stated before it is explained, which can take longer than there is time.
    """
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    cpu_seconds = math.ceil(time.process_time()) + CHECK_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    task = json.load(sys.stdin.buffer)
    try:
        validator = compile_schema(task["schema"])
    except ValueError as error:
        _print({"refused": str(error)})
        return 0
    if "value" not in task or validator.is_valid(task["value"]):
        _print({"fault": None})
        return 0
    _print({"fault": "it does not match the schema"})
    _print({"fault": explain(validator, task["value"])})
    return 0


def _print(report: dict[str, str | None]) -> None:
    sys.stdout.write(f"{json.dumps(report)}\n")
    sys.stdout.flush()


def _refuse_reference(uri: str) -> Any:
    raise ValueError(f"the schema refers to {uri}, which is outside the schema")


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}..."


if __name__ == "__main__":
    sys.exit(main())
