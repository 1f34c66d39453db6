"""Records: dataclasses that nobody changes once they are made.

A frozen dataclass calls `object.__setattr__` for each of its fields, which takes four times what assigning to it does:
all of them together were a twelfth of what a request cost. That nothing is assigned afterwards is left to the type
checker, which knows these classes as frozen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """Make `cls` a record: fields, equality and hash of a frozen dataclass with slots."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
