"""A Schemathesis check that validates whole responses against the contract.

Schemathesis accepts undocumented headers and does not validate the data of stream events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import schemathesis
from schemathesis import Case, CheckContext, Response
from schemathesis.checks import CHECKS
from support.conformance import Conformance

from service.core.errors import GatewayError


def conformance_check(document: Mapping[str, Any]) -> Callable[[CheckContext, Response, Case[Any]], bool | None]:
    """A check that holds whole answers against `document`."""
    conformance = Conformance(dict(document))

    def contract_conformance(context: CheckContext, response: Response, case: Case[Any]) -> bool | None:
        del context, case
        try:
            conformance.check(_to_httpx(response))
        except (GatewayError, ValueError) as fault:
            raise AssertionError(str(fault)) from fault
        return None

    return contract_conformance


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
