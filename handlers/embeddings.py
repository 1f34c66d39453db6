"""`POST /v1/embeddings`."""

from typing import Any

import orjson
from flask import current_app

from service.api.http.caller import Caller
from service.api.http.connexion_app import current_request
from service.api.http.embedding_request import parse_embedding_request, to_embedding_list
from service.api.http.responses import Response, ok_response
from service.gateway.embedding import create_embeddings
from service.gateway.gateway import Gateway


def create_embedding(body: dict[str, Any]) -> Response:
    """Make a vector of each input."""
    gateway: Gateway = current_app.extensions["gateway"]
    with Caller(current_request().environ) as caller, caller.work:
        task = parse_embedding_request(body, caller)
        found = create_embeddings(task, gateway.lease(), gateway.limiter)
    return ok_response("application/json", orjson.dumps(to_embedding_list(found, body)))
