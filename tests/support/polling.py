"""Wait for a condition, while the greenlets of the test go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from service.core.concurrency import sleep

_GENEROUS_SECONDS = 120.0


def until(look: Callable[[], Any]) -> Any:
    """Poll `look` until it returns a true value, and return that."""
    give_up_at = time.monotonic() + _GENEROUS_SECONDS
    while time.monotonic() < give_up_at:
        found = look()
        if found:
            return found
        sleep(0.02)
    raise AssertionError("it did not come to pass")
