"""`POST /v1/chat/completions`."""

from __future__ import annotations

from typing import Any

import orjson

from service.api.http.caller import Caller, WatchedStream, run_headers
from service.api.http.chat_request import asks_to_go_on, includes_cost, parse_chat_request
from service.api.http.chat_response import ChunkStream, to_completion
from service.api.http.connexion_app import current_gateway, current_request
from service.api.http.file_parts import has_files, with_file_texts
from service.api.http.http_response import NO_BUFFERING, Response, ok_response
from service.api.http.webhook_request import check_webhook

_DEFAULT_MODEL = "openclaw"


def create_chat_completion(body: dict[str, Any]) -> Response:
    """Run an agent and answer with its reply, whole or as a stream."""
    gateway = current_gateway()
    with Caller(current_request().environ) as caller:
        if has_files(body["messages"]):
            with caller.work:
                messages = with_file_texts(body["messages"], "messages", gateway.lease().runtime.files)
            body = {**body, "messages": messages}
        request = parse_chat_request(body, caller.environ, gateway.http, caller.principal)
        if request.webhook is not None:
            check_webhook(request.webhook, gateway.webhooks.client)
        run = caller.submit(gateway, request)
        model = body.get("model") or _DEFAULT_MODEL
        include_cost = includes_cost(body)
        if body.get("stream"):
            include_usage = include_cost or bool((body.get("stream_options") or {}).get("include_usage"))
            chunks = ChunkStream(
                run,
                model,
                include_usage=include_usage,
                include_cost=include_cost,
                shows=request.shows,
                offer=caller.offer,
            )
            if not asks_to_go_on(caller.environ):
                chunks.begin()
            return ok_response("text/event-stream", WatchedStream(run, chunks, caller), *run_headers(run), NO_BUFFERING)
        result = run.wait()
        metadata = body.get("metadata")
        completion = to_completion(
            run, result, model, shows=request.shows, metadata=metadata, include_cost=include_cost
        )
    return ok_response("application/json", orjson.dumps(completion), *run_headers(run))
