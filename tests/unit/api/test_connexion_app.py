"""The binding of the contract's operations to functions."""

from __future__ import annotations

from typing import Any

from werkzeug.test import create_environ

from service.api.http.connexion_app import BODY_KEY, PRINCIPAL_KEY, Api, Application, Request
from service.api.http.contract import load_contract, to_bound_contract
from service.core.errors import GatewayError
from service.core.principal import ADMINISTRATOR


def answer(path: str, method: str = "GET", *, checked: bool = True) -> Any:
    """What is raised for a request, or the request itself if its function was called with readable arguments."""
    found: list[Any] = []

    def admit(request: Request) -> None:
        if request.refusal is not None:
            raise request.refusal
        request.environ[BODY_KEY] = b"{}"
        if checked:
            request.environ[PRINCIPAL_KEY] = ADMINISTRATOR

    def read_arguments(request: Request) -> Any:
        found.append(request)
        raise LookupError

    def explain(error: Exception) -> Any:
        found.append(error)
        return lambda environ, start: [environ, start]

    document = to_bound_contract(load_contract())
    app = Application(admit, explain, lambda *_: None)
    app.register_blueprint(Api(document, lambda _: lambda body: body, lambda _: read_arguments).blueprint)
    app.wsgi_app(create_environ(path, method=method), lambda *_: None)
    return found[0]


def test_request_that_was_not_authenticated_is_refused() -> None:
    refused = answer("/v1/models", checked=False)
    assert isinstance(refused, GatewayError)
    assert refused.code == "missing_credentials"
    assert refused.headers == {"WWW-Authenticate": "Bearer"}


def test_request_that_was_authenticated_reaches_its_function() -> None:
    assert answer("/v1/models").route == "/v1/models"


def test_public_operation_needs_nobody() -> None:
    assert answer("/healthz", checked=False).route == "/healthz"


def test_arguments_in_the_path_are_decoded() -> None:
    request = answer("/v1/sessions/agent:main:caf%C3%A9")
    assert request.arguments == {"key": "agent:main:café"}


def test_head_is_answered_as_get() -> None:
    assert answer("/v1/models", "HEAD").endpoint == answer("/v1/models").endpoint


def test_unknown_path_and_method_are_refused() -> None:
    assert answer("/v1/nothing").code == 404
    assert answer("/v1/models", "PUT").code == 405
    assert answer("/v1/models", "OPTIONS").code == 405
