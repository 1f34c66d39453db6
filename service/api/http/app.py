"""The HTTP door as a WSGI application: Connexion binds the contract's operations to `handlers/`, on Flask.

Refusals come in a fixed order: a proxy's headers or a foreign host (403), no such path (404), no such method (405),
the endpoint switched off (404), credentials (401, 429), the body's type (415) and size (413), then the contract (400).
The body is not touched before the caller is known.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flask
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from service.api.auth import Authenticator
from service.api.client_address import ClientAddresses, check_host
from service.api.http.connexion_app import BODY_KEY, Api, Application, current_request, environ_key
from service.api.http.contract import to_served_document
from service.api.http.lean_connexion import ProblemException
from service.api.http.responses import Response, error_response
from service.api.http.schema_validation import CompiledSchema
from service.core.errors import GatewayError, forget_frames, internal_error
from service.gateway.gateway import Gateway

logger = logging.getLogger("openclaw.http")

MAX_BODY_BYTES = 20 * 1024 * 1024
_INTEGER = re.compile(r"-?[0-9]{1,18}")
ENABLING_KEY = "gateway.http.endpoints.chatCompletions.enabled"
_JSON = "application/json"


@dataclass(slots=True)
class HttpSettings:
    """What the HTTP door needs besides the Gateway: who may come in, what is open, what the contract is.

    `authenticator` is None when no authentication is configured; then only loopback host names are served. An edit of
    the configuration changes what is here while requests come in.
    """

    gateway: Gateway
    document: dict[str, Any]
    authenticator: Authenticator | None
    addresses: ClientAddresses
    completions_enabled: bool


def create_app(door: HttpSettings) -> flask.Flask:
    """The application; the handlers find the Gateway and the served contract in its `extensions`."""
    app = Application(_Admission(door))
    app.extensions["gateway"] = door.gateway
    app.extensions["served_document"] = to_served_document(door.document)
    validators = {
        "body": functools.partial(_BodyValidator, door.document),
        "parameter": functools.partial(_ParameterValidator, door.document),
    }
    app.register_blueprint(Api(door.document, validators).blueprint)
    app.register_error_handler(Exception, _to_reply)  # type: ignore[arg-type]  # a WSGI application is taken, too
    return app


class _Admission:
    """Lets a request in, or raises.

    Leaves the principal in `g.principal` and the body in the environ, `None` where the contract asks for none.
    """

    def __init__(self, door: HttpSettings) -> None:
        self._door = door
        operations = {
            f"/.handlers_{operation['x-openapi-router-controller'].rpartition('.')[2]}_{operation['operationId']}": (
                operation
            )
            for item in door.document["paths"].values()
            for operation in item.values()
        }
        self._public = {name for name, operation in operations.items() if operation.get("security") == []}
        self._with_body = {name for name, operation in operations.items() if "requestBody" in operation}

    def __call__(self) -> None:
        request, door = current_request(), self._door
        environ = request.environ
        address = door.addresses.check(environ.get("REMOTE_ADDR", ""), environ)
        environ.setdefault("openclaw.log", {})["client"] = address
        if door.authenticator is None:
            check_host(environ.get("HTTP_HOST"))
        _check_route(request)
        public = request.endpoint in self._public
        if not (door.completions_enabled or public):
            text = f"The OpenAI-compatible endpoint is switched off. Set {ENABLING_KEY} to true in the configuration."
            raise GatewayError("endpoint_disabled", text)
        if not public and door.authenticator is not None:
            flask.g.principal = door.authenticator.check(environ.get("HTTP_AUTHORIZATION"), address)
        environ[BODY_KEY] = _read_body(request, environ) if request.endpoint in self._with_body else None


def _check_route(request: flask.Request) -> None:
    if request.routing_exception is not None:
        raise request.routing_exception
    if request.environ["PATH_INFO"].startswith("//"):  # the router forgives it; the contract does not
        raise _not_found()
    if request.method == "HEAD":  # the router adds it to every GET; the contract does not have it
        adapter = flask.globals.request_ctx.url_adapter
        raise MethodNotAllowed(valid_methods=adapter.allowed_methods() if adapter else None)


def _read_body(request: flask.Request, environ: Mapping[str, Any]) -> bytes:
    if environ.get("CONTENT_TYPE") != _JSON:
        _check_media_type(request)
    body = b""
    announced = int(environ.get("CONTENT_LENGTH", 0))
    if announced <= MAX_BODY_BYTES:
        body = environ["wsgi.input"].read(MAX_BODY_BYTES + 1)
    if max(announced, len(body)) > MAX_BODY_BYTES:
        raise GatewayError("request_too_large", f"The body is larger than {MAX_BODY_BYTES} bytes (20 MiB).")
    return body


def _check_media_type(request: flask.Request) -> None:
    if request.mimetype != _JSON:
        text = "The body must be JSON. Send the header Content-Type: application/json."
        raise GatewayError("unsupported_media_type", text, param="content-type")
    if request.mimetype_params.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        text = "The body must be UTF-8. Send the header Content-Type: application/json."
        raise GatewayError("unsupported_media_type", text, param="content-type")


class _BodyValidator:
    """Connexion's place for checking bodies, filled with the compiled schema."""

    def __init__(self, document: Mapping[str, Any], schema: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        del args, kwargs
        self._schema = CompiledSchema(schema, document)

    def __call__(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        @functools.wraps(function)
        def checked(request: Any) -> Any:
            self._schema.check(request.json)
            return function(request)

        return checked


class _ParameterValidator:
    """Connexion's place for checking parameters: headers, path and query, each with its compiled schema."""

    def __init__(
        self, document: Mapping[str, Any], parameters: list[dict[str, Any]], *args: Any, **kwargs: Any
    ) -> None:
        del args, kwargs
        compiled = [(one["in"], one["name"], CompiledSchema(one["schema"], document)) for one in parameters]
        self._headers = [(environ_key(name), name, schema) for place, name, schema in compiled if place == "header"]
        self._path = [(name, schema) for place, name, schema in compiled if place == "path"]
        declared = {one["name"]: one["schema"] for one in parameters}
        self._query = [(name, declared[name], schema) for place, name, schema in compiled if place == "query"]

    def __call__(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        @functools.wraps(function)
        def checked(request: Any) -> Any:
            for name, schema in self._path:
                if not schema.is_valid(request.path_params[name]):
                    raise _not_found()
            for key, name, schema in self._headers:
                value = request.headers.get(key)
                if value is not None:
                    schema.check(value, name)
            for name, declared, schema in self._query:
                values = flask.request.args.getlist(name)
                if len(values) > 1:
                    raise GatewayError("invalid_value", f"`{name}` is given {len(values)} times.", param=name)
                if values:
                    request.query[name] = _to_json_value(values[0], declared["type"])
                    schema.check(request.query[name], name)
                elif "default" in declared:
                    request.query[name] = declared["default"]
            return function(request)

        return checked


def _to_json_value(text: str, kind: str) -> object:
    """What `text` means where the contract has a `kind`; the text itself where it cannot mean one."""
    if kind == "integer" and _INTEGER.fullmatch(text):
        return int(text)
    if kind == "boolean" and text in ("true", "false"):
        return text == "true"
    return text


def _not_found() -> GatewayError:
    return GatewayError(
        "not_found", "There is nothing at this path. The contract at /openapi.json lists what there is."
    )


def _to_reply(exception: Exception) -> Response:
    error = _to_gateway_error(exception)
    forget_frames(exception)
    current_request().environ.setdefault("openclaw.log", {})["error"] = error.code
    return error_response(error)


def _to_gateway_error(exception: Exception) -> GatewayError:
    if isinstance(exception, GatewayError):
        return exception
    if isinstance(exception, NotFound):
        return _not_found()
    if isinstance(exception, MethodNotAllowed):
        methods = ", ".join(sorted(set(exception.valid_methods or ()) - {"HEAD", "OPTIONS"}))
        text = f"This path does not have the method {flask.request.method}. It has {methods}."
        return GatewayError("method_not_allowed", text, headers={"Allow": methods})
    if isinstance(exception, ProblemException) and exception.status == 401:  # noqa: PLR2004  # Connexion's own check
        text = "Send the gateway's token in the header Authorization: Bearer <token>."
        return GatewayError("missing_credentials", text, headers={"WWW-Authenticate": "Bearer"})
    if isinstance(exception, HTTPException) and exception.code == 400:  # noqa: PLR2004  # Werkzeug's own checks
        return GatewayError("malformed_request", "The request is malformed.")
    logger.error("a request failed", exc_info=exception)
    return internal_error()
