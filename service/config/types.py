"""Types of single values in the configuration: numbers, ids, addresses, headers, secrets.

Each type checks its value, with a message that says what would be right. Rules about several values belong to their
section.
"""

from __future__ import annotations

import re
import unicodedata
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import PurePosixPath
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, SecretStr

from service.core.budgets import Budget, parse_budget
from service.core.fetch.addresses import canonical_host

_AGENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_PROVIDER_ID = re.compile(r"[^\s/]+")
_MODEL_REFERENCE = re.compile(r"[^\s/]+/\S(?:.*\S)?")
_MODEL_ALIAS = re.compile(r"[!-.0-~]+")
_SPAN = re.compile(r"([1-9][0-9]{0,8})([smhdw])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 60 * 60, "d": 24 * 60 * 60, "w": 7 * 24 * 60 * 60}
_LONGEST_NAME = 256
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HOST = re.compile(r"[a-z0-9_-][a-z0-9._:-]*")
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s]+")


MAX_PORT = 65535


def secret_fault(secret: str) -> str | None:
    """Return why `secret` cannot be sent in a header, or `None`. The secret is not repeated."""
    if not secret.strip():
        return "is blank"
    if secret != secret.strip():
        return "begins or ends with white space, which no client can send"
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in secret):
        return "contains a control character or bytes that are not UTF-8, which no client can send"
    return None


def _whole(value: object) -> object:
    # JSON has one kind of number: 1e6 is as whole as 1000000.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _agent_id(text: str) -> str:
    if not _AGENT_ID.fullmatch(text):
        raise ValueError(
            "an agent id is 1 to 64 letters, digits, hyphens and underscores, beginning with a letter or digit"
        )
    if text.lower() == "default":
        raise ValueError('the id "default" means the default agent; choose another and mark it `default: true`')
    return text


def _provider_id(text: str) -> str:
    if not _PROVIDER_ID.fullmatch(text):
        raise ValueError('a provider\'s id has no "/" and no white space: models are named "provider/model"')
    return text


def _model_reference(text: str) -> str:
    if not _MODEL_REFERENCE.fullmatch(text):
        raise ValueError('a model is named "provider/model", for example "openai/gpt-5"')
    return text


def _model_name(text: str) -> str:
    return text if _MODEL_ALIAS.fullmatch(text) else _model_reference(text)


def _public_name(text: str) -> str:
    if not (0 < len(text) <= _LONGEST_NAME and text.isprintable() and text == text.strip()):
        raise ValueError(f"a name is 1 to {_LONGEST_NAME} printable characters without surrounding white space")
    return text


