"""Images of a request: formats, size limits, allowed sources."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.page_server import PageServer, endless, page, redirect
from support.pictures import data_uri, picture

from service.agent.conversation import IncomingMessage
from service.agent.image_headers import ImageHeader, parse_image_header
from service.agent.images import MAX_TOTAL_BYTES, check_images, image_client
from service.config.gateway import ImagesConfig
from service.core.errors import GatewayError
from service.core.fetch.addresses import AddressPolicy
from service.core.fetch.client import PublicHttpClient
from service.core.messages import Image, Message, Role, Text, text_message

MIB = 1024 * 1024
PLACE = "messages[2].content[1].image_url.url"


PNG = picture("PNG")


def incoming(*urls: str) -> list[IncomingMessage]:
    """Three messages, the last of which says something and shows the pictures."""
    said = Message(Role.USER, (Text("look"), *(Image(url, "low") for url in urls)))
    plain = (text_message(Role.USER, "hello"), text_message(Role.ASSISTANT, "hello"))
    return [IncomingMessage(f"messages[{index}]", message) for index, message in enumerate((*plain, said))]


def config(**values: Any) -> ImagesConfig:
    return ImagesConfig.model_validate(values, by_alias=True, by_name=False)


def check(*urls: str, client: PublicHttpClient | None = None, **values: Any) -> list[str]:
    """The pictures' URIs after the check."""
    settings = config(**values)
    checked = check_images(incoming(*urls), settings, client or image_client(settings))
    return [part.url for part in checked[2].message.parts if isinstance(part, Image)]


def refusal(*urls: str, client: PublicHttpClient | None = None, **values: Any) -> GatewayError:
    with pytest.raises(GatewayError) as refused:
        check(*urls, client=client, **values)
    assert refused.value.code == "invalid_value"
    return refused.value


@pytest.fixture
def server() -> Iterator[PageServer]:
    with PageServer() as running:
        yield running


@pytest.fixture
def client(server: PageServer) -> PublicHttpClient:
    names: Mapping[str, list[str]] = {"site.test": ["127.0.0.1"], "inside.test": ["169.254.169.254"]}
    return PublicHttpClient(AddressPolicy(exempt=server.exempt), resolver=lambda host, _: names[host])


@pytest.mark.parametrize(
    ("media_type", "data"),
    [
        ("image/png", PNG),
        ("image/png", picture("PNG", mode="P")),
        ("image/jpeg", picture("JPEG")),
        ("image/jpeg", picture("JPEG", progressive=True)),
        ("image/jpeg", picture("JPEG", mode="L", icc_profile=b"i" * 200_000, exif=b"Exif\0\0" + b"e" * 60_000)),
        ("image/gif", picture("GIF")),
        ("image/webp", picture("WEBP")),
        ("image/webp", picture("WEBP", lossless=True)),
        ("image/webp", picture("WEBP", mode="RGBA", exif=b"Exif\0\0" + b"e" * 100)),
        ("image/webp", picture("WEBP", save_all=True, append_images=[PIL.Image.new("RGB", (31, 17), "red")])),
    ],
)
def test_header_of_real_image_is_read(media_type: str, data: bytes) -> None:
    assert parse_image_header(data) == ImageHeader(media_type, 31, 17)
    assert check(data_uri(data, "text/plain")) == [data_uri(data, media_type)]


@pytest.mark.parametrize("size", [(1, 1), (255, 256), (16383, 3), (3, 16383)])
@pytest.mark.parametrize("picture_format", ["PNG", "JPEG", "GIF", "WEBP"])
def test_dimensions_are_read_from_header(picture_format: str, size: tuple[int, int]) -> None:
    header = parse_image_header(picture(picture_format, size))
    assert header is not None
    assert (header.width, header.height) == size


@pytest.mark.parametrize("picture_format", ["PNG", "JPEG", "GIF", "WEBP"])
def test_truncated_header_is_none(picture_format: str) -> None:
    data = picture(picture_format)
    whole = parse_image_header(data)
    cuts = [parse_image_header(data[:length]) for length in range(len(data))]
    assert cuts[:10] == [None] * 10
    assert set(cuts) <= {None, whole}


@given(st.sampled_from([b"", PNG[:8], b"\xff\xd8\xff", b"GIF89a", b"RIFF0000WEBP", b"RIFF0000WEBPVP8X"]), st.binary())
def test_random_bytes_never_raise(begins: bytes, rest: bytes) -> None:
    header = parse_image_header(begins + rest)
    assert header is None or header.width >= 0


@pytest.mark.parametrize("segment", [b"\xff\xe0\0\2", b"\xff\xd0", b"\xff"])
def test_jpeg_with_too_many_segments_is_none(segment: bytes) -> None:
    frame = picture("JPEG").partition(b"\xff\xc0")[2]
    assert parse_image_header(b"\xff\xd8" + segment * 5 + b"\xff\xc0" + frame) is not None
    assert parse_image_header(b"\xff\xd8" + segment * 5_000 + b"\xff\xc0" + frame) is None


