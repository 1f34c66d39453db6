"""Files in messages become their text, or are refused with the reason."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import OpenAI
from support.chat import ask, error_of, text_of, user
from support.live import TOKEN, LiveGateway, live_gateway, scripted_config


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with live_gateway(tmp_path_factory.mktemp("gateway"), scripted_config()) as running:
        yield running


@pytest.fixture
def client(gateway: LiveGateway) -> Iterator[httpx.Client]:
    with gateway.client() as open_client:
        yield open_client


PIXEL = b"""<< /Type /XObject /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceGray
/BitsPerComponent 8 /Length 1 >>
stream
x
endstream"""


def pdf(*contents: bytes) -> bytes:
    """Return a PDF with a page for each of these content streams, which may draw text with /F and a picture /P."""
    pages = range(5, 5 + 2 * len(contents), 2)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%b] /Count %d >>" % (b" ".join(b"%d 0 R" % page for page in pages), len(pages)),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        PIXEL,
    ]
    resources = b"<< /Font << /F 3 0 R >> /XObject << /P 4 0 R >> >>"
    for page, content in zip(pages, contents, strict=True):
        stream = zlib.compress(content)
        objects += [
            b"<< /Type /Page /Parent 2 0 R /Contents %d 0 R /Resources %b >>" % (page + 1, resources),
            b"<< /Filter /FlateDecode /Length %d >>\nstream\n%b\nendstream" % (len(stream), stream),
        ]
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, len(out))
    return out + b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + table + end


DRAWN = b"BT /F 12 Tf 72 720 Td (Quarterly report) Tj ET"
PICTURE = b"q 9 0 0 9 0 0 cm /P Do Q"
PDF = pdf(DRAWN)
LOST = DRAWN.replace(b"Quarterly", b"Lost")
PAGES = pdf(DRAWN, LOST)


def part(data: bytes | str, name: str | None = "a.txt", media_type: str = "text/plain") -> dict[str, Any]:
    if isinstance(data, bytes):
        data = f"data:{media_type};base64,{base64.b64encode(data).decode()}"
    return {"type": "file", "file": {"file_data": data, "filename": name}}


def said(client: httpx.Client, *parts: Any, **options: Any) -> str:
    return text_of(ask(client, user([*parts]), **options))


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (part(b"# Title\n\ngr\xc3\xbc\xc3\x9fe", "notes.md", "text/markdown"), "# Title\n\ngrüße"),
        (part(b"\xef\xbb\xbfa;b\r\n1;2", "t.csv", "text/csv"), "a;b\r\n1;2"),
        (part("hi".encode("utf-16"), "t.txt"), "hi"),
        (part(b'{"a": 1}', None, "application/octet-stream"), '{"a": 1}'),
        (part("data:,a%20b"), "a b"),
        (part(base64.urlsafe_b64encode(b"bare??>>").decode().rstrip("=")), "bare??>>"),
        (part(PDF, "r.pdf", "text/plain"), "Quarterly report"),
        (part(PDF[: PDF.index(b"xref")] + b"trailer\n<< /Root 1 0 R >>\n%%EOF", "hand.pdf"), "Quarterly report"),
        (part(pdf(DRAWN, PICTURE), "m.pdf"), "Quarterly report\f[This page has pictures, and no text.]"),
        (part(b"<html><body><p>Hello page</p><script>no()</script></body></html>", "p.HTML"), "Hello page"),
    ],
    ids=["markdown", "csv", "utf-16", "json", "uri", "base64", "pdf", "pdf without a table", "mixed pdf", "html"],
)
def test_text_of_file_is_in_turn_with_its_name(client: httpx.Client, file: Any, text: str) -> None:
    name = file["file"]["filename"] or "file"
    answer = said(client, {"type": "text", "text": "Read this:"}, file)
    assert answer == f"Read this:[File: {name}]\n{text}\n[End of the file {name}]\n"


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (part(b""), "it is empty"),
        (part(b"x" * (5 * 1024 * 1024 + 1)), "5 MiB"),
        (part(b"\x89PNG\r\n\x1a\n\0\0", "p.png", "image/png"), "neither a PDF nor text"),
        (part(b"PK\x03\x04\xff\xfe", "w.docx"), "neither a PDF nor text"),
        (part("data:text/plain;base64"), "no comma"),
        (part("data:text/plain;base64,!!"), "not base64"),
        (part(pdf(PICTURE), "scan.pdf"), "scanned"),
        (part(PAGES.replace(zlib.compress(LOST)[20:30], bytes(10)), "stream.pdf"), "its page 2 is damaged"),
        (part(PAGES.replace(b"/Contents 8 0 R", b"/Contents 9 0 R"), "lost.pdf"), "its page 2 is damaged"),
        (part(PAGES.replace(b"7 0 R]", b"9 0 R]"), "page.pdf"), "pages are missing"),
        (part(PDF.replace(b"/F 3 0 R", b"        "), "font.pdf"), "its fonts do not say"),
        (part(PDF[:200], "half.pdf"), "damaged"),
        (part(b"%PDF-1.4 and nothing else", "no.pdf"), "damaged"),
        (part(b"<html></html>", "e.html"), "no text"),
    ],
)
def test_unreadable_file_is_refused_with_the_reason(client: httpx.Client, file: Any, reason: str) -> None:
    response = ask(client, user([{"type": "text", "text": "x"}, file]))
    assert error_of(response) == (400, "invalid_value", "messages[0].content[1].file.file_data")
    assert reason in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("given", "refusal"),
    [
        ({"type": "file"}, ("missing_required_parameter", "messages[0].content[0].file")),
        ({"type": "file", "file": {}}, ("missing_required_parameter", "messages[0].content[0].file.file_data")),
        ({"type": "file", "file": {"file_id": "f"}}, ("unsupported_parameter", "messages[0].content[0].file.file_id")),
        ({"type": "file", "file": {"file_data": None}}, ("invalid_type", "messages[0].content[0].file.file_data")),
    ],
)
def test_wrong_part_is_refused(client: httpx.Client, given: Any, refusal: tuple[str, str]) -> None:
    assert error_of(ask(client, user([given]))) == (400, *refusal)


def test_files_have_a_limit(client: httpx.Client) -> None:
    assert error_of(ask(client, user([part(b"a")] * 9))) == (400, "invalid_value", "messages")


def test_pdf_that_grows_without_bound_is_refused(client: httpx.Client) -> None:
    bomb = pdf(b"BT /F 12 Tf (" + b"a" * (300 * 1024 * 1024) + b") Tj ET")
    assert len(bomb) < 1024 * 1024
    response = ask(client, user([part(bomb, "bomb.pdf")]), headers={"x-openclaw-model": "scripted/count-1"})
    assert error_of(response)[:2] == (400, "invalid_value")
    assert "too much memory" in response.json()["error"]["message"]
    assert said(client, part(PDF, "r.pdf")).startswith("[File: r.pdf]")


def test_conversation_with_file_continues_its_session(client: httpx.Client) -> None:
    headers = {"x-openclaw-session-key": "files"}
    first = user([{"type": "text", "text": "Read:"}, part(PDF, "r.pdf")])
    answer = text_of(ask(client, first, headers=headers))
    ask(client, first, {"role": "assistant", "content": answer}, user("and?"), headers=headers).raise_for_status()
    stored = client.get("/v1/sessions/agent:main:files").json()["messages"]
    assert [message["role"] for message in stored] == ["user", "assistant", "user", "assistant"]


def test_runs_and_sdk_take_files(client: httpx.Client, gateway: LiveGateway) -> None:
    started = client.post("/v1/runs", json={"input": [user([part(b"in a run", "run.txt")])]}).raise_for_status().json()
    events = client.get(f"/v1/runs/{started['id']}/events").text
    assert "run.txt" in events
    content: Any = [{"type": "text", "text": "x"}, part(PDF, "r.pdf")]
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=TOKEN) as sdk:
        answer = sdk.chat.completions.create(model="openclaw", messages=[{"role": "user", "content": content}])
    assert "Quarterly report" in str(answer.choices[0].message.content)
