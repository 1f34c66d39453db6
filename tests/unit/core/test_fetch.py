"""Fetching untrusted URLs: permitted addresses, and limits on responses."""

from __future__ import annotations

import gzip
import random
import ssl
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import brotli
import pytest
from support.certificate import CERTIFICATE
from support.codings import zstd_compress
from support.page_server import PageServer, endless, page, raw, redirect

from service.core.fetch.addresses import AddressPolicy, is_public
from service.core.fetch.client import FetchLimits, PublicHttpClient, PublicResponse
from service.core.fetch.errors import FetchError
from service.core.fetch.resolver import SystemResolver

LIMITS = FetchLimits(max_bytes=1_000_000, timeout_seconds=20, max_redirects=3)

#: A patched process that fetches from a silent server while another greenlet counts.
PATCHED = """
from gevent import monkey
monkey.patch_all()
import socket
from service.core import concurrency
from service.core.fetch.addresses import AddressPolicy
from service.core.fetch.client import FetchLimits, PublicHttpClient
from service.core.fetch.errors import FetchError

def tick():
    global ticks
    while True:
        concurrency.sleep(0.01)
        ticks += 1

def slow_resolver(host, port):
    concurrency.sleep(60)

ticks = 0
concurrency.spawn(tick)
silent = socket.create_server(("127.0.0.1", 0))
port = silent.getsockname()[1]
policy = AddressPolicy(exempt=frozenset({("127.0.0.1", port)}))
for options in ({}, {"resolver": slow_resolver}):
    for scheme in ("http", "https"):
        try:
            PublicHttpClient(policy, **options).open(f"{scheme}://127.0.0.1:{port}/", FetchLimits(1000, 0.2))
        except FetchError as error:
            print(error)
print(ticks >= 10)
"""

#: A patched process that fetches at most 1 MB from a server that floods it; prints the error, and whether other
#: greenlets ran meanwhile and the fetch ended in time.
FLOODED = """
from gevent import monkey
monkey.patch_all()
import sys, time
from service.core import concurrency
from service.core.fetch.addresses import AddressPolicy
from service.core.fetch.client import FetchLimits, PublicHttpClient
from service.core.fetch.errors import FetchError

def tick():
    global worst
    last = time.thread_time()  # the work between two ticks, whatever else the machine does
    while True:
        concurrency.sleep(0.005)
        worst, last = max(worst, time.thread_time() - last), time.thread_time()

worst, began, port = 0.0, time.thread_time(), int(sys.argv[1])
client = PublicHttpClient(AddressPolicy(exempt=frozenset({("127.0.0.1", port)})))
concurrency.spawn(tick)
try:
    with client.open(f"http://127.0.0.1:{port}/flood", FetchLimits(1_000_000, 20)) as response:
        print("read", len(response.read_body()[0]))
except FetchError as error:
    print(error)
print(worst < 0.5, time.thread_time() - began < 15)
"""
#: A patched process whose shared thread pool is busy, as with slow names; prints whether a name was resolved, and
#: whether that was before the pool was free again.
BLOCKED = """
from gevent import monkey
monkey.patch_all()
import gevent
from service.core.fetch.resolver import SystemResolver

pool = gevent.get_hub().threadpool
sleep = monkey.get_original("time", "sleep")
jobs = [pool.spawn(sleep, 3) for _ in range(pool.maxsize)]
print("127.0.0.1" in SystemResolver()("localhost", 80))
print(not any(job.ready() for job in jobs))
"""
MOSTLY_FRAMING = "the response is mostly framing: it exceeds twice the size allowed for its content"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class FakeResolver:
    """A resolver with fixed answers that records its calls."""

    def __init__(self, **hosts: Sequence[str]) -> None:
        self.hosts = {name.replace("_", "."): addresses for name, addresses in hosts.items()}
        self.asked: list[str] = []

    def __call__(self, host: str, _port: int) -> Sequence[str]:
        self.asked.append(host)
        if host not in self.hosts:
            raise OSError("no such name")
        return self.hosts[host]


@pytest.fixture
def server() -> Iterator[PageServer]:
    with PageServer() as running:
        yield running


