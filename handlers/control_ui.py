"""`/`: the page for people. It acts with the token or API key that is entered there, and has no rights of its own."""

from service.api.control_ui import load_file
from service.api.http.connexion_app import current_request
from service.api.http.http_response import Response

#: No other host, no inline script or style, and markup is made by the two libraries alone (Trusted Types).
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types lit-html dompurify"
)


def get_control_ui() -> Response:
    """Return the page."""
    return _file_response("index.html", "text/html", ("Content-Security-Policy", _POLICY))


def get_control_ui_asset(asset: str) -> Response:
    """Return a file of the page; the contract lists their names."""
    return _file_response(asset, "text/css" if asset.endswith(".css") else "text/javascript")


def get_control_ui_library(library: str) -> Response:
    """Return a library of the page; the contract lists their names."""
    return _file_response(f"vendor/{library}", "text/javascript")


def _file_response(path: str, kind: str, *headers: tuple[str, str]) -> Response:
    """Return a file, or 304 if the browser has it: it asks each time, so that an upgraded gateway has one page."""
    content, etag = load_file(path)
    headers = (("Cache-Control", "no-cache"), ("ETag", etag), *headers)
    if current_request().to_werkzeug().if_none_match.contains_weak(etag.strip('"')):
        return Response("304 Not Modified", [*headers], b"")
    return Response("200 OK", [("Content-Type", f"{kind}; charset=utf-8"), *headers], content)
