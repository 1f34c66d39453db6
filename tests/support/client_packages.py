"""The client packages of `clients/` and programs that use them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.documents import ROOT, succeed

LANGUAGES = ("python", "typescript", "go")
PROGRAMS = ROOT / "tests" / "clients" / "programs"


def build_package(language: str, directory: Path) -> Path:
    """Build a package, or skip the test where the tools of its language are missing."""
    if language == "go" and not shutil.which("go"):
        pytest.skip("Go is not installed")
    if language == "typescript" and not _has_npm():
        pytest.skip("npm is not installed, or its registry cannot be reached")
    succeed([sys.executable, str(ROOT / "clients" / "generate.py"), language, str(directory)], os.environ, ROOT)
    return directory


def compile_typescript(package: Path, directory: Path, *programs: str) -> None:
    """Check and compile programs in a directory."""
    compiler = str(package / "node_modules" / ".bin" / "tsc")
    options = ["--strict", "--target", "es2022", "--module", "nodenext"]
    types = ["--types", "node", "--typeRoots", str(package / "node_modules" / "@types")]
    succeed([compiler, *options, *types, *programs], os.environ, directory)


def prepare_program(language: str, name: str, package: Path, directory: Path) -> Sequence[str]:
    """Return the command of one of the programs; it needs the variable PYTHONPATH for Python."""
    if language == "python":
        return [sys.executable, str(PROGRAMS / f"{name}.py")]
    if language == "go":
        source = package / name
        source.mkdir()
        (source / "main.go").write_bytes((PROGRAMS / f"{name}.go").read_bytes())
        succeed(["go", "build", "-o", str(directory / name), f"./{name}"], os.environ, package)
        return [str(directory / name)]
    (directory / "node_modules").mkdir()
    (directory / "node_modules" / "openclaw-client").symlink_to(package)
    (directory / "package.json").write_text('{"type": "module"}')
    (directory / f"{name}.ts").write_bytes((PROGRAMS / f"{name}.ts").read_bytes())
    compile_typescript(package, directory, f"{name}.ts")
    return ["node", str(directory / f"{name}.js")]


def _has_npm() -> bool:
    asked = ["npm", "view", "typescript", "name"]
    return shutil.which("npm") is not None and subprocess.run(asked, check=False).returncode == 0