def test_messages_without_images_and_other_parts_are_unchanged() -> None:
    messages = incoming(data_uri(PNG))
    checked = check_images(messages, config(), image_client(config()))
    assert checked == tuple(messages)
    assert checked[0] is messages[0]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (data_uri(b"%PDF-1.7"), "no image"),
        (data_uri(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"), "no image"),
        (data_uri(b"GIF89a" + b"\0" * 20), "no pixels"),
        (data_uri(picture("PNG", (16_385, 1), "1")), "16385 x 1 pixels; the limits are 16384 a side"),
        (data_uri(PNG[:16] + (12_000).to_bytes(4) * 2 + PNG[24:]), "12000 x 12000 pixels"),
        ("data:image/png;base64,****", "not valid base64"),
        ("data:image/png;base64,AAAAA", "not valid base64"),
        ("data:image/png;base64,ü", "not valid base64"),
        ("data:image/png;base64," + "A" * (1024 * 1024 - 1) + "=" + "AAAA", "not valid base64"),
        ("data:image/png;base64,AAA=AAA=", "not valid base64"),
        ("data:image/png,plain", "Write it as `data:image/png;base64"),
        ("data:", "Write it as `data:image/png;base64"),
        ("http://site.test/a.png", r"images\.allowUrl"),
        ("file:///etc/passwd", "not a `data:` URI"),
        ("", "not a `data:` URI"),
    ],
)
def test_unusable_image_is_refused_with_path_and_reason(url: str, reason: str) -> None:
    error = refusal(url)
    assert error.param == PLACE
    with pytest.raises(GatewayError, match=reason):
        raise error


def test_disallowed_type_is_refused_by_name() -> None:
    error = refusal(data_uri(picture("GIF"), "image/png"), allowedMimes=["image/png"])
    assert error.message == "The content of the image is image/gif; allowed are image/png."


def test_image_of_limit_size_is_accepted_and_larger_one_refused() -> None:
    largest = PNG + bytes(10 * MIB - len(PNG))
    assert check(data_uri(largest)) == [data_uri(largest)]
    for larger in (1, 2, 3, MIB):
        assert "larger than 10 MiB, the limit for one image" in refusal(data_uri(largest + bytes(larger))).message


def test_total_image_size_beyond_limit_is_refused_with_path() -> None:
    half = data_uri(PNG + bytes(MAX_TOTAL_BYTES // 2 - len(PNG)))
    assert len(check(half, half)) == 2
    error = refusal(half, half, data_uri(PNG))
    assert error.param == "messages[2].content[3].image_url.url"
    assert "larger than 20 MiB together" in error.message


def test_request_is_limited_to_eight_images() -> None:
    assert len(check(*[data_uri(PNG)] * 8)) == 8
    error = refusal(*[data_uri(PNG)] * 9)
    assert error.param == "messages[2].content[9].image_url.url"
    assert "8 images" in error.message


def test_image_url_is_fetched_where_allowed(client: PublicHttpClient, server: PageServer) -> None:
    server.pages |= {"/a": redirect("/b.gif"), "/b.gif": page(PNG, "image/gif")}
    assert check(server.url("/a"), client=client, allowUrl=True) == [data_uri(PNG)]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/missing", "its server answered with 404"),
        ("/html", "no image"),
        ("/endless", "larger than 1 MiB"),
        ("/inside", "not a public address"),
        ("/loop", "more than 2 redirects"),
    ],
)
def test_image_that_cannot_be_fetched_is_refused_with_reason(
    client: PublicHttpClient, server: PageServer, path: str, reason: str
) -> None:
    server.pages |= {
        "/html": page("<html>", "image/png"),
        "/endless": endless(b"HTTP/1.1 200 OK\r\n\r\n" + PNG, bytes(65536)),
        "/inside": redirect("http://inside.test/"),
        "/loop": redirect("/loop"),
    }
    error = refusal(server.url(path), client=client, allowUrl=True, maxBytes=MIB, maxRedirects=2)
    assert error.param == PLACE
    assert reason in error.message


def test_silent_image_server_times_out(client: PublicHttpClient, server: PageServer) -> None:
    left = threading.Event()

    def silence(_: str) -> Iterator[bytes]:
        left.wait(10)
        yield b""

    server.pages["/"] = silence
    error = refusal(server.url("/"), client=client, allowUrl=True, timeoutMs=200)
    left.set()
    assert "time limit" in error.message


def test_images_are_fetched_from_allowed_hosts_only() -> None:
    error = refusal("http://elsewhere.test/", allowUrl=True, urlAllowlist=["*.site.test"])
    assert "elsewhere.test is not among the allowed hosts" in error.message
