"""`/docs`: Swagger UI for the served contract, and a page for each error code; no foreign host is contacted."""

from service.api.docs_page import load_file
from service.api.http.error_pages import to_page
from service.api.http.http_response import Response

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>OpenClaw Gateway</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"


def get_docs() -> Response:
    """Return the page."""
    return _page_response(_PAGE.encode())


def get_error_page(code: str) -> Response:
    """Return the page of an error code; the contract lists the codes."""
    return _page_response(to_page(code))


def _page_response(page: bytes) -> Response:
    headers = [("Content-Type", "text/html; charset=utf-8"), ("Content-Security-Policy", _POLICY)]
    return Response("200 OK", headers, page)


def get_docs_asset(asset: str) -> Response:
    """Return a file of the page; the contract lists their names."""
    kind = "text/css" if asset.endswith(".css") else "text/javascript"
    return Response("200 OK", [("Content-Type", f"{kind}; charset=utf-8")], load_file(asset))
