"""The HTTP API as a WSGI application: Connexion binds the contract's operations to `handlers/`, on Flask.

Requests are checked in a fixed order: forwarding headers and Host (403), path (404), method (405), disabled endpoint
(404), credentials (401, 429), scope (403), media type (415) and size (413) of the body, then the contract (400). The
body is not read before the caller is authenticated.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any

from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.http import parse_options_header

from service.api.client_address import check_host, check_origin
from service.api.http.body_limits import check_value_count
from service.api.http.connexion_app import (
    BODY_KEY,
    PRINCIPAL_KEY,
    Api,
    Application,
    Request,
    current_request,
    environ_key,
    parse_json,
)
from service.api.http.deferred_schema import DeferredSchema
from service.api.http.http_response import Response, error_response
from service.api.http.path_suggestions import explain_path, suggest_path
from service.api.http.published_contract import PublishedContract
from service.api.settings import SettingsSlot
from service.core.byte_budget import HOLD_KEY, ByteBudget, Hold
from service.core.concurrency import pause
from service.core.errors import GatewayError, clear_traceback, internal_error
from service.core.logs import access_entry
from service.core.principal import ADMINISTRATOR, Scope
from service.gateway.gateway import Gateway

logger = logging.getLogger("openclaw.http")

MAX_BODY_BYTES = 20 * 1024 * 1024

#: Memory for a body and what is made of it: the parsed request, the conversation, the request to the provider.
BODY_COPIES = 4

#: Other greenlets run between the steps of a request with a larger body.
LARGE_BODY_BYTES = 256 * 1024

_PIECE_BYTES = 1024 * 1024
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_ENABLING_KEY = "gateway.http.endpoints.{}.enabled"
_PAGE_KEYS = {"controlUi": "gateway.controlUi.enabled"}
_JSON = "application/json"

#: Beginnings of query parameters that clients of OpenAI and Azure send with any request: they change no meaning.
_IGNORED_QUERY = ("include", "api-version")


def create_app(
    gateway: Gateway, document: dict[str, Any], published: PublishedContract, settings: SettingsSlot
) -> Application:
    """Create the application for `document`, a bound contract; handlers find the Gateway in its `extensions`."""
    admission = _Admission(document, settings, gateway.budget)
    app = Application(admission, _to_error_response, _LimitHeaders(document, gateway))
    app.extensions["gateway"] = gateway
    app.extensions["contract"] = published
    api = Api(document, partial(_BodyReader, document), partial(_ArgumentReader, document))
    app.register_blueprint(api.blueprint)
    return app


class _Admission:
    """Admit a request or raise the `GatewayError` that refuses it.

    Stores the principal and the body in the environ, None for operations without one.
    """

    def __init__(self, document: Mapping[str, Any], settings: SettingsSlot, budget: ByteBudget) -> None:
        self._settings = settings
        self._budget = budget
        operations = _operations(document)
        self._public = {name for name, operation in operations.items() if operation.get("security") == []}
        self._with_body = {name for name, operation in operations.items() if "requestBody" in operation}
        self._endpoints = {
            name: operation["x-endpoint"].split(",")
            for name, operation in operations.items()
            if "x-endpoint" in operation
        }

        self._scopes = {
            name: tuple(map(Scope, operation.get("x-scope", Scope.ADMIN).split(",")))
            for name, operation in operations.items()
        }

    def __call__(self, request: Request) -> None:
        settings, environ, endpoint = self._settings.current, request.environ, request.endpoint
        address = settings.addresses.check(environ.get("REMOTE_ADDR", ""), environ)
        entry = access_entry(environ)
        entry.client = address
        entry.route = request.route
        if settings.authenticator is None:
            check_host(environ.get("HTTP_HOST"))
        _check_route(request)
        public = endpoint in self._public
        endpoints = self._endpoints.get(endpoint)
        if endpoints is not None and settings.enabled_endpoints.isdisjoint(endpoints):
            key = _PAGE_KEYS.get(endpoints[0]) or _ENABLING_KEY.format(endpoints[0])
            text = f"This endpoint is disabled. Set {key} to true in the configuration."
            raise GatewayError("endpoint_disabled", text)
        if not public and settings.authenticator is None:
            check_origin(environ, settings.allowed_origins | settings.cors_origins)
            environ[PRINCIPAL_KEY] = ADMINISTRATOR
        elif not public and settings.authenticator is not None:
            principal = None
            if settings.proxy_users is not None:
                principal = settings.find_user(environ, settings.allowed_origins | settings.cors_origins)
            if principal is None:
                principal = settings.authenticator.check(environ.get("HTTP_AUTHORIZATION"), address)
            environ[PRINCIPAL_KEY], entry.key = principal, principal.key_id or principal.owner
            principal.check_scope(*self._scopes[endpoint])
        environ[BODY_KEY] = self._read_body(environ) if endpoint in self._with_body else None

    def _read_body(self, environ: dict[str, Any]) -> bytes:
        content_type = environ.get("CONTENT_TYPE")
        if content_type != _JSON:
            _check_media_type(content_type)
        connection = environ.get("openclaw.connection")
        hold = environ[HOLD_KEY] = self._budget.hold(connection and connection.abandon)
        body = _receive(environ["wsgi.input"], int(environ.get("CONTENT_LENGTH", 0)), hold)
        check_value_count(body)
        return body


class _LimitHeaders:
    """Add the headers of limits to the responses of the operations that they concern."""

    def __init__(self, document: Mapping[str, Any], gateway: Gateway) -> None:
        self._limits = gateway.limits
        self._limited = {name for name, operation in _operations(document).items() if "x-limited" in operation}

    def __call__(self, request: Request, response: Response) -> None:
        if request.endpoint not in self._limited:
            return
        principal = request.environ.get(PRINCIPAL_KEY)
        if principal is None or not self._limits.concern(principal):
            return
        is_refusal = response.status.startswith("429") and any("x-ratelimit-" in name for name, _ in response.headers)
        if not is_refusal:  # it has its own
            agent_id = access_entry(request.environ).agent
            response.headers.extend(self._limits.headers(principal, agent_id).items())


def _operations(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the operations of the contract by the names of their endpoints."""
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    modules = [operation["x-openapi-router-controller"].rpartition(".")[2] for operation in operations]
    return {f"/.handlers_{module}_{one['operationId']}": one for module, one in zip(modules, operations, strict=True)}


