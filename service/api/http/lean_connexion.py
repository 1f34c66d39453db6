"""The parts of Connexion that serve on Flask, imported without the rest.

Connexion also imports aiohttp, where it is installed, to serve on that, requests to fetch documents and token checks
from elsewhere, and jsonschema to check the contract and what it describes. None of it is used here, and it is a fifth
of an idle gateway's memory: for the time of the import something else stands for it. The contract is checked where it
is built and tested, not at each start.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import ClassVar

__all__ = ["AbstractSecurityHandlerFactory", "BaseDecorator", "ConnexionRequest", "FlaskApi", "ProblemException"]


class _Unused(Exception):  # noqa: N818 - it stands for errors, too
    """Whatever Connexion takes from jsonschema: it derives validators from it as it is imported."""

    VALIDATORS: ClassVar[Mapping[str, object]] = {"enum": None, "properties": None, "required": None, "type": None}

    def __init__(self, *args: object, **options: object) -> None:
        del args, options
        super().__init__()


def _stand_in(name: str, *names: str) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(dict.fromkeys(names, _Unused))
    return module


_FOR_THE_IMPORT: dict[str, ModuleType | None] = {
    "aiohttp": None,
    "connexion.security.flask_security_handler_factory": None,
    "jsonschema": _stand_in("jsonschema", "Draft4Validator", "RefResolver", "ValidationError", "draft4_format_checker"),
    "jsonschema.exceptions": _stand_in("jsonschema.exceptions", "RefResolutionError", "ValidationError"),
    "jsonschema.validators": _stand_in("jsonschema.validators", "extend"),
    "requests": _stand_in("requests"),
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