def to_http_url(text: str) -> str:
    """Return an HTTP URL without slashes at its end. Raises `ValueError`."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be an http:// or https:// URL with a host")
    return text.rstrip("/")


def _gateway_url(text: str) -> str:
    scheme, _, rest = text.partition("://")
    try:
        to_http_url(f"http://{rest}")
        usable = scheme in ("ws", "wss", "http", "https")
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be the address of a gateway, such as wss://gateway.example.com")
    return text.rstrip("/")


def _origin(text: str) -> str:
    if text != "*" and not _ORIGIN.fullmatch(text):
        raise ValueError('must be an origin, such as "https://ui.example.com" without a trailing slash, or "*"')
    return text.lower()


def _exact_origin(text: str) -> str:
    if text == "*":
        raise ValueError('must be an origin, such as "https://ui.example.com"; "*" is not allowed')
    return _origin(text)


def _network(value: object) -> IPv4Network | IPv6Network:
    try:
        return ip_network(value if isinstance(value, str) else "", strict=False)
    except ValueError:
        raise ValueError('must be an IP address or network, such as "10.0.0.5" or "10.0.0.0/8"') from None


def _address_and_port(value: object) -> tuple[str, int]:
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        address = None
    if address is None or not colon or not port.isdecimal() or not 0 < int(port) <= MAX_PORT:
        raise ValueError('must be an IP address and a port, such as "10.0.0.5:8080" or "[fd00::5]:443"')
    return str(address), int(port)


def _host_pattern(text: str) -> str:
    below, host = ("*.", text[2:]) if text.startswith("*.") else ("", text.removeprefix("[").removesuffix("]"))
    try:
        host = canonical_host(host)
    except ValueError:
        host = ""
    if not _HOST.fullmatch(host) and not host.startswith("::"):
        raise ValueError('must be a host without a port, such as "example.com", "*.example.com" or "192.0.2.1"')
    return below + host


def _absolute_path(text: str) -> str:
    if not PurePosixPath(text).is_absolute():
        raise ValueError("must be an absolute path, beginning with /")
    return text


def _directory(text: str) -> str:
    if not text.strip() or (text.startswith("~") and text != "~" and not text.startswith("~/")):
        raise ValueError('must be a directory, such as "/srv/agents/main" or "~/agents/main"')
    return text


def _log_path(text: str) -> str:
    if not text.strip() or "\0" in text or text.endswith("/") or (text.startswith("~") and text[1:2] != "/"):
        raise ValueError('must be the path of a file, such as "/var/log/openclaw/gateway.log" or "logs/gateway.log"')
    return text


def _header_name(text: str) -> str:
    if not _HEADER_NAME.fullmatch(text):
        raise ValueError("is not a header name")
    return text


def _header_value(text: str) -> str:
    if not text.isascii() or not text.isprintable():
        raise ValueError("must be printable ASCII")
    return text


def parse_span(value: object) -> int | None:
    """Return the seconds of a time such as "30d", `None` for `False` and `None`. Raises `ValueError`."""
    if value is False or value is None:
        return None
    found = _SPAN.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('must be a time such as "30d" or "12h" (s, m, h, d or w), or false for never')
    return int(found[1]) * _UNIT_SECONDS[found[2]]


def _api_key(secret: SecretStr) -> SecretStr:
    fault = secret_fault(secret.get_secret_value())
    if fault is not None:
        raise ValueError(f"{fault}; a provider that needs no key has no apiKey at all")
    return secret


#: In the file a string such as "5usd/day".
MoneyBudget = Annotated[Budget, PlainValidator(parse_budget, json_schema_input_type=str)]
Bool = Annotated[bool, Field(strict=True)]
Whole = Annotated[int, BeforeValidator(_whole, json_schema_input_type=int), Field(strict=True)]
Port = Annotated[Whole, Field(ge=0, le=MAX_PORT)]
Positive = Annotated[Whole, Field(ge=1)]
Count = Annotated[Whole, Field(ge=0)]
Seconds = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
#: Seconds, or `None` for never; in the file a string such as "30d", or false.
Span = Annotated[int | None, PlainValidator(parse_span, json_schema_input_type=str | bool)]
#: An address as text and a port.
AddressAndPort = Annotated[tuple[str, int], PlainValidator(_address_and_port, json_schema_input_type=str)]
#: A name, "*." and a name, or an address, each in one spelling.
HostPattern = Annotated[str, AfterValidator(_host_pattern)]
Network = Annotated[IPv4Network | IPv6Network, PlainValidator(_network, json_schema_input_type=str)]
AgentId = Annotated[str, AfterValidator(_agent_id)]
ProviderId = Annotated[str, AfterValidator(_provider_id)]
ModelReference = Annotated[str, AfterValidator(_model_reference)]
#: A reference or an alias.
ModelName = Annotated[str, AfterValidator(_model_name)]
#: A value of the `model` field of requests.
PublicName = Annotated[str, AfterValidator(_public_name)]
HttpUrl = Annotated[str, AfterValidator(to_http_url)]
GatewayUrl = Annotated[str, AfterValidator(_gateway_url)]
Origin = Annotated[str, AfterValidator(_origin)]
ExactOrigin = Annotated[str, AfterValidator(_exact_origin)]
AbsolutePath = Annotated[str, AfterValidator(_absolute_path)]
Directory = Annotated[str, AfterValidator(_directory)]
LogPath = Annotated[str, AfterValidator(_log_path)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
HeaderValue = Annotated[str, AfterValidator(_header_value)]
ApiKey = Annotated[SecretStr, AfterValidator(_api_key)]
