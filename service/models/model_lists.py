"""The lists of models that providers publish, to find configured models that are not on them.

The comparison only serves notes for operators, so a list that is not understood counts as none, and names that a
provider may accept beside those on its list are taken as listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Protocol, runtime_checkable
from urllib.parse import quote

import orjson

from service.core.concurrency import Timeout
from service.core.dataclass import record
from service.core.errors import GatewayError
from service.models.http.transport import Upstream

#: Time limit for reading a list with all its pages.
LIST_SECONDS = 5.0

_MAX_PAGES = 20
_MAX_PAGE_BYTES = 8 * 1024 * 1024
_MAX_SHOWN_CHARS = 100
_CLOSE = 0.5
_OK = 200
#: The end of a version's name: 0613, 20250514, 2024-08-06.
_DATE = re.compile(r"-(\d{4}|\d{6}|\d{8}|\d{4}-\d{2}-\d{2})")


@runtime_checkable
class ListingProvider(Protocol):
    """A provider that publishes a list of its models."""

    def list_models(self) -> frozenset[str] | None:
        """Return the ids of its models, `None` without a complete and valid list within `LIST_SECONDS`."""
        ...


@record
class UnlistedModel:
    """A configured model that the list of its provider lacks, and the listed one with the most similar name."""

    ref: str
    nearest: str | None

    def to_text(self) -> str:
        """Describe it for people."""
        hint = f"Did you mean {self.nearest}?" if self.nearest else "Check its name."
        return f"The provider's list of models does not have {self.ref}. {hint}"


def read_list(upstream: Upstream, path: str, cursor: str) -> frozenset[str] | None:
    """Return the ids listed at `path`; `None` if the list is missing, incomplete or empty, or is late.

    `cursor` is the parameter that asks for the page after an id.
    """
    ids: set[str] = set()
    query = ""
    try:
        with Timeout(LIST_SECONDS):
            for _ in range(_MAX_PAGES):
                page = _read_page(upstream, path, query)
                items = page if isinstance(page, list) else page["data"]
                ids.update(_text(item["id"]) for item in items)
                if isinstance(page, list) or not page.get("has_more"):
                    return frozenset(ids) or None
                query = f"{cursor}={quote(page['last_id'], safe='')}"
    except (GatewayError, OSError, ValueError, LookupError, TypeError, AttributeError):
        pass
    return None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _read_page(upstream: Upstream, path: str, query: str) -> Any:
    with upstream.get(path, query) as response:
        if response.status != _OK:
            raise ValueError(response.status)
        return orjson.loads(response.read_all(_MAX_PAGE_BYTES))


def find_unlisted(provider: ListingProvider, refs: Iterable[str]) -> list[UnlistedModel]:
    """Return those of `refs`, all of this provider, that its list lacks; none without a list."""
    ids = provider.list_models()
    if ids is None:
        return []
    named = ((ref, *ref.split("/", 1)) for ref in refs)
    return [
        UnlistedModel(ref, _nearest(provider_id, model_id, ids))
        for ref, provider_id, model_id in named
        if not any(_means(listed, model_id) for listed in ids)
    ]


def _nearest(provider_id: str, model_id: str, ids: Iterable[str]) -> str | None:
    folded = {listed.casefold(): listed for listed in ids if len(listed) <= _MAX_SHOWN_CHARS and listed.isprintable()}
    near = get_close_matches(model_id.casefold()[:_MAX_SHOWN_CHARS], folded, n=1, cutoff=_CLOSE)
    return f"{provider_id}/{folded[near[0]]}" if near else None


def _means(listed: str, model_id: str) -> bool:
    """Return whether `model_id` is the id `listed` or another common name of it.

    Those are an alias of a dated version (`claude-opus-4-1`, `gpt-4o`, `x-latest`), a variant of a router's model
    (`x:free`, `x@preset`), Ollama's `x` for `x:latest`, Gemini's `x` for `models/x`, and a proxy's pattern (`gpt/*`).
    """
    listed = listed.removeprefix("models/")
    model_id = model_id.removeprefix("models/")
    if model_id in (listed, listed.removesuffix(":latest")) or re.split("[:@]", model_id)[0] == listed:
        return True
    stem = model_id.removesuffix("-latest").removesuffix("-0")
    if listed.startswith(stem) and _DATE.fullmatch(listed, len(stem)):
        return True
    return "*" in listed and fnmatchcase(model_id, listed.replace("[", "[[]"))
