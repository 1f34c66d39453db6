"""Connexion and Flask, reduced to the steps that this API uses for each request.

Connexion binds the contract's operations to their functions, behind checks in a fixed order: credentials, body,
parameters. Flask and Werkzeug route by path and method. There are no cookies and no forms, and responses are not
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
from connexion.operations import OpenAPIOperation
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
    """A request and what answers it: the function `endpoint` of `app`; `arguments` are in the path.

    For a path or a method without a function, `refusal` is Werkzeug's exception.
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

    Functions take a `Request` and return WSGI applications. `admit` is called before anything else is done for a
    request, and may raise; `explain` makes a response of an exception; `finish` may change any response.
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
                answer: Callable[[Request], Any] = self.view_functions[request.endpoint]
                response = answer(request)
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

    def verify_bearer(self, token_info_func: Callable[[str], Any]) -> Callable[[str], Any]:
        return token_info_func

    @classmethod
    def verify_security(
        cls, auth_funcs: list[Callable[[str], Any]], function: Callable[[Request], Any]
    ) -> Callable[[Request], Any]:
        (find_principal,) = auth_funcs  # of the contract's only security scheme

        def checked(request: Request) -> Any:
            if find_principal("") is None:
                text = "Send the gateway's token in the header Authorization: Bearer <token>."
                raise GatewayError("missing_credentials", text, headers={"WWW-Authenticate": "Bearer"})
            return function(request)

        return checked


class _Operation(OpenAPIOperation):  # type: ignore[misc]  # connexion has no types
    """Connexion's operation, with one function for its decorators."""

    @property
    def function(self) -> Callable[[Request], Any]:
        """The bound function, behind the checks of credentials, body and parameters."""
        answer = self._resolution.function
        read_arguments = self.validator_map["parameter"](self.parameters)
        read_body = self.validator_map["body"](self.body_schema) if self.body_schema else None

        def checked(request: Request) -> Any:
            if read_body is None:
                return answer(**read_arguments(request))
            body = read_body(request.environ[BODY_KEY])
            return answer(**read_arguments(request), body=body)

        return self.security_decorator(checked)  # type: ignore[no-any-return]


class Api(FlaskApi):  # type: ignore[misc]  # connexion has no types
    """Connexion's binding of `document` to an `Application`'s blueprint.

    `read_body` makes the reader of bodies with a schema, `read_arguments` that of a request's parameters. Both raise
    the errors of invalid ones.
    """

    def __init__(
        self,
        document: dict[str, Any],
        read_body: Callable[[dict[str, Any]], Callable[[bytes], Any]],
        read_arguments: Callable[[list[dict[str, Any]]], Callable[[Request], Mapping[str, Any]]],
    ) -> None:
        # Connexion would check the contract at each start, which takes as long as all else it does; the tests check it.
        OpenAPISpecification.openapi_schema = {}
        OpenAPISpecification.operation_cls = _Operation
        super().__init__(
            _without_head(document),
            base_path="/",
            validator_map={"body": read_body, "parameter": read_arguments},
            options={"swagger_ui": False, "serve_spec": False},
        )

    @staticmethod
    def make_security_handler_factory(pass_context_arg_name: str | None) -> _Security:
        """Return the factory of the security checks."""
        return _Security(pass_context_arg_name)


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
