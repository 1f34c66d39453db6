"""Choose the decoder of a response body by its label and its first bytes, which may contradict each other."""

from __future__ import annotations

from service.core.errors import GatewayError
from service.core.fetch.decoding import Decoder, open_decoder

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
#: Other bodies, as most are, begin with none of the magics.
_FIRST_BYTES = frozenset(magic[:1] for magic in _MAGIC)
#: Codings that never begin with other bytes than their magic.
_MARKED = ("gzip", "x-gzip", "zstd")
_MAX_CODING_CHARS = 20
_BOM_START = 0xEF


class PlainDecoder:
    """Decoder of a body without a coding."""

    is_whole = True

    def decode(self, data: bytes, limit: int) -> bytes:
        """Return `data`."""
        return data[:limit]


PLAIN = PlainDecoder()


def is_undecided(start: bytes) -> bool:
    """True if more bytes have to show whether `start` begins a compressed body."""
    if start and start[:1] not in _FIRST_BYTES:
        return False
    return any(magic.startswith(start) and magic != start for magic in _MAGIC)


def choose_decoder(label: str, start: bytes) -> Decoder:
    """Return the decoder of a body that begins with `start`; `label` is its `Content-Encoding`.

    gzip and Zstandard are recognised by their first bytes, also without a label. Raises `GatewayError` with
    `provider_error` if the coding is unknown and the body is not plain text, or if there are several codings.
    """
    if not label and start[:1] not in _FIRST_BYTES:
        return PLAIN
    codings = [coding for part in label.lower().split(",") if (coding := part.strip()) not in ("", "identity")]
    known = [coding for coding in codings if open_decoder(coding) is not None]
    if len(known) > 1 or (codings and not known and not _begins_text(start) and _magic_of(start) is None):
        raise GatewayError(
            "provider_error",
            f"The model provider compressed its answer with {', '.join(codings)[:_MAX_CODING_CHARS]!r},"
            " which is not supported.",
        )
    coding = known[0] if known else ""
    if not coding or coding in _MARKED:
        coding = _magic_of(start) or ""
    return (open_decoder(coding) if coding else None) or PLAIN


def _magic_of(start: bytes) -> str | None:
    if start[:1] not in _FIRST_BYTES:
        return None
    return next((coding for magic, coding in _MAGIC.items() if start.startswith(magic)), None)


def _begins_text(start: bytes) -> bool:
    return not start or start[0] == _BOM_START or start[:1].isspace() or start[:1].decode("latin-1").isprintable()
