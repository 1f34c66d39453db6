"""Parse untrusted URLs."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from service.core.fetch.addresses import canonical_host
from service.core.fetch.errors import FetchError

_DEFAULT_PORTS = {"http": 80, "https": 443}
_URL_CHARACTERS = "%/:?@!$&'()*+,;=-._~"
_BLANK = re.compile(r"[\x00-\x20\x7f]")
_HOST = re.compile(r"[a-z0-9._:-]+")
_MAX_URL_CHARACTERS = 8192


class Target(NamedTuple):
    """A parsed URL; `url` is the normalized whole without its fragment."""

    scheme: str
    host: str
    port: int
    path: str
    url: str

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse_url(url: str) -> Target:
    """Parse an http or https URL. Raises `FetchError`."""
    if len(url) > _MAX_URL_CHARACTERS or _BLANK.search(url):
        raise FetchError(f"a URL must have at most {_MAX_URL_CHARACTERS} characters and no white space")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = canonical_host(parts.hostname or "")
    except ValueError:
        raise FetchError("not a valid URL") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise FetchError("only http:// and https:// URLs are supported")
    if not _HOST.fullmatch(host) or port == 0:
        raise FetchError("not a valid URL: it has no host")
    if "@" in parts.netloc:
        raise FetchError("a URL must not contain a user name or password")
    path = quote(parts.path or "/", safe=_URL_CHARACTERS)
    if parts.query:
        path += f"?{quote(parts.query, safe=_URL_CHARACTERS)}"
    target = Target(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme], path, "")
    return target._replace(url=f"{target.scheme}://{target.authority}{path}")


def resolve_redirect(url: str, location: str) -> str:
    """Return the URL that `url` redirects to with a header Location. Raises `FetchError`."""
    # Headers are decoded as Latin-1; in practice a Location is often UTF-8 and contains blanks.
    try:
        return urljoin(url, quote(location.encode("latin-1"), safe=f"{_URL_CHARACTERS}#[]"))
    except ValueError:
        raise FetchError("it redirects to an invalid URL") from None