def _check_route(request: Request) -> None:
    if request.environ["PATH_INFO"].startswith("//"):  # the router accepts it
        raise _not_found()
    if request.refusal is not None:
        raise request.refusal


def _receive(stream: Any, declared: int, hold: Hold) -> bytes:
    """Read a body of `declared` bytes, 0 if unknown; `hold` is what it takes up. Waits for room."""
    pieces = []
    if declared <= MAX_BODY_BYTES:
        hold.take(declared * BODY_COPIES)
        hold.begin_arrival()
        while hold.arrived_bytes <= MAX_BODY_BYTES and (piece := stream.read(_PIECE_BYTES)):
            pieces.append(piece)
            hold.arrived_bytes += len(piece)
            if hold.arrived_bytes == declared:
                break
            if hold.arrived_bytes > declared:
                hold.take(len(piece) * BODY_COPIES)
        hold.is_arriving = False
    if max(declared, hold.arrived_bytes) > MAX_BODY_BYTES:
        raise GatewayError("request_too_large", f"The body is larger than {MAX_BODY_BYTES} bytes (20 MiB).")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _check_media_type(content_type: str | None) -> None:
    media_type, parameters = parse_options_header(content_type)
    if media_type.lower() != _JSON:
        text = "The body must be JSON. Send the header Content-Type: application/json."
        raise GatewayError("unsupported_media_type", text, param="content-type")
    if parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        text = "The body must be UTF-8. Send the header Content-Type: application/json."
        raise GatewayError("unsupported_media_type", text, param="content-type")


