"""`/openapi.json` and `/openapi.yaml`: the contract, as this gateway serves it."""

import orjson
import yaml
from flask import current_app

from service.api.http.responses import Response, ok_reply


def get_contract_json() -> Response:
    """The contract as JSON."""
    document = current_app.extensions["served_document"]
    return ok_reply("application/json", orjson.dumps(document))


def get_contract_yaml() -> Response:
    """The contract as YAML, without aliases so that every reader understands it."""
    extensions = current_app.extensions
    if "served_yaml" not in extensions:  # made once: it takes 40 ms, and nobody has to say who asks
        document = orjson.loads(orjson.dumps(extensions["served_document"]))  # no shared parts, no aliases
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
        extensions["served_yaml"] = text.encode()
    return ok_reply("text/yaml; charset=utf-8", extensions["served_yaml"])
