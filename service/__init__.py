"""The Gateway: agents behind an OpenAI-compatible HTTP endpoint.

A module imports only from the floors below it; `tests/test_architecture.py` draws the floors and holds them.
"""

try:
    from service._version import __version__ as __version__  # type: ignore[import-not-found, import-untyped, unused-ignore]  # that of a build
except ImportError:
    __version__ = "0.1.0"
