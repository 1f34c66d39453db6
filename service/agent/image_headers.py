"""Read the format and dimensions of an image from its header.

Images are not decoded, because decoders are what hostile images attack. The content determines the format, never a
label or a file name.

imagesize 2.0.1 was tried: it reads a GIF's width as signed (55,071 as -10,465) and WebP's scale bits as part of the
width (12,575 as 61,727), ignores WebP's start codes, and takes 3.7 s of CPU for a 10 MiB JPEG of empty segments.
"""

from __future__ import annotations

from service.core.dataclass import record

_MAX_JPEG_STEPS = 1000
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # those three are tables, not frames
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
_JPEG_SCAN_OR_END = (0xDA, 0xD9)


@record
class ImageHeader:
    """The media type of an image and its size in pixels as stated in the header, which may be 0."""

    media_type: str
    width: int
    height: int


def parse_image_header(data: bytes) -> ImageHeader | None:
    """Return the header of a PNG, JPEG, GIF or WebP image; `None` for other formats and for incomplete headers.

    The size is that of a GIF's screen and of a WebP's canvas.
    """
    for media_type, begins, size_of in _FORMATS:
        if data.startswith(begins):
            size = size_of(data)
            return None if size is None else ImageHeader(media_type, *size)
    return None


def _png_size(data: bytes) -> tuple[int, int] | None:
    if data[12:16] != b"IHDR" or len(data) < 24:  # noqa: PLR2004 - where the height ends
        return None
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])


def _gif_size(data: bytes) -> tuple[int, int] | None:
    if len(data) < 10:  # noqa: PLR2004 - where the height ends
        return None
    return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")


def _webp_size(data: bytes) -> tuple[int, int] | None:
    if data[8:12] != b"WEBP" or len(data) < 30:  # noqa: PLR2004 - where the longest of the three headers ends
        return None
    match data[12:16]:
        case b"VP8 " if data[23:26] == b"\x9d\x01\x2a":
            return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
        case b"VP8L" if data[20:21] == b"\x2f":
            bits = int.from_bytes(data[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    place = 2
    for _ in range(_MAX_JPEG_STEPS):
        if data[place : place + 2] == b"\xff\xff":  # a marker may be padded
            place += 1
            continue
        if data[place : place + 1] != b"\xff" or len(data) < place + 9:
            return None
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4])
        if marker in _JPEG_FRAMES:
            return int.from_bytes(data[place + 7 : place + 9]), int.from_bytes(data[place + 5 : place + 7])
        if marker in _JPEG_SCAN_OR_END:
            return None
        place += 2 if marker in _JPEG_BARE else 2 + length
    return None


_FORMATS = (
    ("image/png", b"\x89PNG\r\n\x1a\n", _png_size),
    ("image/jpeg", b"\xff\xd8\xff", _jpeg_size),
    ("image/gif", (b"GIF87a", b"GIF89a"), _gif_size),
    ("image/webp", b"RIFF", _webp_size),
)
