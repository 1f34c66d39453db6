"""The files of the page at `/docs`: Swagger UI, which a package brings, and the script that starts it."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

_HERE = Path(__file__).parent


def load_file(name: str) -> bytes:
    """Return the contents of a file of the page."""
    own = _HERE / name
    return (own if own.exists() else _swagger_ui() / name).read_bytes()


@cache
def _swagger_ui() -> Path:
    """Find Swagger UI's files without importing the package that carries them, which is for web frameworks."""
    spec = find_spec("swagger_ui")
    if spec is None or spec.submodule_search_locations is None:
        raise FileNotFoundError("the package swagger-ui-py is not installed")
    return Path(spec.submodule_search_locations[0], "static")
