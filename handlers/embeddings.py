"""`POST /v1/embeddings`."""

from typing import Any

import orjson

from service.api.http.caller import Caller
from service.api.http.chat_request import parse_idempotency_key
from service.api.http.connexion_app import current_gateway, current_request
from service.api.http.embedding_request import parse_embedding_request, to_embedding_list
from service.api.http.http_response import REPLAYED, Response, ok_response
from service.gateway.embedding import find_agent


def create_embedding(body: dict[str, Any]) -> Response:
    """Make a vector of each input."""
    gateway = current_gateway()
    with Caller(current_request().environ) as caller, caller.work:
        task = parse_embedding_request(body, caller)
        key = parse_idempotency_key({"operation": "embedding", **body}, caller.environ)
        lease = gateway.lease()
        caller.entry.agent = find_agent(task, lease).id
        found, is_repeated = gateway.embedder.create(task, key, lease)
    answer = orjson.dumps(to_embedding_list(found, body))
    return ok_response("application/json", answer, *([REPLAYED] if is_repeated else ()))
