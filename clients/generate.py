"""Build a client package from the contract: `python clients/generate.py LANGUAGE DIRECTORY`.

The generated code is not kept in the repository, because it is a copy of the contract in other words, a hundred times
as long as what is written by hand. The directory then has the whole package: what is in `clients/LANGUAGE`, and what
the generator of that language makes of the served document.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from service.api.http.contract import load_contract
from service.api.http.published_contract import PublishedContract

HERE = Path(__file__).parent
_NULL = {"$ref": "#/components/schemas/NoValue"}


def generate(language: str, directory: Path) -> None:
    """Write the package of a language to `directory`, which must not exist."""
    shutil.copytree(HERE / language, directory)
    contract = PublishedContract(_without_refused_fields(load_contract()))
    document = directory / "openapi.json"
    document.write_bytes(contract.openapi_3_1 if language == "typescript" else contract.openapi_3_0)
    GENERATORS[language](document, directory)
    document.unlink()


def _without_refused_fields(node: Any) -> Any:
    """Leave out the fields that are listed to be refused by name: a client has no use for them."""
    if isinstance(node, list):
        return [_without_refused_fields(value) for value in node]
    if not isinstance(node, dict):
        return node
    kept = {name: value for name, value in node.items() if not (isinstance(value, dict) and "x-unsupported" in value)}
    return {name: _without_refused_fields(value) for name, value in kept.items()}


def _with_nullable_choices(node: Any) -> Any:
    """Say `nullable` of a choice that has null, as the generator for Go reads it: it tries null as every variant."""
    if isinstance(node, list):
        return [_with_nullable_choices(value) for value in node]
    if not isinstance(node, dict):
        return node
    node = {name: _with_nullable_choices(value) for name, value in node.items()}
    choice = next((name for name in ("oneOf", "anyOf") if _NULL in node.get(name, ())), None)
    if choice is None:
        return node
    others = [one for one in node.pop(choice) if one != _NULL]
    return node | {"nullable": True, ("oneOf" if len(others) > 1 else "allOf"): others}


def _run(*command: str | Path, directory: Path | None = None) -> None:
    ended = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(ended.stdout + ended.stderr)


#: How the Python generator reads errors, and imports what that needs; and how it is done instead.
_ERROR = "ErrorEnvelope.from_dict(response.json())", "to_envelope(response)"
_IMPORT = "from ... import errors\n", "from ... import errors\nfrom ...envelopes import to_envelope\n"

#: The unions of the contract that the Python generator leaves out, and the names of the tables of their types.
_UNIONS = {"RunEvent": "RUN_EVENTS", "ResponseEvent": "RESPONSE_EVENTS"}


def _python(document: Path, directory: Path) -> None:
    package = directory / "openclaw_client"
    by_hand = {path.name: path.read_bytes() for path in package.iterdir()}
    options: list[str | Path] = [
        "--meta",
        "none",
        "--fail-on-warning",
        "--overwrite",
        "--config",
        directory / "generator.yaml",
    ]
    module = [sys.executable, "-m", "openapi_python_client"]
    _run(*module, "generate", "--path", document, *options, "--output-path", package)
    (package / "py.typed").touch()
    (package / "events.py").write_text(_events(orjson.loads(document.read_bytes())), encoding="utf-8")
    for name, content in by_hand.items():
        (package / name).write_bytes(content)
    for path in (package / "api").glob("*/*.py"):  # answers of proxies are read, too
        text = path.read_text(encoding="utf-8").replace(*_ERROR).replace(*_IMPORT)
        path.write_text(text, encoding="utf-8")
    (directory / "generator.yaml").unlink()


def _events(document: Mapping[str, Any]) -> str:
    """Return a module with the events of streams: for each kind the union of its types, and the type for each name."""
    mappings = {name: document["components"]["schemas"][name]["discriminator"]["mapping"] for name in _UNIONS}
    types = {
        union: {event: reference.rpartition("/")[2] for event, reference in mapping.items()}
        for union, mapping in mappings.items()
    }
    names = sorted({name for mapping in types.values() for name in mapping.values()})
    lines = ['"""The events of streams, by their types."""', "", "from collections.abc import Mapping", ""]
    lines += ["from .models import (", *(f"    {name}," for name in names), ")", ""]
    for union, mapping in types.items():
        lines.append(f"{union} = {' | '.join(dict.fromkeys(mapping.values()))}")
        lines.append(f"{_UNIONS[union]}: Mapping[str, type[{union}]] = {{")
        lines += [*(f'    "{event}": {name},' for event, name in mapping.items()), "}"]
    return "\n".join(lines) + "\n"


def _typescript(document: Path, directory: Path) -> None:
    _run("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", directory=directory)
    _run("npx", "openapi-typescript", document.name, "-o", "src/gateway.ts", directory=directory)
    _run("npx", "tsc", directory=directory)


_GO = {
    "enumClassPrefix": "true",  # several enumerations have values of one name
    "useOneOfDiscriminatorLookup": "true",
    "disallowAdditionalPropertiesIfNotPresent": "false",
    "withGoMod": "false",
    "packageName": "openclaw",
}
_GO_PARTS = "apis,models,supportingFiles,apiDocs=false,modelDocs=false,apiTests=false,modelTests=false"


def _go(document: Path, directory: Path) -> None:
    document.write_bytes(orjson.dumps(_with_nullable_choices(orjson.loads(document.read_bytes()))))
    command: list[str | Path] = [
        Path(sys.executable).with_name("openapi-generator-cli"),
        "generate",
        "-g",
        "go",
        "-i",
        document,
    ]
    options = ",".join(f"{name}={value}" for name, value in _GO.items())
    chosen = ["--additional-properties", options, "--global-property", _GO_PARTS]
    _run(*command, *chosen, "--type-mappings", "integer=int64", "-o", directory)
    for path in directory.glob("*.go"):  # the standard library has to do
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace('"gopkg.in/validator.v2"', '"openclaw/internal/validator"'), encoding="utf-8")
    for left in ("git_push.sh", ".travis.yml", ".gitignore", "README.md", ".openapi-generator-ignore"):
        (directory / left).unlink(missing_ok=True)
    for left in ("api", ".openapi-generator"):
        shutil.rmtree(directory / left, ignore_errors=True)


GENERATORS = {"python": _python, "typescript": _typescript, "go": _go}


def main() -> None:
    """Write the package that the command line names; nothing is left of one that could not be built."""
    parser = argparse.ArgumentParser(description="Build a client package from the contract.")
    parser.add_argument("language", choices=GENERATORS)
    parser.add_argument("directory", type=Path, help="where to write it; must not exist")
    given = parser.parse_args()
    if given.directory.exists():
        parser.error(f"{given.directory} exists")
    try:
        generate(given.language, given.directory)
    except BaseException:
        shutil.rmtree(given.directory, ignore_errors=True)
        raise


if __name__ == "__main__":
    main()
