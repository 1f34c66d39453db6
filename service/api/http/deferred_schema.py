"""A schema of the contract that is compiled when its first value is checked."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.api.http.schema_validation import CompiledSchema


class DeferredSchema:
    """A schema whose `compiled` form is made, and kept, on first use.

    Most gateways are asked for few of their operations. The compiler and all compiled schemas take some 15 MB and
    a tenth of a second of the start; the schema of a chat completion alone takes 10 ms.
    """

    def __init__(self, schema: Mapping[str, Any], document: Mapping[str, Any]) -> None:
        self._schema = schema
        self._document = document

    @cached_property
    def compiled(self) -> CompiledSchema:
        """The compiled schema."""
        from service.api.http.schema_validation import CompiledSchema  # noqa: PLC0415 - imports the compiler

        return CompiledSchema(self._schema, self._document)
