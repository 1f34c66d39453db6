"""Cross-origin requests of browsers: the headers of the Fetch standard (CORS) for pages of the listed origins.

Credentials of the browser (cookies) are not allowed: callers send their token themselves, in `Authorization`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from service.api.settings import SettingsSlot

_HEADER_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, \t-]{0,4096}")
_METHODS = "GET, HEAD, POST, DELETE"
_PREFLIGHT_SECONDS = 600


class CrossOrigin:
    """A WSGI application in front of `app` that answers preflight requests and lets pages read responses.

    Without `gateway.http.cors.allowedOrigins` it changes nothing.
    """

    def __init__(
        self, app: Callable[..., Iterable[bytes]], document: Mapping[str, Any], settings: SettingsSlot
    ) -> None:
        self._app = app
        self._settings = settings
        self._exposed = ", ".join(document["x-response-headers"])

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        origins = self._settings.current.cors_origins
        if not origins:
            return self._app(environ, start_response)
        origin = environ.get("HTTP_ORIGIN", "")
        headers = [("Vary", "Origin")]
        if origin.lower() in origins:
            headers.append(("Access-Control-Allow-Origin", origin))
            if environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ:
                start_response("204 No Content", headers + _preflight_headers(environ))
                return ()
            headers.append(("Access-Control-Expose-Headers", self._exposed))

        def start(status: str, own: list[tuple[str, str]], *args: Any) -> Any:
            return start_response(status, own + headers, *args)

        return self._app(environ, start)


def _preflight_headers(environ: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Allow every method and header of the API; OpenAI's libraries send headers of their own."""
    headers = [("Access-Control-Allow-Methods", _METHODS), ("Access-Control-Max-Age", str(_PREFLIGHT_SECONDS))]
    wanted = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "")
    if wanted and _HEADER_NAMES.fullmatch(wanted):
        headers.append(("Access-Control-Allow-Headers", wanted))
    if environ.get("HTTP_ACCESS_CONTROL_REQUEST_PRIVATE_NETWORK") == "true":
        headers.append(("Access-Control-Allow-Private-Network", "true"))
    return headers
