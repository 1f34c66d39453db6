"""`/docs`: Swagger UI for the served contract; no foreign host is contacted."""

from pathlib import Path

import swagger_ui_bundle

from service.api.http.responses import Response

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
_START = 'SwaggerUIBundle({url: "/openapi.json", dom_id: "#page", deepLinking: true, validatorUrl: null});\n'
_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"


def get_docs() -> Response:
    """Return the page."""
    headers = [("Content-Type", "text/html; charset=utf-8"), ("Content-Security-Policy", _POLICY)]
    return Response("200 OK", headers, _PAGE.encode())


def get_docs_asset(asset: str) -> Response:
    """Return a file of the page; the contract lists their names."""
    kind = "text/css" if asset.endswith(".css") else "text/javascript"
    content = _START.encode() if asset == "start.js" else Path(swagger_ui_bundle.swagger_ui_path, asset).read_bytes()
    return Response("200 OK", [("Content-Type", f"{kind}; charset=utf-8")], content)
