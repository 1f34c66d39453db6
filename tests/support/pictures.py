"""Real images, made by a library that the gateway does not use."""

from __future__ import annotations

import base64
import io
from typing import Any

import PIL.Image


def picture(picture_format: str, size: tuple[int, int] = (31, 17), mode: str = "RGB", **options: Any) -> bytes:
    """The file of a picture of one colour."""
    file = io.BytesIO()
    PIL.Image.new(mode, size).save(file, picture_format, **options)
    return file.getvalue()


def data_uri(data: bytes, media_type: str = "image/png") -> str:
    """`data` as the address of a picture, labelled `media_type` whatever it is."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
