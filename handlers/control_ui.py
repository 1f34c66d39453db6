"""`/`: the page for people. It acts with the token or API key that is entered there, and has no rights of its own."""

from service.api.control_ui import load_file
from service.api.http.responses import Response

#: No other host, no inline script or style, and markup is made by the two libraries alone (Trusted Types).
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types lit-html dompurify"
)


def get_control_ui() -> Response:
    """Return the page."""
    headers = [("Content-Type", "text/html; charset=utf-8"), ("Content-Security-Policy", _POLICY)]
    return Response("200 OK", headers, load_file("index.html"))


def get_control_ui_asset(asset: str) -> Response:
    """Return a file of the page; the contract lists their names."""
    kind = "text/css" if asset.endswith(".css") else "text/javascript"
    return Response("200 OK", [("Content-Type", f"{kind}; charset=utf-8")], load_file(asset))
