"""The shape of the code: who may import whom, how long things may be, where certain names may appear."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import service

#: From the ground up; a module imports only from its own package and from floors below it. Names are packages of
#: `service`, but for `handlers`. Packages on one floor do not import each other.
FLOORS = (
    ("core",),
    ("config",),
    ("models", "storage"),
    ("tools",),
    ("agent",),
    ("gateway",),
    ("api",),
    ("handlers",),
    ("server",),
    ("cli",),
    ("__main__",),
)

ROOT = Path(service.__file__).parent
MODULES = sorted([*ROOT.rglob("*.py"), *(ROOT.parent / "handlers").glob("*.py")])
FUNCTION_LINES, FUNCTION_LINES_P90, FILE_LINES = 40, 25, 350


def unit_of(module: str) -> str:
    """The name by which the floors know a module: `service.models.openai.provider` is `models`."""
    parts = module.split(".")
    return parts[0] if parts[0] == "handlers" else parts[1] if len(parts) > 1 else "service"


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def functions_of(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            length = (node.end_lineno or 0) - node.lineno + 1
            yield f"{name_of(path)}.{node.name}", length - (len(docstring.splitlines()) if docstring else 0)


def floor_of(unit: str) -> int:
    return next(index for index, floor in enumerate(FLOORS) if unit in floor)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_from_floors_below(path: Path) -> None:
    unit = unit_of(name_of(path))
    if unit in ("service", "__init__"):
        return
    for imported in imports_of(path):
        if imported.split(".")[0] not in ("service", "handlers") or imported == "service":
            continue
        target = unit_of(imported)
        assert target == unit or floor_of(target) < floor_of(unit), f"{name_of(path)} imports {imported}"


def test_every_unit_has_a_floor() -> None:
    units = {unit_of(name_of(path)) for path in MODULES} - {"service", "__init__", "_version"}
    assert units == {unit for floor in FLOORS for unit in floor}


def test_functions_are_short() -> None:
    lengths = sorted((length, name) for path in MODULES for name, length in functions_of(path))
    assert [name for length, name in lengths if length > FUNCTION_LINES] == []
    assert lengths[int(len(lengths) * 0.9)][0] <= FUNCTION_LINES_P90


def test_files_are_short() -> None:
    long = {name_of(path): count for path in MODULES if (count := path.read_text().count("\n")) > FILE_LINES}
    assert long == {}


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("gevent", {"core", "models", "server"}),
        ("gunicorn", {"server"}),
        ("flask", {"api", "server"}),
        ("connexion", {"api"}),
        ("sqlalchemy", {"storage"}),
        ("alembic", {"storage"}),
        ("psycopg", {"storage"}),
        ("geventhttpclient", {"models"}),
        ("brotli", {"core"}),
        ("backports", {"core"}),
        ("pydantic", {"config", "api"}),
        ("click", {"cli"}),
        ("websockets", {"api", "cli"}),
    ],
)
def test_a_library_appears_only_where_it_is_tamed(library: str, homes: set[str]) -> None:
    users = {
        unit_of(name_of(path))
        for path in MODULES
        if any(imported.split(".")[0] == library for imported in imports_of(path))
    }
    assert users <= homes


def test_tests_replace_no_code() -> None:
    offenders = [
        path.name
        for path in Path(__file__).parent.rglob("*.py")
        for word in ("patch(", "monkeypatch", "Mock(")
        if word in path.read_text(encoding="utf-8") and path.name != Path(__file__).name
    ]
    assert offenders == []