@pytest.fixture
def names() -> FakeResolver:
    return FakeResolver(site_test=["127.0.0.1"], inside_test=["10.0.0.7"])


@pytest.fixture
def client(server: PageServer, names: FakeResolver) -> PublicHttpClient:
    return PublicHttpClient(AddressPolicy(exempt=server.exempt), resolver=names)


def fetch(client: PublicHttpClient, url: str, limits: FetchLimits = LIMITS) -> tuple[PublicResponse, bytes]:
    with client.open(url, limits) as response:
        return response, response.read_body()[0]


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
        *("169.254.169.254", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.8", "192.0.2.1", "198.18.0.1"),
        *("198.51.100.1", "203.0.113.1", "192.88.99.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "64:ff9b:1::1"),
        *("100::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2002:7f00:1::"),
        *(
            "2001::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "3fff::1",
            "5f00::1",
            "2606:4700::1%lo",
            "localhost",
            "",
        ),
    ],
)
def test_addresses_off_the_public_internet_are_refused(address: str) -> None:
    assert not is_public(address)
    assert not AddressPolicy().permits(address, 80)


@pytest.mark.parametrize("address", ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1"])
def test_public_addresses_are_permitted_on_web_ports_only(address: str) -> None:
    policy = AddressPolicy()
    assert policy.permits(address, 80)
    assert policy.permits(address, 443)
    assert not policy.permits(address, 22)
    assert AddressPolicy(ports=frozenset({22})).permits(address, 22)


def test_response_is_read(client: PublicHttpClient, server: PageServer) -> None:
    server.pages["/a%20page?q=%C3%BC"] = page("hello", "Text/Plain; charset=UTF-8", "200 OK")
    response, body = fetch(client, server.url("/a%20page?q=ü#part"))
    assert (response.status, response.content_type, response.charset) == (200, "text/plain", "utf-8")
    assert response.url == server.url("/a%20page?q=%C3%BC")
    assert body == b"hello"
    assert f"Host: site.test:{server.port}\r\n" in server.requests[0]


def test_chunked_and_close_delimited_responses_are_read(client: PublicHttpClient, server: PageServer) -> None:
    server.pages["/chunks"] = raw(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", b"1\r\nc\r\n0\r\n\r\n"
    )
    server.pages["/end"] = raw(b"HTTP/1.0 200 OK\r\n\r\n", b"ab", b"c")
    assert fetch(client, server.url("/chunks"))[1] == b"abc"
    assert fetch(client, server.url("/end"))[1] == b"abc"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://site.test/", "only http"),
        ("file:///etc/passwd", "only http"),
        ("site.test", "only http"),
        ("http://", "no host"),
        ("http://site.test:0/", "no host"),
        ("http://site.test:99999/", "not a valid URL"),
        ("http://[::1/", "not a valid URL"),
        ("http://user:pass@site.test/", "user name"),
        ("http://site.test/a b", "white space"),
        ("http://site.test/\r\nX-Injected: 1", "white space"),
        ("http://site.test\n.evil.test/", "white space"),
        (f"http://site.test/{'x' * 9000}", "at most 8192"),
        ("http://no-such-name.test/", "cannot be resolved: no such name"),
    ],
)
def test_invalid_url_is_refused_with_its_reason(client: PublicHttpClient, url: str, reason: str) -> None:
    with pytest.raises(FetchError, match=reason):
        client.open(url, LIMITS)


def test_name_with_internal_addresses_is_refused(client: PublicHttpClient, names: FakeResolver) -> None:
    for addresses in (["10.0.0.7"], ["127.0.0.1"], ["::ffff:127.0.0.1"], ["169.254.169.254", "fd00::1"], []):
        names.hosts["inside.test"] = addresses
        with pytest.raises(FetchError, match=r"inside\.test is not a public address"):
            client.open("http://inside.test/", LIMITS)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "0x7f.1", "127.1", "[::1]", "[::ffff:127.0.0.1]", "localhost"]
)
def test_loopback_is_refused_in_any_spelling(server: PageServer, host: str) -> None:
    client = PublicHttpClient(AddressPolicy(ports=frozenset({server.port})), resolver=SystemResolver())
    with pytest.raises(FetchError, match="not a public address"):
        client.open(server.url("/", host), LIMITS)
    assert server.requests == []


