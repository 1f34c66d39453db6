"""The served documents, read by linters and generators of clients: none may find anything.

Faults are put into a document to show that each of the project's own rules finds its fault.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from service.api.http.contract import load_contract
from service.api.http.published_contract import to_openapi_3_0, to_openapi_3_1, to_openapi_3_2
from service.api.websocket.asyncapi import encode_asyncapi

HERE = Path(__file__).parent
DERIVE = {"3.0": to_openapi_3_0, "3.1": to_openapi_3_1, "3.2": to_openapi_3_2}
CHAT = "/v1/chat/completions"
#: What a generator says of every document that has such schemas.
COMMON = re.compile(
    r"Failed to get the schema name: null"  # a `oneOf` with a plain type
    r"|(?:string|bool|int32|float32) \(reserved word\) cannot be used as model name"  # likewise, in Go
    r"|From \(reserved word\) cannot be used as model name"  # the field `from`, in Python
    r"|Codegen property is null \(e\.g\. map/dict of undefined type\)"  # objects with any fields
    r"|Ignoring complex example on request body"  # in the README that it writes
)


def run(*command: str | Path, directory: Path, status: int = 0) -> str:
    """Run a program, and return all that it prints."""
    ended = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=600, check=False)
    printed = ended.stdout + ended.stderr
    assert ended.returncode == status, printed
    return printed


def node(package: str, script: str) -> tuple[str, str]:
    """The command of a program from npm; skips the test where that could not be installed."""
    path = Path(os.environ["OPENCLAW_LINT_DIR"], "node_modules", package, script)
    if not path.exists():
        pytest.skip(f"{package} is not installed: the registry of npm could not be reached")
    return os.environ["OPENCLAW_LINT_NODE"], str(path)


#: The severity of warnings, above that of errors, in the diagnostics of Spectral and AsyncAPI's parser.
WARNING = 1
SPECTRAL = ("@stoplight/spectral-cli", "dist/index.js")


@pytest.fixture(params=DERIVE)
def document(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "openapi.json"
    path.write_bytes(orjson.dumps(DERIVE[request.param](load_contract())))
    return path


def test_spectral_finds_nothing(document: Path) -> None:
    printed = run(*node(*SPECTRAL), "lint", document, "-r", HERE / "spectral.yaml", directory=document.parent)
    assert printed.strip() == "No results with a severity of 'error' found!"


def test_redocly_finds_nothing(document: Path) -> None:
    command: list[str | Path] = [
        *node("@redocly/cli", "bin/cli.js"),
        "lint",
        document,
        "--config",
        HERE / "redocly.yaml",
    ]
    printed = run(*command, "--format", "json", directory=document.parent)
    assert orjson.loads(printed[printed.index("{") : printed.rindex("}") + 1])["totals"] == {
        "errors": 0,
        "warnings": 0,
        "ignored": 0,
    }


def test_redocly_and_spectral_find_nothing_in_flows(tmp_path: Path) -> None:
    flows = HERE.parents[1] / "docs" / "flows.arazzo.yaml"
    (tmp_path / "redocly.yaml").write_text("extends: [recommended]\n")
    (tmp_path / "spectral.yaml").write_text("extends: ['spectral:arazzo']\n")
    command: list[str | Path] = [*node("@redocly/cli", "bin/cli.js"), "lint", flows, "--format", "json"]
    printed = run(*command, "--config", "redocly.yaml", directory=tmp_path)
    assert '"warnings": 0' in printed
    assert "No results" in run(*node(*SPECTRAL), "lint", flows, "-r", "spectral.yaml", directory=tmp_path)


@pytest.fixture
def asyncapi(tmp_path: Path) -> Path:
    path = tmp_path / "asyncapi.json"
    path.write_bytes(encode_asyncapi(load_contract()["info"]["version"]))
    return path


def parse_asyncapi(path: Path) -> tuple[list[str], int]:
    """Return the errors and warnings of AsyncAPI's own parser, and how many operations it found."""
    program, _ = node("@asyncapi/parser", "package.json")
    script = HERE / "parse_asyncapi.cjs"
    printed = orjson.loads(run(program, script, os.environ["OPENCLAW_LINT_DIR"], path, directory=path.parent))
    return [str(one["code"]) for one in printed["diagnostics"] if one["severity"] <= WARNING], printed["operations"]