class _BodyReader:
    """Parses and validates the bodies of an operation, by a compiled schema."""

    def __init__(self, document: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
        self._schema = DeferredSchema(schema, document)

    def __call__(self, body: bytes) -> Any:
        value = parse_json(body)
        is_large = len(body) > LARGE_BODY_BYTES
        if is_large:
            pause()
        self._schema.compiled.check(value)
        if is_large:
            pause()
        return value


class _ArgumentReader:
    """Validates the headers, the path and the query of an operation, each by a compiled schema."""

    def __init__(self, document: Mapping[str, Any], parameters: list[dict[str, Any]]) -> None:
        compiled = [(one["in"], one["name"], DeferredSchema(one["schema"], document)) for one in parameters]
        self._headers = [(environ_key(name), name, schema) for where, name, schema in compiled if where == "header"]
        self._path = [(name, schema) for where, name, schema in compiled if where == "path"]
        declared = {one["name"]: one["schema"] for one in parameters}
        self._query = [(name, declared[name], schema) for where, name, schema in compiled if where == "query"]
        self._query_names = tuple(name for name, _, _ in self._query)

    def __call__(self, request: Request) -> Mapping[str, Any]:
        """Return the arguments in the path and the query, with query values converted to their declared types."""
        for name, schema in self._path:
            if not schema.compiled.is_valid(request.arguments[name]):
                raise _not_found()
        for key, name, schema in self._headers:
            value = request.environ.get(key)
            if value is not None:
                schema.compiled.check(value, name)
        return {**request.arguments, **self._read_query(request)} if self._query else request.arguments

    def _read_query(self, request: Request) -> dict[str, Any]:
        sent, query = request.to_werkzeug().args, {}
        if sent:
            _check_names(sent, self._query_names)
        for name, declared, schema in self._query:
            values = sent.getlist(name)
            if len(values) > 1:
                text = f"`{name}` was sent {len(values)} times. Send it once."
                raise GatewayError("invalid_value", text, param=name)
            if values:
                query[name] = _to_json_value(values[0], declared.get("type"))
                schema.compiled.check(query[name], name)
            elif "default" in declared:
                query[name] = declared["default"]
        return query


def _check_names(names: Iterable[str], declared: Iterable[str]) -> None:
    """Refuse query parameters that the operation does not have: with a misspelt filter a list has too much."""
    for name in names:
        if name not in declared and not name.startswith(_IGNORED_QUERY):
            close = "".join(f" Did you mean `{one}`?" for one in get_close_matches(name[:64], declared, 1))
            text = f"The query parameter `{name[:64]}` is not known here.{close} Known are {', '.join(declared)}."
            raise GatewayError("unsupported_parameter", text, param=name[:64])


def _to_json_value(text: str, kind: str | None) -> object:
    """Convert `text` to the declared type `kind`, `None` for a named schema; return it unchanged if it cannot be."""
    if kind == "integer" and _INTEGER.fullmatch(text):
        return int(text)
    if kind == "boolean" and text in ("true", "false"):
        return text == "true"
    return text


def _not_found() -> GatewayError:
    request = current_request()
    known = suggest_path(request.environ["PATH_INFO"], request.app.has_path)
    return GatewayError("not_found", f"Unknown path. {known or 'See /openapi.json for the paths of this gateway.'}")


def _to_error_response(exception: Exception) -> Response:
    error = _to_gateway_error(exception)
    clear_traceback(exception)
    access_entry(current_request().environ).error = error.code
    return error_response(error)


def _to_gateway_error(exception: Exception) -> GatewayError:
    if isinstance(exception, GatewayError):
        return exception
    if isinstance(exception, NotFound):
        return _not_found()
    if isinstance(exception, MethodNotAllowed):
        request, methods = current_request(), ", ".join(sorted(set(exception.valid_methods or ()) - {"OPTIONS"}))
        text = explain_path(request.path) or f"The method {request.method} is not allowed here. Use {methods}."
        return GatewayError("method_not_allowed", text, headers={"Allow": methods})
    if isinstance(exception, HTTPException) and exception.code == 400:  # noqa: PLR2004  # Werkzeug's own checks
        return GatewayError("malformed_request", "The request is malformed.")
    logger.error("request failed", exc_info=exception)
    return internal_error()
