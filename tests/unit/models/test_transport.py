"""Pooled HTTP connections to providers: reuse, replacement, closing, timeouts, addresses."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.certificate import CERTIFICATE
from support.interruption import interrupt_once
from support.polling import until
from support.provider_calls import KEY, Answer, ask, fail, open_provider
from support.upstream import Exchange, Upstream
from support.upstream_answers import TEXT, WORDS

from service.core import concurrency
from service.core.messages import Role, text_message
from service.models.http import transport
from service.models.openai.provider import OpenAIProvider
from service.models.provider import ModelRequest
from unit.models.wire_cases import said, whole

INTERIM_ANSWER = b"HTTP/1.1 199 Nearly\r\nTransfer-Encoding: chunked\r\n\r\n"


#: Longer than a machine stalls, and shorter than eight pieces take.
PATIENT_SECONDS, PIECE_SECONDS = 1.5, 0.25


@pytest.fixture
def provider(upstream: Upstream) -> Iterator[OpenAIProvider]:
    opened = open_provider(upstream.url)
    yield opened
    opened.close()


@pytest.mark.parametrize(("model", "text"), [("hang", ""), ("hang-midway", WORDS[0]), ("comments-only", WORDS[0])])
def test_silence_is_timeout_despite_keepalives(upstream: Upstream, model: str, text: str) -> None:
    provider = open_provider(upstream.url, PATIENT_SECONDS)
    came, error = fail(provider, model)
    assert (came, error.code) == (text, "provider_timeout")
    until(upstream.aborted.is_set)
    provider.close()


def answer_slowly(*pieces: bytes) -> Callable[[Exchange], None]:
    def answer(exchange: Exchange) -> None:
        exchange.head(200, "application/json")
        for piece in pieces:
            exchange.wait(PIECE_SECONDS)
            exchange.send(piece)
        exchange.last_chunk()

    return answer


def cut(body: bytes) -> tuple[bytes, ...]:
    return tuple(body[at : at + len(body) // 7] for at in range(0, len(body), len(body) // 7))


@pytest.mark.parametrize(
    "body",
    [
        whole("Hello there"),
        (said("Hello ", "there") + said("", reason="stop")).replace(b"data: ", b"").replace(b"\n\n", b"\n"),
        said("Hello there" + " " * 600, reason="stop"),
        said("Hello there", reason="stop").replace(b"data: {", b"data: {\ndata: "),
    ],
    ids=["document", "documents in lines", "event", "event of two lines"],
)
def test_body_that_arrives_slowly_is_no_keepalive(upstream: Upstream, body: bytes) -> None:
    provider = open_provider(upstream.url, PATIENT_SECONDS)
    upstream.answers["slowly"] = answer_slowly(*cut(body))
    assert ask(provider, "slowly")[0].strip() == "Hello there"
    provider.close()


@pytest.mark.parametrize(
    "keepalives",
    [
        [b": still here\n\n", b":", b" still here\n", b"\n"],
        [b'event: ping\ndata: {"ty', b'pe": "ping"}\n\n'],
        [b"data:", b" \n\n"],
        [b"data: n", b"ull\n\n"],
        [b"\n"],
    ],
)
def test_keepalives_in_pieces_are_no_progress(upstream: Upstream, keepalives: list[bytes]) -> None:
    provider = open_provider(upstream.url, PATIENT_SECONDS)
    upstream.answers["slowly"] = answer_slowly(said("Hello"), *(keepalives * 20))
    text, error = fail(provider, "slowly")
    assert (text, error.code, "keep-alives" in error.message) == ("Hello", "provider_timeout", True)
    provider.close()


def test_white_space_in_the_middle_of_a_document_is_no_progress(upstream: Upstream) -> None:
    provider = open_provider(upstream.url, timeout_seconds=0.4)
    upstream.answers["slowly"] = answer_slowly(b'{"choices":', *([b" "] * 20))
    assert fail(provider, "slowly")[1].code == "provider_timeout"
    provider.close()


@pytest.mark.parametrize(
    ("head", "code"), [(b"HTTP/1.1 200 OK\r\nX: ", "provider_timeout"), (b"HTTP/1.1 503 No\r\n\r\n", "provider_error")]
)
def test_slow_response_head_or_error_body_times_out(head: bytes, code: str) -> None:
    def drip(listener: socket.socket) -> None:
        with suppress(OSError), listener.accept()[0] as connection:
            connection.sendall(head)
            while True:
                connection.sendall(b"x")
                time.sleep(0.1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        provider = open_provider(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", PATIENT_SECONDS)
        assert fail(provider, "ok")[1].code == code
        thread.join()
        provider.close()


def test_interim_response_with_body_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        provider = open_provider(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", timeout_seconds=60)
        thread = threading.Thread(target=write_without_end, args=(listener, INTERIM_ANSWER))
        thread.start()
        _, error = fail(provider, "ok")
        assert (error.code, "an interim answer has a body" in error.message) == ("provider_error", True)
        thread.join()
        provider.close()


def test_connection_is_kept_until_answer_after_interim_response_ends() -> None:
    answer = whole("Hello.")
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer)

    def write_slowly(listener: socket.socket) -> None:
        with listener.accept()[0] as connection:
            for part in (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", head, answer[:20], answer[20:]):
                connection.sendall(part)
                time.sleep(0.1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        provider = open_provider(f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
        thread = threading.Thread(target=write_slowly, args=(listener,))
        thread.start()
        assert ask(provider, "ok")[0] == "Hello."
        thread.join()
        provider.close()


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_headers_may_come_in_pieces_and_first_of_a_name_counts(size: int) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nRetry-After: 1\r\nX-Early: yes\r\n\r\n"
    head = b"HTTP/1.1 429 No\r\nX-Empty:\r\nRETRY-After: 20\r\nretry-after: 3\r\nContent-Length: 0\r\n\r\n"

    def write_in_pieces(listener: socket.socket) -> None:
        with listener.accept()[0] as connection:
            connection.recv(4096)
            for at in range(0, len(interim + head), size):
                connection.sendall((interim + head)[at : at + size])
                time.sleep(0.002)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        upstream = transport.Upstream(f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread = threading.Thread(target=write_in_pieces, args=(listener,))
        thread.start()
        with upstream.get("/") as response:
            names = ("X-Empty", "Retry-After", "content-length", "x-early")
            assert (response.status, [*map(response.header, names)]) == (429, ["", "20", "0", None])
        thread.join()
        upstream.close()


@pytest.mark.parametrize("beyond", [b"HTTP/1.1 200 OK\r\nContent-Len", b"HTTP/1.1 200 OK\r\n\r\n", b"junk"])
def test_connection_with_more_than_the_answer_is_not_reused(beyond: bytes) -> None:
    answer = whole("Hello.")
    response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b%b" % (len(answer), answer, beyond)
    connections: list[socket.socket] = []

    def write_more(listener: socket.socket) -> None:
        for _ in range(2):
            connections.append(listener.accept()[0])
            connections[-1].sendall(response)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        provider = open_provider(f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
        thread = threading.Thread(target=write_more, args=(listener,))
        thread.start()
        assert fail(provider, "ok")[1].message.endswith("bytes follow its end.")
        fail(provider, "ok")
        thread.join()
        provider.close()
    assert len(connections) == 2
    for connection in connections:
        connection.close()


def write_without_end(listener: socket.socket, head: bytes) -> None:
    with suppress(OSError), listener.accept()[0] as connection:
        connection.sendall(head)
        while True:
            connection.sendall(b"5\r\nhello\r\n")


def test_error_has_no_user_or_query_of_address() -> None:
    url = "http://someone-secret:pass%20word@127.0.0.1:1/v1?key=query%2Fsecret&k=v"
    redact = transport.Upstream(url).redact
    assert redact("someone-secret pass word pass%20word query/secret query%2Fsecret v") == "*** *** *** *** *** v"


def test_short_pauses_do_not_add_up_to_timeout(upstream: Upstream) -> None:
    provider = open_provider(upstream.url, PATIENT_SECONDS)
    upstream.answers["slowly"] = answer_slowly(*(said(f"{number} ") for number in range(7)), said("end", reason="stop"))
    assert ask(provider, "slowly")[0] == "0 1 2 3 4 5 6 end"
    provider.close()


def test_refused_connection_is_unavailable() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        provider = open_provider(f"http://127.0.0.1:{closed.getsockname()[1]}/v1")
        error = fail(provider, "ok")[1]
    assert error.code == "provider_unavailable"
    assert "Connection refused" in error.message
    provider.close()


def test_unresolvable_name_is_unavailable() -> None:
    provider = open_provider("http://no..where/v1")
    assert fail(provider, "ok")[1].code == "provider_unavailable"
    provider.close()


def test_untrusted_certificate_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "certificate.pem").write_text(CERTIFICATE)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "certificate.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener, context.wrap_socket(listener, server_side=True) as server:
        thread = threading.Thread(target=_refused_handshake, args=(server,))
        thread.start()
        provider = open_provider(f"https://localhost:{server.getsockname()[1]}/v1")
        error = fail(provider, "ok")[1]
        thread.join()
    assert error.code == "provider_unavailable"
    assert "certificate" in error.message
    provider.close()


def _refused_handshake(server: ssl.SSLSocket) -> None:
    with suppress(ssl.SSLError), server.accept()[0]:
        raise AssertionError("the client trusted the certificate")


def test_closed_provider_is_unavailable(provider: OpenAIProvider) -> None:
    provider.close()
    provider.close()
    assert fail(provider, "ok")[1].code == "provider_unavailable"


# connections


def test_connection_is_reused_after_complete_answers(provider: OpenAIProvider, upstream: Upstream) -> None:
    for model in ("ok", "plain-json", "status-400", "ok"):
        if model.startswith("status"):
            fail(provider, model)
        else:
            ask(provider, model)
    assert upstream.connections == 1


def test_dead_idle_connection_is_replaced_silently(provider: OpenAIProvider, upstream: Upstream) -> None:
    ask(provider, "ok")
    assert ask(provider, "ok-unless-reused")[0] == TEXT
    assert upstream.connections == 2
    assert [received.body["model"] for received in upstream.requests] == ["ok", "ok-unless-reused", "ok-unless-reused"]


def test_new_connection_that_dies_is_not_retried(provider: OpenAIProvider, upstream: Upstream) -> None:
    fail(provider, "drop-before")
    assert len(upstream.requests) == 1


def test_leaving_answer_closes_connection(provider: OpenAIProvider, upstream: Upstream) -> None:
    answer = Answer(provider, "slow")
    assert answer.next_text()
    answer.leave()
    until(upstream.aborted.is_set)
    assert ask(provider, "ok")[0] == TEXT


@pytest.mark.parametrize("model", ["hang", "hang-midway"])
def test_cancelled_wait_closes_connection(provider: OpenAIProvider, upstream: Upstream, model: str) -> None:
    scope = concurrency.CancelScope()
    ended = concurrency.Event()

    def wait() -> None:
        try:
            with scope:
                ask(provider, model)
        except concurrency.Cancelled:
            ended.set()

    concurrency.spawn(wait)
    until(lambda: upstream.requests)
    scope.cancel()
    assert ended.wait(60)
    until(upstream.aborted.is_set)


def test_deadline_closes_connection(provider: OpenAIProvider, upstream: Upstream) -> None:
    interrupt_once(lambda: upstream.requests, lambda: ask(provider, "hang-midway"))
    until(upstream.aborted.is_set)


def test_many_answers_are_read_concurrently(provider: OpenAIProvider, upstream: Upstream) -> None:
    def answer_all_at_once(exchange: Exchange) -> None:
        until(lambda: len(upstream.requests) == 20)
        exchange.head()
        exchange.words()
        exchange.end()

    upstream.answers["together"] = answer_all_at_once
    greenlets = [concurrency.spawn(ask, provider, "together") for _ in range(20)]
    assert [greenlet.get()[0] for greenlet in greenlets] == [TEXT] * 20
    assert upstream.connections == 20


# addresses


@pytest.mark.parametrize("url", ["", "example.com", "ftp://example.com", "http://", "file:///etc/passwd"])
def test_invalid_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="address"):
        transport.Upstream(url)


@pytest.mark.parametrize(("name", "value"), [("X-Key", f"{KEY}\n"), ("X Key", "a"), ("X-Key", "a\r\nX-Other: b")])
def test_invalid_header_is_refused_without_its_value(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="header") as refusal:
        transport.Upstream("http://127.0.0.1/v1", {name: value})
    assert KEY not in str(refusal.value)


def test_password_in_address_becomes_header(upstream: Upstream) -> None:
    provider = OpenAIProvider(transport.Upstream(upstream.url.replace("://", "://ann:p%40ss@")))
    ask(provider, "ok")
    assert upstream.requests[0].headers["authorization"] == "Basic YW5uOnBAc3M="
    assert "@" not in upstream.requests[0].headers["host"]
    provider.close()


def test_long_continued_conversation_arrives_whole(upstream: Upstream, provider: OpenAIProvider) -> None:
    messages = tuple(text_message(Role.USER, f"{number} " * 20_000) for number in range(20))
    for count in (16, 18, 20):
        ask(provider, ModelRequest("ok", "Be kind.", messages[:count], continued=True))
        sent = upstream.requests[-1].body["messages"]
        assert [one["content"] for one in sent] == ["Be kind.", *(one.text for one in messages[:count])]
