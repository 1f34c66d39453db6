"""Connexion and Flask, reduced to the steps that this API uses for each request.

Connexion binds the contract's operations to their functions and applies its decorators in a fixed order: credentials,
parameters, body. Flask and Werkzeug route by path and method. There are no cookies and no forms, and responses are not
post-processed: a handler returns a WSGI application, mostly a `Response`, which is passed to the server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import flask
import orjson
from connexion import FlaskApi
from connexion.decorators.decorator import BaseDecorator
from connexion.lifecycle import ConnexionRequest
from connexion.security import AbstractSecurityHandlerFactory
from connexion.spec import OpenAPISpecification
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Rule
from werkzeug.wrappers import Request as WerkzeugRequest

from service.api.http.json_repair import repair_json
from service.core.errors import GatewayError
from service.core.principal import Principal
from service.gateway.gateway import Gateway

#: The environ key of the request body, once it is read.
BODY_KEY = "openclaw.body"

#: The key of the authenticated caller in the environ.
PRINCIPAL_KEY = "openclaw.principal"


class Request:
    """A request and what answers it: the function `endpoint` of `app`, called with `arguments`.

    For a path or a method without one, `refusal` is Werkzeug's exception.
    """

    def __init__(self, app: Application, environ: dict[str, Any]) -> None:
        self.app = app
        self.environ = environ
        self.path = "/" + environ["PATH_INFO"].encode("latin-1").decode(errors="replace").lstrip("/")
        self.method = environ["REQUEST_METHOD"].upper()
        self.route: str | None = None
        self.endpoint = ""
        self.arguments: Mapping[str, Any] = {}
        self.refusal: HTTPException | None = None

    def to_werkzeug(self) -> WerkzeugRequest:
        """Return Werkzeug's view of the request, which parses queries and less common headers."""
        return WerkzeugRequest(self.environ, populate_request=False)


REQUEST: ContextVar[Request] = ContextVar("request")

#: Returns the request that this greenlet handles.
current_request = REQUEST.get


