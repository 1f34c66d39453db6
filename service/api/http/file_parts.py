"""Replace the files in a request's messages by their text."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

from service.agent.files import FileError, FileReader, SentFile
from service.core.errors import GatewayError

#: Files of one request.
MAX_FILES = 8

_MAX_NAME_CHARACTERS = 200


def has_files(messages: Sequence[dict[str, Any]]) -> bool:
    """Return True if a message brings a file. Costs other requests next to nothing."""
    for message in messages:
        content = message.get("content")
        if isinstance(content, list) and any(map(_is_file, _parts_of(message))):
            return True
    return False


def with_file_texts(messages: Sequence[dict[str, Any]], place: str, reader: FileReader) -> Sequence[dict[str, Any]]:
    """Return `messages` with a part of text for each file; `place` is the name of their list in the request.

    Waits for conversions. Raises `GatewayError` (`invalid_value`) for a file that cannot be read.
    """
    places = [index for index, message in enumerate(messages) if any(map(_is_file, _parts_of(message)))]
    if not places:
        return messages
    if sum(_is_file(part) for index in places for part in _parts_of(messages[index])) > MAX_FILES:
        raise GatewayError("invalid_value", f"A request has at most {MAX_FILES} files.", param=place)
    replaced = list(messages)
    for index in places:
        parts = [
            _to_text(part, f"{place}[{index}].content[{at}].file.file_data", reader) if _is_file(part) else part
            for at, part in enumerate(_parts_of(messages[index]))
        ]
        replaced[index] = {**messages[index], "content": parts}
    return replaced


def _parts_of(message: dict[str, Any]) -> Sequence[Any]:
    content = message.get("content")
    return content if message.get("role") == "user" and isinstance(content, list) else ()


def _is_file(part: Any) -> bool:
    return bool(part["type"] == "file")


def _to_text(part: dict[str, Any], param: str, reader: FileReader) -> dict[str, Any]:
    given = part["file"]
    name = "".join(filter(str.isprintable, given.get("filename") or ""))[:_MAX_NAME_CHARACTERS].strip() or "file"
    try:
        media_type, data = _parse_data(given["file_data"])
        text = reader.read(SentFile(name, media_type, data))
    except FileError as error:
        raise GatewayError("invalid_value", f"The file {name} cannot be read: {error}.", param=param) from None
    return {"type": "text", "text": f"[File: {name}]\n{text}\n[End of the file {name}]\n"}


def _parse_data(text: str) -> tuple[str, bytes]:
    """Return the media type and the content of a `data:` URI, or of base64 alone."""
    media_type, encoded = "", text
    if text[:5].lower() == "data:":
        head, comma, encoded = text[5:].partition(",")
        label, *options = [part.strip().lower() for part in head.split(";")]
        media_type = label
        if not comma:
            raise FileError("its data URI has no comma")
        if "base64" not in options:
            return media_type, unquote_to_bytes(encoded)
    encoded = "".join(encoded.split()).translate(str.maketrans("-_", "+/"))
    try:
        return media_type, base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise FileError("its data is not base64") from None
