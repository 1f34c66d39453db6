"""The parts of Connexion that serve on Flask, imported without the rest.

Connexion also imports aiohttp, where it is installed, to serve on that, and requests to fetch documents and token
checks from elsewhere. None of it is used here, and it is a sixth of an idle gateway's memory: for the time of the
import both count as not there. Nor does it check the contract at each start: that is done where the contract is built
and tested.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

__all__ = ["AbstractSecurityHandlerFactory", "BaseDecorator", "ConnexionRequest", "FlaskApi", "ProblemException"]

_FOR_THE_IMPORT: dict[str, ModuleType | None] = {
    "aiohttp": None,
    "connexion.security.flask_security_handler_factory": None,
    "requests": ModuleType("requests"),
}


@contextmanager
def _without_the_rest() -> Iterator[None]:
    before = {name: sys.modules[name] for name in _FOR_THE_IMPORT if name in sys.modules}
    sys.modules.update(_FOR_THE_IMPORT)  # type: ignore[arg-type]  # None: importing it is an ImportError
    try:
        yield
    finally:
        for name in _FOR_THE_IMPORT:
            del sys.modules[name]
        sys.modules.update(before)


with _without_the_rest():
    from connexion import FlaskApi
    from connexion.decorators.decorator import BaseDecorator
    from connexion.exceptions import ProblemException
    from connexion.lifecycle import ConnexionRequest
    from connexion.security import AbstractSecurityHandlerFactory
    from connexion.spec import OpenAPISpecification


def _take_as_valid(_: type[OpenAPISpecification], document: object) -> None:
    del document


OpenAPISpecification._validate_spec = classmethod(_take_as_valid)  # noqa: SLF001 - a tenth of a start
