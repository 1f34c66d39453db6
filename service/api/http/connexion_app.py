"""Connexion and Flask, reduced to the steps that this API uses for each request.

Connexion binds the contract's operations to their functions and applies its decorators in a fixed order: credentials,
parameters, body. Flask routes by path and holds the current request. There are no cookies and no forms, and responses
are not post-processed: a handler returns a WSGI application, mostly a `Response`, which is passed to the server.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import flask
import orjson
from connexion import FlaskApi
from connexion.decorators.decorator import BaseDecorator
from connexion.lifecycle import ConnexionRequest
from connexion.security import AbstractSecurityHandlerFactory
from connexion.spec import OpenAPISpecification
from flask.sessions import NullSession, SessionInterface
from werkzeug.routing import Map, MapAdapter, Rule

from service.api.http.json_repair import repair_json
from service.core.errors import GatewayError
from service.core.principal import Principal

#: The environ key of the request body, once it is read.
BODY_KEY = "openclaw.body"

#: The key of the authenticated caller in the environ.
PRINCIPAL_KEY = "openclaw.principal"


class _NoSessions(SessionInterface):
    def __init__(self) -> None:
        self._session = NullSession()

    def open_session(self, app: flask.Flask, request: flask.Request) -> NullSession:
        del app, request
        return self._session


class Application(flask.Flask):
    """Flask for handlers that are plain functions and return WSGI applications.

    `admit` is called before anything else is done for a request, and may raise; `finish` may change the response. There
    are no other hooks.
    """

    session_interface = _NoSessions()

    def __init__(self, admit: Callable[[], None], finish: Callable[[Any], None]) -> None:
        super().__init__("openclaw", static_folder=None)
        self.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
        self.url_map.merge_slashes = False
        self._admit = admit
        self._finish = finish
        self._plain_rules: dict[tuple[str, str], Rule] = {}

    def full_dispatch_request(self) -> Any:
        """Admit the request and call its handler; an exception becomes an error response."""
        try:
            self._admit()
            response = self.dispatch_request()
        except Exception as error:  # noqa: BLE001 - the error handlers translate it
            response = self.handle_user_exception(error)
        self._finish(response)
        return response

    def do_teardown_request(self, exc: BaseException | None = None) -> None:
        """Do nothing: requests hold no resources of Flask."""

    def do_teardown_appcontext(self, exc: BaseException | None = None) -> None:
        """Do nothing: requests hold no resources of Flask."""

    def create_url_adapter(self, request: flask.Request | None) -> MapAdapter | None:
        """Route by path and method; the host is not considered."""
        if request is None:
            return None
        return _Adapter(self.url_map, self._plain_rules, request.path, request.method)

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return `func`: no handler is a coroutine."""
        return func

    def finalize_request(self, rv: Any, from_error_handler: bool = False) -> Any:
        """Return `rv`, which is a WSGI application already."""
        del from_error_handler
        return rv


class _Adapter(MapAdapter):
    """Match requests to rules; rules without parameters are cached.

    Each search by Werkzeug leaves a reference cycle for the garbage collector.
    """

    def __init__(self, rules: Map, plain_rules: dict[tuple[str, str], Rule], path: str, method: str) -> None:
        super().__init__(rules, "", "/", "", "http", path, method)
        self._plain_rules = plain_rules

    def match(self, *args: Any, **kwargs: Any) -> Any:
        """Return the rule and its parameters; raises the exception that Flask turns into a response."""
        if args or kwargs != {"return_rule": True}:  # not the request's own path and method
            return super().match(*args, **kwargs)
        key = self.path_info, self.default_method
        if key in self._plain_rules:
            return self._plain_rules[key], {}
        rule, parameters = super().match(return_rule=True)
        if rule.rule == self.path_info:
            self._plain_rules[key] = rule
        return rule, parameters


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


def current_request() -> flask.Request:
    """Return the request itself; `flask.request` is a proxy that looks it up for each attribute."""
    request: flask.Request = flask.request._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
    return request


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
