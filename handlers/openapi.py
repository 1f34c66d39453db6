"""`/openapi.json` and `/openapi.yaml`: the served contract."""

import orjson
import yaml
from flask import current_app

from service.api.http.responses import Response, ok_response


def get_contract_json() -> Response:
    """Return the contract as JSON."""
    document = current_app.extensions["served_document"]
    return ok_response("application/json", orjson.dumps(document))


def get_contract_yaml() -> Response:
    """Return the contract as YAML, without aliases, which some parsers do not support."""
    extensions = current_app.extensions
    if "served_yaml" not in extensions:  # cached: encoding takes 40 ms
        document = orjson.loads(orjson.dumps(extensions["served_document"]))  # unshares nodes, hence no aliases
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
        extensions["served_yaml"] = text.encode()
    return ok_response("text/yaml; charset=utf-8", extensions["served_yaml"])