def test_names_are_resolved_in_threads_of_their_own() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["True", "True"], done.stderr


def test_only_permitted_addresses_of_a_name_are_connected_to(
    client: PublicHttpClient, server: PageServer, names: FakeResolver
) -> None:
    server.pages["/"] = page("hello")
    names.hosts["site.test"] = ["127.0.0.2", "10.0.0.7", "127.0.0.1"]
    assert fetch(client, server.url("/"))[1] == b"hello"


def test_name_is_resolved_once_against_rebinding(server: PageServer) -> None:
    server.pages["/"] = page("hello")
    answers = [["127.0.0.1"], ["127.0.0.9"]]
    client = PublicHttpClient(AddressPolicy(exempt=server.exempt), resolver=lambda *_: answers.pop(0))
    assert fetch(client, server.url("/"))[1] == b"hello"
    assert answers == [["127.0.0.9"]]


def test_redirects_are_followed(client: PublicHttpClient, server: PageServer) -> None:
    server.pages["/1"] = redirect("/2 ü", 301)
    server.pages["/2%20%C3%BC"] = redirect(server.url("/3"), 308)
    server.pages["/3"] = page("there")
    response, body = fetch(client, server.url("/1"))
    assert (response.url, body) == (server.url("/3"), b"there")


def test_redirect_without_location_is_returned(client: PublicHttpClient, server: PageServer) -> None:
    server.pages["/"] = page("odd", "text/plain", "302 Found")
    assert fetch(client, server.url("/"))[0].status == 302


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://127.0.0.1:{other}/", "cannot be resolved"),
        ("http://loopback.test:{other}/", "not a public address"),
        ("http://inside.test/", "not a public address"),
        ("//inside.test/", "not a public address"),
        ("file:///etc/passwd", "only http"),
        ("http://[", "invalid URL"),
        ("/loop", "more than 3 redirects"),
    ],
)
def test_each_redirect_is_checked(
    client: PublicHttpClient, server: PageServer, names: FakeResolver, location: str, reason: str
) -> None:
    names.hosts["loopback.test"] = ["127.0.0.1"]
    with PageServer() as other:
        server.pages["/loop"] = redirect(location.format(other=other.port))
        with pytest.raises(FetchError, match=reason):
            client.open(server.url("/loop"), LIMITS)
        assert other.requests == []


def test_only_allowed_hosts_are_reached_directly_and_by_redirects(server: PageServer, names: FakeResolver) -> None:
    names.hosts |= {"a.site.test": ["127.0.0.1"], "evil-site.test": ["127.0.0.1"]}
    policy = AddressPolicy(hosts=("*.Site.test", "one.test"), exempt=server.exempt)
    client = PublicHttpClient(policy, resolver=names)
    server.pages |= {"/": page("hello"), "/away": redirect(server.url("/", "evil-site.test"))}
    assert fetch(client, server.url("/", "A.site.test."))[1] == b"hello"
    for url in (server.url("/"), server.url("/", "evil-site.test"), server.url("/away", "a.site.test")):
        with pytest.raises(FetchError, match="not among the allowed hosts"):
            client.open(url, LIMITS)


