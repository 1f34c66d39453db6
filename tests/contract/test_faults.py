"""Seeded faults: fuzzing must find each with the checks intended for it.

A fault may fail several checks: a missing header fails Schemathesis' check of headers and the project's check of whole
responses. Each fault names all checks that fail, and no other check may.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
    Fault("no-authentication", "GET /v1/models", ("ignored_auth", "missing_required_header")),
    Fault("temperature-without-maximum", COMPLETION, ("negative_data_rejection",)),
    Fault("top-p-at-most-one-half", COMPLETION, ("positive_data_acceptance",)),
    Fault(
        "other-status",
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
    Fault("sniffing-allowed", "GET /healthz", ("response_headers_conformance", "contract_conformance")),
    Fault("undocumented-header", "GET /healthz", ("contract_conformance",)),
    Fault("method-answered", "GET /healthz", ("unsupported_method",)),
    Fault("no-allow", "GET /healthz", ("unsupported_method", "contract_conformance")),
    Fault("false-allow", "GET /healthz", ("allow_header_conformance",)),
)


@contextmanager
def faulty_gateway(name: str, directory: Path) -> Iterator[str]:
    """Run the gateway with the fault `name` in a separate process; yields its address."""
    directory.mkdir(parents=True)
    (directory / "openclaw.json").write_bytes(orjson.dumps(contract_config()))
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("OPENCLAW_")},
        "OPENCLAW_CONFIG_PATH": str(directory / "openclaw.json"),
        "OPENCLAW_STATE_DIR": str(directory / "state"),
    }
    command = [sys.executable, "-m", "gevent.monkey", str(Path(__file__).with_name("faulty_gateway.py")), name]
    with (
        (directory / "log.txt").open("wb") as log,
        subprocess.Popen(command, cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=log) as process,
    ):
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        try:
            assert url, f"the gateway did not start:\n{(directory / 'log.txt').read_text()}"
            yield url
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def fuzzed(url: str, operation: str, seed: int, *, streaming: bool) -> Outcome:
    document = to_openapi_3_0(load_contract())
    phases = GENERATED if streaming else PHASES  # every stream shows a fault of streams
    return fuzz(Plan(url, document, TOKEN, seed, EXAMPLES, phases, (operation,), streaming=streaming))


def broken_promises(url: str, state_dir: Path) -> set[str]:
    """Try what named keys must not be able to do, and return what they can."""
    found = set[str]()
    limited, key_id = create_key(state_dir, limits=RateLimits(2))
    (owner, _), (stranger, _), (reader, _) = (create_key(state_dir, scope) for scope in ("write", "write", "read"))

    def client(key: str) -> httpx.Client:
        return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60)

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
def test_fault_of_keys_is_found(fault: str, promises: set[str], tmp_path: Path) -> None:
    with faulty_gateway(fault, tmp_path / "gateway") as url:
        assert broken_promises(url, tmp_path / "gateway" / "state") == promises


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_is_found_by_its_checks(fault: Fault, tmp_path: Path, seed: int) -> None:
    with faulty_gateway(fault.name, tmp_path / "gateway") as url:
        outcome = fuzzed(url, fault.operation, seed, streaming=fault.streaming)
    assert set(outcome.failures) == set(fault.checks), outcome.report()


@pytest.mark.parametrize(("operation", "streaming"), sorted({(fault.operation, fault.streaming) for fault in FAULTS}))
def test_run_without_fault_passes(operation: str, streaming: bool, tmp_path: Path, seed: int) -> None:
    with faulty_gateway("none", tmp_path / "gateway") as url:
        outcome = fuzzed(url, operation, seed, streaming=streaming)
    assert not outcome.failures, outcome.report()