class Application(flask.Flask):
    """Flask's registry of paths and functions; what a request needs of the rest of Flask is here.

    Functions return WSGI applications. `admit` is called before anything else is done for a request, and may raise;
    `explain` makes a response of an exception; `finish` may change any response.
    """

    def __init__(
        self,
        admit: Callable[[Request], None],
        explain: Callable[[Exception], Any],
        finish: Callable[[Request, Any], None],
    ) -> None:
        super().__init__("openclaw", static_folder=None)
        self.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
        self.url_map.merge_slashes = False
        self._admit = admit
        self._explain = explain
        self._finish = finish
        self._plain_rules: dict[tuple[str, str], Rule] = {}

    def wsgi_app(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Admit the request and call its function; an exception becomes an error response."""
        request = Request(self, environ)
        token = REQUEST.set(request)
        try:
            try:
                self._route(request)
                self._admit(request)
                answer: Callable[..., Any] = self.view_functions[request.endpoint]
                response = answer(**request.arguments)
            except Exception as error:  # noqa: BLE001 - it is explained
                response = self._explain(error)
            self._finish(request, response)
            body: Iterable[bytes] = response(environ, start_response)
            return body
        finally:
            REQUEST.reset(token)

    def _route(self, request: Request) -> None:
        """Find the rule of a request. Those without parameters are cached: a search leaves a reference cycle."""
        key = request.path, request.method
        rule = self._plain_rules.get(key)
        if rule is None:
            try:
                adapter = self.url_map.bind("", path_info=request.path, default_method=request.method)
                rule, request.arguments = adapter.match(return_rule=True)
            except HTTPException as refusal:
                request.refusal = refusal
                return
            if rule.rule == request.path:
                self._plain_rules[key] = rule
        request.route, request.endpoint = rule.rule, rule.endpoint

    def has_path(self, path: str) -> bool:
        """Return True if any method is allowed for `path`."""
        return bool(self.url_map.bind("").allowed_methods(path))


class _Security(AbstractSecurityHandlerFactory):  # type: ignore[misc]  # connexion has no types
    """Connexion's security check: it reads the result of the check made before the body was read."""

    def get_token_info_remote(self, token_info_url: str) -> Callable[[str], Any]:
        raise ValueError(f"remote token checks are not supported: {token_info_url}")

    def verify_bearer(self, token_info_func: Callable[[str], Any]) -> Callable[[Any], Any]:
        def principal_or_none(request: Any) -> Any:
            del request
            principal = token_info_func("")
            return self.no_value if principal is None else principal

        return principal_or_none


class _URIParser(BaseDecorator):  # type: ignore[misc]  # connexion has no types
    """Pass path parameters through: Flask has decoded them."""

    def __init__(self, *args: object) -> None:
        del args


class Api(FlaskApi):  # type: ignore[misc]  # connexion has no types
    """Connexion's binding of `document` to an `Application`'s blueprint."""

    def __init__(self, document: dict[str, Any], validator_map: dict[str, Any]) -> None:
        # Connexion would check the contract at each start, which takes as long as all else it does; the tests check it.
        OpenAPISpecification.openapi_schema = {}
        options = {"swagger_ui": False, "serve_spec": False, "uri_parser_class": _URIParser}
        super().__init__(_without_head(document), base_path="/", validator_map=validator_map, options=options)

    def _add_operation_internal(self, method: str, path: str, operation: Any) -> None:
        operation.get_arguments = _to_arguments
        super()._add_operation_internal(method, path, operation)

    @staticmethod
    def make_security_handler_factory(pass_context_arg_name: str | None) -> _Security:
        """Return the factory of the security checks."""
        return _Security(pass_context_arg_name)

    @classmethod
    def get_request(cls, *args: Any, **params: Any) -> ConnexionRequest:
        """Return the request for Connexion's decorators; its headers are the environ, with WSGI's names."""
        del args
        environ = current_request().environ
        body = environ[BODY_KEY]
        return ConnexionRequest(
            environ["PATH_INFO"],
            environ["REQUEST_METHOD"],
            headers=environ,
            body=body,
            json_getter=lambda: None if body is None else parse_json(body),
            path_params=params,
            files={},
        )

    @classmethod
    def get_response(cls, response: Any, mimetype: str | None = None, request: Any = None) -> Any:
        """Return `response`, which is a WSGI application already."""
        del mimetype, request
        return response


def _without_head(document: dict[str, Any]) -> dict[str, Any]:
    """Remove the HEAD operations: the router sends HEAD to the operation of GET, and the server omits the body."""
    paths = {
        path: {method: operation for method, operation in item.items() if method != "head"}
        for path, item in document["paths"].items()
    }
    return {**document, "paths": paths}


def current_gateway() -> Gateway:
    """Return the gateway that answers the request."""
    gateway: Gateway = current_request().app.extensions["gateway"]
    return gateway


def current_principal() -> Principal:
    """Return the authenticated caller of the request."""
    principal: Principal = current_request().environ[PRINCIPAL_KEY]
    return principal


@lru_cache
def environ_key(header: str) -> str:
    """Return the environ key of a request header other than Content-Type and Content-Length."""
    return "HTTP_" + header.upper().replace("-", "_")


def _to_arguments(path: dict[str, str], query: dict[str, Any], body: Any, *_: object) -> dict[str, Any]:
    """Return a handler's arguments: validated, and with query values converted to their declared types."""
    return {**path, **query} if body is None else {**path, **query, "body": body}


def parse_json(body: bytes) -> Any:
    """Parse a JSON body. Raises `GatewayError` (`invalid_json`)."""
    if not body:
        raise GatewayError("invalid_json", "The body is empty. Send a JSON object.")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return _parse_repaired(body)


def _parse_repaired(body: bytes) -> Any:
    try:
        return orjson.loads(repair_json(body))
    except orjson.JSONDecodeError as error:
        text = f"The body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})."
        raise GatewayError("invalid_json", text) from None
