"""A Schemathesis check that validates whole responses against the contract.

Schemathesis accepts undocumented headers and does not validate the data of stream events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import httpx
import schemathesis
from schemathesis import Case, CheckContext, Response
from schemathesis.checks import CHECKS
from support.conformance import Conformance, check_resumed_stream, check_run_events, check_stream

from contract.steering import CHAT_STREAM
from service.core.errors import GatewayError


def conformance_check(document: Mapping[str, Any]) -> Callable[[CheckContext, Response, Case[Any]], bool | None]:
    """A check that holds whole answers against `document`."""
    conformance = Conformance(dict(document))

    def contract_conformance(context: CheckContext, response: Response, case: Case[Any]) -> bool | None:
        del context
        try:
            conformance.check(_to_httpx(response))
            if case.operation.label == CHAT_STREAM and response.status_code == HTTPStatus.OK:
                _check_resumed(conformance, response)
        except (GatewayError, ValueError) as fault:
            raise AssertionError(str(fault)) from fault
        return None

    return contract_conformance


def _check_resumed(conformance: Conformance, response: Response) -> None:
    """Compare a resumed stream of a run that has ended with its events."""
    url = httpx.URL(str(response.request.url))
    run_id = unquote(url.path.split("/")[-2])
    headers = {"Authorization": str(response.request.headers["Authorization"])}
    events = httpx.get(url.copy_with(path=url.path.replace("/chat-stream", "/events"), query=None), headers=headers)
    data = check_stream(conformance, response.content.decode())
    after = int(url.params.get("after", 0))
    check_resumed_stream(data, run_id, check_run_events(conformance, events.text), after)


def _to_httpx(response: Response) -> httpx.Response:
    headers = [(name, value) for name, values in response.headers.items() for value in values]
    seen = str(response.request.headers.get("Last-Event-ID", ""))
    sent = {"Last-Event-ID": seen} if seen.isdecimal() and seen.isascii() else {}
    request = httpx.Request(str(response.request.method), str(response.request.url), headers=sent)
    return httpx.Response(response.status_code, headers=headers, content=response.content, request=request)


@contextmanager
def registered(check: Callable[[CheckContext, Response, Case[Any]], bool | None]) -> Iterator[None]:
    """Run `check` on every answer of every run in this block."""
    schemathesis.check(check)
    try:
        yield
    finally:
        CHECKS.unregister(check.__name__)
