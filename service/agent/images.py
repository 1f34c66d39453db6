"""Check the images of a request before it is sent to a model, and fetch those given by URL.

The content determines the type of an image; the label is ignored. Errors name the limit and the path of the image.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace

from service.agent.conversation import IncomingMessage
from service.agent.image_headers import parse_image_header
from service.config.gateway import ImagesConfig
from service.core.concurrency import pause
from service.core.errors import GatewayError
from service.core.fetch.addresses import AddressPolicy
from service.core.fetch.client import FetchLimits, PublicHttpClient
from service.core.fetch.errors import FetchError
from service.core.messages import Image, Part

MAX_IMAGES = 8
MAX_TOTAL_BYTES = 20 * 1024 * 1024
MAX_SIDE_PIXELS = 16_384
MAX_PIXELS = 100_000_000

_MEBIBYTE = 1024 * 1024
_OK = 200
_PIECE_CHARACTERS = 1024 * 1024  # a multiple of four, which are three bytes


def image_client(config: ImagesConfig) -> PublicHttpClient:
    """Return a client that fetches images from the hosts that `config` allows."""
    return PublicHttpClient(AddressPolicy(hosts=config.url_allowlist))


def check_images(
    messages: Sequence[IncomingMessage], config: ImagesConfig, client: PublicHttpClient
) -> tuple[IncomingMessage, ...]:
    """Return the messages with each image as a `data:` URI labelled with its actual type.

    Limits: 8 images and 20 MiB per request; `config.max_bytes`, 16,384 pixels a side and 100 megapixels per image.
    Raises `GatewayError` (`invalid_value`) with the path of the image. Images are fetched one after the other, each
    for at most `config.timeout_ms`.
    """
    with_images = [item for item in messages if item.message.has_image]
    if not with_images:
        return tuple(messages)
    inspection = _Inspection(config, client)
    return tuple(
        replace(item, message=replace(item.message, parts=inspection.check_parts(item.param, item.message.parts)))
        if item.message.has_image
        else item
        for item in messages
    )


class _Inspection:
    """Number and total size of the images of one request so far."""

    def __init__(self, config: ImagesConfig, client: PublicHttpClient) -> None:
        self._config = config
        self._client = client
        self._count = 0
        self._total_bytes = 0

    def check_parts(self, place: str, parts: Sequence[Part]) -> tuple[Part, ...]:
        return tuple(
            self._check(f"{place}.content[{index}].image_url.url", part) if isinstance(part, Image) else part
            for index, part in enumerate(parts)
        )

    def _check(self, place: str, image: Image) -> Image:
        self._count += 1
        if self._count > MAX_IMAGES:
            raise _refusal(place, f"A request can have at most {MAX_IMAGES} images. Send fewer.")
        url = image.url
        data = self._parse_data_uri(place, url) if url[:5].lower() == "data:" else self._fetch(place, url)
        self._total_bytes += len(data)
        if self._total_bytes > MAX_TOTAL_BYTES:
            limit = _mebibytes(MAX_TOTAL_BYTES)
            raise _refusal(
                place, f"The images of the request are larger than {limit} together. Send fewer or smaller ones."
            )
        head = f"data:{self._check_content(place, data)};base64,"
        return image if url.startswith(head) else replace(image, url=head + base64.b64encode(data).decode())

    def _parse_data_uri(self, place: str, url: str) -> bytes:
        data_at = url.find(",") + 1
        if not url[:data_at].lower().endswith(";base64,"):
            raise _refusal(place, "The `data:` URI is malformed. Write it as `data:image/png;base64,...`.")
        if (len(url) - data_at) // 4 * 3 > self._config.max_bytes + 2:
            raise self._too_large(place)
        try:
            data = _decode(url, data_at)
        except ValueError:
            raise _refusal(place, "The data of the image is not valid base64.") from None
        if len(data) > self._config.max_bytes:
            raise self._too_large(place)
        return data

    def _fetch(self, place: str, url: str) -> bytes:
        if url.partition(":")[0].lower() not in ("http", "https"):
            raise _refusal(place, "The image is not a `data:` URI. Send it as `data:image/png;base64,...`.")
        if not self._config.allow_url:
            text = (
                "This gateway does not fetch images. Send the image as a `data:` URI, or set "
                "`gateway.http.endpoints.chatCompletions.images.allowUrl` to true."
            )
            raise _refusal(place, text)
        limits = FetchLimits(self._config.max_bytes, self._config.timeout_ms / 1000, self._config.max_redirects)
        try:
            with self._client.open(url, limits, accept=", ".join(self._config.allowed_mimes)) as response:
                if response.status != _OK:
                    raise _refusal(place, f"The image was not fetched: its server answered with {response.status}.")
                data, whole = response.read_body()
        except FetchError as error:
            raise _refusal(place, f"The image was not fetched: {error}.") from error
        if not whole:
            raise self._too_large(place)
        return data

    def _check_content(self, place: str, data: bytes) -> str:
        """Return the media type of the image. Raises for content that is no image, not allowed or too large."""
        header = parse_image_header(data)
        if header is None:
            raise _refusal(place, "The content is no image: it is not PNG, JPEG, GIF or WebP. Convert it.")
        if header.media_type not in self._config.allowed_mimes:
            allowed = ", ".join(self._config.allowed_mimes)
            raise _refusal(place, f"The content of the image is {header.media_type}; allowed are {allowed}.")
        if not (header.width and header.height):
            raise _refusal(place, "The image has no pixels.")
        if max(header.width, header.height) > MAX_SIDE_PIXELS or header.width * header.height > MAX_PIXELS:
            text = (
                f"The image has {header.width} x {header.height} pixels; the limits are {MAX_SIDE_PIXELS} a side and "
                f"{MAX_PIXELS // 1_000_000} megapixels. Send a smaller one."
            )
            raise _refusal(place, text)
        return header.media_type

    def _too_large(self, place: str) -> GatewayError:
        limit = _mebibytes(self._config.max_bytes)
        return _refusal(place, f"The image is larger than {limit}, the limit for one image. Send a smaller one.")


def _decode(url: str, start: int) -> bytes:
    """Decode the base64 at `start` while other greenlets run in between.

    Raises `ValueError` (`binascii.Error` is one).
    """
    if url.find("=", start, -2) >= 0:
        raise ValueError("there is padding before the end")
    pieces = []
    for at in range(start, len(url), _PIECE_CHARACTERS):
        if at > start:
            pause()
        pieces.append(base64.b64decode(url[at : at + _PIECE_CHARACTERS], validate=True))
    return b"".join(pieces)


def _refusal(place: str, text: str) -> GatewayError:
    return GatewayError("invalid_value", text, param=place)


def _mebibytes(count: int) -> str:
    return f"{count / _MEBIBYTE:.4g} MiB"