def test_body_is_read_only_up_to_the_limit(client: PublicHttpClient, server: PageServer) -> None:
    gigabyte = 1 << 30
    piece = b"x" * 65536
    announced = f"HTTP/1.1 200 OK\r\nContent-Length: {gigabyte}\r\n\r\n".encode()
    server.pages["/announced"] = endless(announced, piece, gigabyte // len(piece))
    server.pages["/endless"] = endless(b"HTTP/1.1 200 OK\r\n\r\n", piece)
    server.pages["/chunks"] = endless(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + piece + b"\r\n"
    )
    for path in ("/announced", "/endless", "/chunks"):
        with client.open(server.url(path), LIMITS) as response:
            body, whole = response.read_body()
        assert (len(body), whole) == (LIMITS.max_bytes, False)
    assert server.sent_bytes < 100_000_000


def test_body_of_exactly_the_limit_is_complete(client: PublicHttpClient, server: PageServer) -> None:
    server.pages["/"] = page(b"x" * 1000)
    for limit, whole in ((1000, True), (999, False)):
        with client.open(server.url("/"), FetchLimits(limit, 20)) as response:
            assert response.read_body() == (b"x" * limit, whole)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nX-Slow: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
        b"",
    ],
)
def test_slow_drip_ends_at_the_time_limit(client: PublicHttpClient, server: PageServer, head: bytes) -> None:
    def drip(_: str) -> Iterator[bytes]:
        yield head
        while True:
            time.sleep(0.05)
            yield b"x"

    server.pages["/"] = drip
    with pytest.raises(FetchError, match="time limit"):
        fetch(client, server.url("/"), FetchLimits(10_000_000, 0.4))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "connection failed"),
        (b"garbage\r\n\r\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "before the response was complete"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhalf", "is incomplete"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: compress\r\nContent-Length: 0\r\n\r\n", "Content-Encoding .compress."),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nplain", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n\r\n" + b"\xff" * 99, "not valid HTTP"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"x", mtime=0)[:-1],
            "before the response",
        ),
    ],
)
def test_broken_response_is_reported(client: PublicHttpClient, server: PageServer, answer: bytes, reason: str) -> None:
    server.pages["/"] = raw(answer)
    with pytest.raises(FetchError, match=reason):
        fetch(client, server.url("/"))


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data, wbits=-15)


def in_members(data: bytes, compress: Callable[[bytes], bytes] = gzip.compress) -> bytes:
    return b"".join(compress(data[at : at + 100_000]) for at in range(0, len(data), 100_000))


def in_frames(data: bytes) -> bytes:
    return in_members(data, zstd_compress)


CODINGS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstd_compress,
}


@pytest.mark.parametrize(
    ("coding", "compress"), [*CODINGS.items(), ("deflate", raw_deflate), ("gzip", in_members), ("zstd", in_frames)]
)
def test_compressed_body_is_decoded(
    client: PublicHttpClient, server: PageServer, coding: str, compress: Callable[[bytes], bytes]
) -> None:
    body = bytes(range(256)) * 2_000
    server.pages["/"] = page(compress(body), "text/plain", "200 OK", f"Content-Encoding: {coding}")
    with client.open(server.url("/"), FetchLimits(len(body), 20)) as response:
        assert response.read_body() == (body, True)
    assert "Accept-Encoding: identity" in server.requests[0]


@pytest.mark.parametrize("behind", [1, 70_000])
@pytest.mark.parametrize(("coding", "compress"), CODINGS.items())
def test_bytes_behind_the_end_of_a_compressed_body_are_ignored(
    client: PublicHttpClient, server: PageServer, coding: str, compress: Callable[[bytes], bytes], behind: int
) -> None:
    body = random.Random(1).randbytes(150_000)
    answer = compress(body) + b"x" * behind
    server.pages["/"] = page(answer, "text/plain", "200 OK", f"Content-Encoding: {coding}")
    with client.open(server.url("/"), FetchLimits(len(body), 20)) as response:
        assert response.read_body() == (body, True)
    with client.open(server.url("/"), FetchLimits(len(body) - 1, 20)) as response:
        assert response.read_body() == (body[:-1], False)