def test_asyncapi_parser_finds_nothing(asyncapi: Path) -> None:
    operations = orjson.loads(asyncapi.read_bytes())["operations"]
    assert parse_asyncapi(asyncapi) == ([], len(operations))


def test_asyncapi_parser_finds_a_fault(asyncapi: Path) -> None:
    document = orjson.loads(asyncapi.read_bytes())
    document["operations"]["health"]["messages"] = [{"$ref": "#/channels/gateway/messages/nothing"}]
    asyncapi.write_bytes(orjson.dumps(document))
    assert "invalid-ref" in parse_asyncapi(asyncapi)[0]


def test_spectral_finds_nothing_in_asyncapi(asyncapi: Path) -> None:
    # Each operator has an address of its own, which the document cannot know.
    rules = "extends: ['spectral:asyncapi']\nrules: {asyncapi-info-contact-properties: off}\n"
    (asyncapi.parent / "spectral.yaml").write_text(rules)
    command: list[str | Path] = [*node(*SPECTRAL), "lint", asyncapi, "-r", "spectral.yaml", "--fail-severity", "warn"]
    assert "(0 errors, 0 warnings" in run(*command, directory=asyncapi.parent)


def test_types_for_typescript_are_generated_without_warnings(document: Path) -> None:
    here = document.parent
    printed = run(*node("openapi-typescript", "bin/cli.js"), document, "-o", "gateway.d.ts", directory=here)
    assert "⚠" not in printed
    printed = run(*node("@hey-api/openapi-ts", "bin/run.js"), "-i", document, "-o", "client", directory=here)
    assert not re.search("warn|error|skip", printed.replace(str(document), ""), re.IGNORECASE), printed


@pytest.mark.parametrize("language", ["python", "go", "typescript-fetch", "java"])
def test_openapi_generator_has_no_warning_of_its_own(language: str, tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_bytes(orjson.dumps(to_openapi_3_0(load_contract())))
    command: list[str | Path] = [Path(sys.executable).with_name("openapi-generator-cli"), "generate", "-g", language]
    printed = run(*command, "-i", "openapi.json", "-o", "out", directory=tmp_path)
    warnings = [line for line in printed.splitlines() if re.search(r" WARN | ERROR ", line)]
    assert [line for line in warnings if not COMMON.search(line)] == []
    assert any((tmp_path / "out").rglob("*[cC]hat*ompletion*"))


def _rename(document: Any) -> None:
    document["paths"][CHAT]["post"]["operationId"] = "chatCompletion"


def _without_error(document: Any) -> None:
    del document["paths"][CHAT]["post"]["responses"]["413"], document["paths"][CHAT]["post"]["responses"]["431"]


def _without_401(document: Any) -> None:
    del document["paths"]["/v1/models"]["get"]["responses"]["401"]


def _without_header(document: Any) -> None:
    del document["paths"][CHAT]["post"]["responses"]["200"]["headers"]["x-request-id"]


def _without_link(document: Any) -> None:
    del document["components"]["responses"]["Conflict"]["headers"]["Link"]


def _repeat(document: Any) -> None:
    schemas = document["components"]["schemas"]
    schemas["Run"]["properties"]["webhook"] = schemas["Webhook"]


@pytest.mark.parametrize(
    ("rule", "seed"),
    [
        ("operation-id-verb-noun", _rename),
        ("operation-lists-its-errors", _without_error),
        ("protected-operation-lists-401", _without_401),
        ("response-lists-its-headers", _without_header),
        ("error-links-its-page", _without_link),
        ("nothing-inline-twice", _repeat),
    ],
)
def test_own_rule_finds_its_fault(rule: str, seed: Callable[[Any], None], tmp_path: Path) -> None:
    document = orjson.loads(orjson.dumps(to_openapi_3_0(load_contract())))
    seed(document)
    (tmp_path / "openapi.json").write_bytes(orjson.dumps(document))
    command: list[str | Path] = [
        *node(*SPECTRAL),
        "lint",
        "openapi.json",
        "-r",
        HERE / "spectral.yaml",
        "--format",
        "json",
    ]
    printed = run(*command, directory=tmp_path, status=1)
    assert {found["code"] for found in orjson.loads(printed)} == {rule}
