"""The Gateway: agents behind an OpenAI-compatible HTTP endpoint.

A module imports only from the floors below it; `tests/test_architecture.py` draws the floors and holds them.
"""

__version__ = "0.1.0"
