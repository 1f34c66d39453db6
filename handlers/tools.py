"""`/v1/tools` and `/tools/invoke`: the agents' tools, used by callers themselves."""

from typing import Any

import orjson

from service.api.http.caller import Caller, delivery_headers
from service.api.http.connexion_app import current_gateway, current_principal, current_request
from service.api.http.http_response import Response, ok_response
from service.api.http.tool_request import in_invocation_terms, parse_invocation, to_tool_list
from service.core.errors import GatewayError
from service.gateway.tool_invocation import list_tools as list_tools_of


def list_tools(agent: str | None = None) -> Response:
    """List the tools of an agent that callers may call."""
    gateway = current_gateway()
    try:
        listed = to_tool_list(*list_tools_of(gateway.lease(), agent, current_principal()))
    except GatewayError as error:
        error.param = "agent"
        raise
    return ok_response("application/json", orjson.dumps(listed, default=dict))


def create_tool_call(body: dict[str, Any]) -> Response:
    """Call a tool of an agent and return its result."""
    gateway = current_gateway()
    with Caller(current_request().environ) as caller:
        try:
            run = caller.submit(gateway, parse_invocation(body, caller))
            result = run.wait()
        except GatewayError as error:
            raise in_invocation_terms(error) from None
        answer = {"ok": True, "result": {"content": [{"type": "text", "text": result.text}]}}
    return ok_response("application/json", orjson.dumps(answer), *delivery_headers(run))