def test_corrupt_brotli_body_is_reported(client: PublicHttpClient, server: PageServer) -> None:
    answer = bytearray(brotli.compress(bytes(range(256)) * 2_000))
    answer[len(answer) // 2 :] = b"\xff" * len(answer)
    server.pages["/"] = page(bytes(answer), "text/plain", "200 OK", "Content-Encoding: br")
    with client.open(server.url("/"), LIMITS) as response, pytest.raises(FetchError):
        response.read_body()


#: Brotli's best quality would take seconds.
BOMBS = CODINGS | {"br": partial(brotli.compress, quality=3)}


@pytest.mark.parametrize(("coding", "compress"), BOMBS.items())
def test_decompression_bomb_is_cut_at_the_limit(
    client: PublicHttpClient, server: PageServer, coding: str, compress: Callable[[bytes], bytes]
) -> None:
    bomb = compress(bytes(200_000_000))
    server.pages["/"] = page(bomb, "text/plain", "200 OK", f"Content-Encoding: {coding}")
    tracemalloc.start()
    try:
        with client.open(server.url("/"), FetchLimits(1_000_000, 20)) as response:
            assert response.read_body() == (bytes(1_000_000), False)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_refused_port_names_the_allowed_ports(client: PublicHttpClient, names: FakeResolver) -> None:
    names.hosts["public.test"] = ["93.184.215.14"]
    with pytest.raises(FetchError, match=r"port 8443 of public\.test is not allowed; the allowed ports are 80 and 443"):
        client.open("http://public.test:8443/", LIMITS)


def test_certificate_must_match_the_name(tmp_path: Path, names: FakeResolver) -> None:
    file = tmp_path / "certificate.pem"
    file.write_text(CERTIFICATE)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(file)
    trusting = ssl.create_default_context(cafile=str(file))
    names.hosts["localhost"] = ["127.0.0.1"]
    with PageServer(server_side) as server:
        server.pages["/"] = page("secret")
        policy = AddressPolicy(exempt=server.exempt)
        client = PublicHttpClient(policy, resolver=names, tls=trusting)
        assert fetch(client, server.url("/", "localhost"))[1] == b"secret"
        with pytest.raises(FetchError, match="TLS connection failed"):
            client.open(server.url("/", "site.test"), LIMITS)
        with pytest.raises(FetchError, match="TLS connection failed"):
            PublicHttpClient(policy, resolver=names).open(server.url("/", "localhost"), LIMITS)


def test_patched_process_runs_other_greenlets_meanwhile() -> None:
    done = subprocess.run([sys.executable, "-c", PATCHED], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [*["no complete response within the time limit"] * 4, "True"]


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
        (CHUNKED, b"1\r\nx\r\n" * 10_000),
        (CHUNKED, b"1;" + b"e" * 60_000 + b"\r\nx\r\n"),
        (CHUNKED + b"0\r\n", b"a: b\r\n" * 10_000),
    ],
    ids=["interim answers", "tiny chunks", "chunk extensions", "trailers"],
)
def test_flood_of_framing_is_ended_without_blocking_others(server: PageServer, head: bytes, piece: bytes) -> None:
    server.pages["/flood"] = endless(head, piece)
    ran = subprocess.run(
        [sys.executable, "-c", FLOODED, str(server.port)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.stdout.splitlines() == [MOSTLY_FRAMING, "True True"], ran.stderr


def test_denied_host_is_refused_even_if_it_is_allowed() -> None:
    policy = AddressPolicy(
        hosts=("*.example.com", "example.com"), denied_hosts=("internal.example.com", "*.old.example.com")
    )
    assert policy.permits_host("example.com")
    assert policy.permits_host("www.example.com.")
    for host in ("internal.example.com", "internal.example.com.", "a.old.example.com", "example.org"):
        assert not policy.permits_host(host)


def test_denied_host_is_refused_without_an_allow_list() -> None:
    policy = AddressPolicy(denied_hosts=("example.com",))
    assert policy.permits_host("example.org")
    assert not policy.permits_host("example.com")


@pytest.mark.parametrize(
    "url",
    [
        "http://16843009/",
        "http://0x1.1.1.1/",
        "http://1.1.257./",
        "http://\u2460.1.1.1/",
        "http://[2606:4700:4700:0:0:0:0:1111]/",
        "http://[2606:4700:4700::0.0.17.17]/",
        "http://other.example/",
    ],
)
def test_denied_address_is_refused_in_every_spelling_and_under_any_name(names: FakeResolver, url: str) -> None:
    names.hosts["other.example"] = ["1.1.1.1"]
    client = PublicHttpClient(AddressPolicy(denied_hosts=("1.1.1.1", "2606:4700:4700::1111")), resolver=names)
    with pytest.raises(FetchError, match="is not among the allowed hosts"):
        client.open(url, LIMITS)
