"""Seeded faults: fuzzing must find each with the checks intended for it.

Faults are of two sorts: those of one operation, and those of a kind (a status, a header, an order of events) that every
operation has to which the kind applies, by the contract. A fault may fail several checks: a missing header fails
Schemathesis' check of headers and the project's check of whole responses. Each fault of one operation names all checks
that fail, and no other check may.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from support.api_keys import create_key, open_keys
from support.chat import PATH, user
from support.live import TOKEN

from contract.fuzzing import GENERATED, PHASES, Outcome, Plan, fuzz
from contract.seeds import contract_config
from contract.steering import (
    APPROVALS,
    CALL_TOOL,
    CHAT_STREAM,
    COMPLETION,
    DECIDE_APPROVAL,
    EMBEDDINGS,
    INPUT_ITEMS,
    RESPONSE,
    RUN_EVENTS,
    TOOLS,
)
from service.api.http.contract import load_contract
from service.api.http.published_contract import to_openapi_3_0
from service.core.rate_limits import RateLimits

EXAMPLES = 8
#: For a run of every operation: enough for each to succeed once.
FEW_EXAMPLES = 4
HELLO = {"messages": [user("hello")]}
STOP_SECONDS = 20


@dataclass(frozen=True)
class Fault:
    """A fault of `faulty_gateway.py`, the affected operation, and the checks that find it."""

    name: str
    operation: str
    checks: tuple[str, ...]
    streaming: bool = False


FAULTS = (
    Fault("auth", "GET /v1/models", ("ignored_auth", "missing_required_header")),
    Fault("temperature-without-maximum", COMPLETION, ("negative_data_rejection",)),
    Fault("top-p-at-most-one-half", COMPLETION, ("positive_data_acceptance",)),
    Fault(
        "status",
        "GET /healthz",
        ("status_code_conformance", "positive_data_acceptance", "contract_conformance"),
    ),
    Fault("other-content-type", "GET /healthz", ("content_type_conformance", "contract_conformance")),
    Fault(
        "plain-text-500",
        "GET /healthz",
        (
            *("not_a_server_error", "positive_data_acceptance", "content_type_conformance"),
            *("response_headers_conformance", "contract_conformance"),
        ),
    ),
    Fault("envelope-without-param", "GET /healthz", ("response_schema_conformance", "contract_conformance")),
    Fault("message-without-refusal", COMPLETION, ("response_schema_conformance", "contract_conformance")),
    Fault("chunk-of-another-object", COMPLETION, ("response_schema_conformance", "contract_conformance"), True),
    Fault("stream-without-done", COMPLETION, ("response_schema_conformance", "contract_conformance"), True),
    Fault("chunk-that-is-not-json", COMPLETION, ("response_schema_conformance", "contract_conformance"), True),
    Fault("usage-without-cost", "GET /v1/usage", ("response_schema_conformance", "contract_conformance")),
    Fault("approval-without-arguments", APPROVALS, ("response_schema_conformance", "contract_conformance")),
    Fault("decision-without-decider", DECIDE_APPROVAL, ("response_schema_conformance", "contract_conformance")),
    Fault("tool-without-parameters", TOOLS, ("response_schema_conformance", "contract_conformance")),
    Fault("result-without-text", CALL_TOOL, ("response_schema_conformance", "contract_conformance")),
    Fault("vectors-without-index", EMBEDDINGS, ("response_schema_conformance", "contract_conformance")),
    Fault("response-without-usage", RESPONSE, ("response_schema_conformance", "contract_conformance")),
    Fault("input-without-last-id", INPUT_ITEMS, ("response_schema_conformance", "contract_conformance")),
    Fault("response-event-missing", RESPONSE, ("contract_conformance",), True),
    Fault("response-with-two-ends", RESPONSE, ("contract_conformance",), True),
    Fault("response-event-misnamed", RESPONSE, ("contract_conformance",), True),
    Fault("event-missing", RUN_EVENTS, ("contract_conformance",)),
    Fault("event-repeated", RUN_EVENTS, ("contract_conformance",)),
    Fault("two-ends", RUN_EVENTS, ("contract_conformance",)),
    Fault("other-event-id", RUN_EVENTS, ("contract_conformance",)),
    Fault("event-without-text", RUN_EVENTS, ("contract_conformance",)),
    Fault("resumed-chunk-missing", CHAT_STREAM, ("contract_conformance",)),
    Fault("resumed-chunk-repeated", CHAT_STREAM, ("contract_conformance",)),
    Fault("resumed-chunk-with-other-text", CHAT_STREAM, ("contract_conformance",)),
    Fault("resumed-chunk-with-other-number", CHAT_STREAM, ("contract_conformance",)),
    Fault("resumed-chunk-of-another-run", CHAT_STREAM, ("contract_conformance",)),
    Fault("resumed-stream-with-two-ends", CHAT_STREAM, ("contract_conformance",)),
    Fault("page-without-policy", "GET /", ("response_headers_conformance", "contract_conformance")),
    Fault("script-as-text", "GET /ui/{asset}", ("content_type_conformance", "contract_conformance")),
    Fault("no-cache-control", "GET /healthz", ("response_headers_conformance", "contract_conformance")),
    Fault("header", "GET /healthz", ("response_headers_conformance", "contract_conformance")),
    Fault("undocumented-header", "GET /healthz", ("contract_conformance",)),
    Fault("method-answered", "GET /healthz", ("unsupported_method",)),
    Fault("no-allow", "GET /healthz", ("unsupported_method", "contract_conformance")),
    Fault("false-allow", "GET /healthz", ("allow_header_conformance",)),
)


#: Kinds of faults, and the checks that find one in each operation that can have it.
KINDS = {
    "status": {"status_code_conformance", "contract_conformance"},
    "header": {"response_headers_conformance", "contract_conformance"},
    "type": {"content_type_conformance", "contract_conformance"},
    "body": {"response_schema_conformance", "contract_conformance"},
    "event": {"contract_conformance"},
    "order": {"contract_conformance"},
    "auth": {"ignored_auth"},
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faulty")


@pytest.fixture(scope="module")
def url(directory: Path) -> Iterator[str]:
    """The address of a gateway, in a process of its own, whose faults are chosen by each request."""
    (directory / "openclaw.json").write_bytes(orjson.dumps(contract_config()))
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("OPENCLAW_")},
        "OPENCLAW_CONFIG_PATH": str(directory / "openclaw.json"),
        "OPENCLAW_STATE_DIR": str(directory / "state"),
    }
    command = [sys.executable, "-m", "gevent.monkey", str(Path(__file__).with_name("faulty_gateway.py"))]
    with (
        (directory / "log.txt").open("wb") as log,
        subprocess.Popen(command, cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=log) as process,
    ):
        assert process.stdout is not None
        address = process.stdout.readline().decode().strip()
        try:
            assert address, f"the gateway did not start:\n{(directory / 'log.txt').read_text()}"
            yield address
        finally:
            process.terminate()
            time.sleep(1)
            process.terminate()  # aborts the runs that were left behind
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="module")
def contract() -> dict[str, Any]:
    return to_openapi_3_0(load_contract())


def has_kind(kind: str, label: str, document: Mapping[str, Any]) -> bool:
    """Return True if the contract has what a fault of `kind` breaks in the operation `label`."""
    content = content_of(label, document)
    match kind:
        case "type":
            return bool(content)
        case "body":
            return not content.isdisjoint({"application/json", "text/event-stream"})
        case "event" | "order":
            return "text/event-stream" in content
        case "auth":
            return bool(operation_of(label, document).get("security", document["security"]))
    return True


def checks_of(kind: str, label: str, document: Mapping[str, Any]) -> set[str]:
    """Return the checks that find a fault of `kind` in an operation: Schemathesis itself reads no events."""
    is_stream = content_of(label, document) == {"text/event-stream"}
    return KINDS[kind] - {"response_schema_conformance"} if is_stream else KINDS[kind]


def operation_of(label: str, document: Mapping[str, Any]) -> dict[str, Any]:
    method, _, path = label.partition(" ")
    operation: dict[str, Any] = document["paths"][path][method.lower()]
    return operation


def content_of(label: str, document: Mapping[str, Any]) -> set[str]:
    """Return the media types of the successes of an operation."""
    responses = operation_of(label, document)["responses"].items()
    return {kind for status, response in responses if status.startswith("2") for kind in response.get("content", {})}


def fuzzed(
    url: str, document: Mapping[str, Any], fault: str | None, operations: Sequence[str], seed: int, *, streaming: bool
) -> Outcome:
    phases = GENERATED if streaming else PHASES  # every stream shows a fault of streams
    return fuzz(Plan(url, document, TOKEN, seed, EXAMPLES, phases, operations, streaming=streaming, fault=fault))


def broken_promises(url: str, fault: str, state_dir: Path) -> set[str]:
    """Try what named keys must not be able to do, and return what they can."""
    found = set[str]()
    limited, key_id = create_key(state_dir, limits=RateLimits(2))
    (owner, _), (stranger, _), (reader, _) = (create_key(state_dir, scope) for scope in ("write", "write", "read"))

    def client(key: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}", "X-Seeded-Fault": fault}
        return httpx.Client(base_url=url, headers=headers, timeout=60)

    with client(owner) as mine, client(stranger) as other, client(reader) as read, client(limited) as few:
        key = mine.post(PATH, json=HELLO).raise_for_status().headers["x-openclaw-session-key"]
        if other.get(f"/v1/sessions/{key}").status_code != httpx.codes.NOT_FOUND:
            found.add("foreign session")
        if read.post(PATH, json=HELLO).status_code != httpx.codes.FORBIDDEN:
            found.add("missing scope")
        if [few.post(PATH, json=HELLO).status_code for _ in range(3)] != [200, 200, 429]:
            found.add("limit")
        with open_keys(state_dir) as keys:
            keys.revoke(key_id)
        time.sleep(1)  # so long a key may live on
        if few.get("/v1/models").status_code != httpx.codes.UNAUTHORIZED:
            found.add("revoked key")
    return found


@pytest.mark.parametrize(
    ("fault", "promises"),
    [
        ("none", set()),
        ("key-reads-foreign-sessions", {"foreign session"}),
        ("revoked-key-works", {"revoked key"}),
        ("limited-key-is-not-limited", {"limit"}),
        ("key-has-every-scope", {"missing scope"}),
    ],
)
def test_fault_of_keys_is_found(fault: str, promises: set[str], url: str, directory: Path) -> None:
    assert broken_promises(url, fault, directory / "state") == promises


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_is_found_by_its_checks(fault: Fault, url: str, contract: dict[str, Any], seed: int) -> None:
    outcome = fuzzed(url, contract, fault.name, (fault.operation,), seed, streaming=fault.streaming)
    assert set(outcome.failures) == set(fault.checks), outcome.report()


@pytest.mark.parametrize("kind", KINDS)
def test_fault_of_kind_is_found_in_every_operation(
    kind: str, url: str, contract: dict[str, Any], seed: int, table: Callable[[str], None]
) -> None:
    labels = [f"{method.upper()} {path}" for path, item in contract["paths"].items() for method in item]
    having = [label for label in labels if has_kind(kind, label, contract)]
    streaming = kind in ("event", "order")
    plan = Plan(url, contract, TOKEN, seed, FEW_EXAMPLES, GENERATED, having, streaming=streaming, fault=kind)
    found = fuzz(plan).failed
    lacking = {
        label: checks_of(kind, label, contract) - {check for at, check in found if at == label} for label in having
    }
    missed = {label: checks for label, checks in lacking.items() if checks}
    table(f"faults of kind {kind}: found in {len(having) - len(missed)} of {len(having)} operations")
    assert not missed


@pytest.mark.parametrize("streaming", [False, True])
def test_run_without_fault_passes(streaming: bool, url: str, contract: dict[str, Any], seed: int) -> None:
    operations = (COMPLETION, RESPONSE, RUN_EVENTS, CHAT_STREAM) if streaming else ()
    outcome = fuzz(Plan(url, contract, TOKEN, seed, FEW_EXAMPLES, GENERATED, operations, streaming=streaming))
    assert not outcome.failures, outcome.report()
