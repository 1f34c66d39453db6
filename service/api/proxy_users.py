"""Users whom a proxy in front of the gateway has authenticated: `gateway.auth.mode` "trusted-proxy".

The proxy names the user in a header. That is believed only if the connection itself comes from a trusted proxy,
whatever other headers say. A refused name is neither logged nor repeated.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from typing import Any

from service.api.client_address import ClientAddresses, environ_name
from service.config.gateway import TrustedProxyConfig
from service.core.errors import GatewayError
from service.core.principal import Principal, Scope, closure_of

_LONGEST_NAME = 256
_SCOPES = closure_of((Scope.WRITE,))


class ProxyUsers:
    """The users that the proxies of `addresses` name. A user has the scope `write`, and sees only its own data."""

    def __init__(self, config: TrustedProxyConfig, addresses: ClientAddresses) -> None:
        self._addresses = addresses
        self._header = config.user_header
        self._user_key = environ_name(config.user_header)
        self._required = {environ_name(name): name for name in config.required_headers}
        self._allowed = frozenset(config.allow_users)

    def identify(self, environ: Mapping[str, Any]) -> Principal | None:
        """Return the user of a request, `None` if it names none.

        Raises `GatewayError`: `untrusted_proxy_headers` if anyone but a trusted proxy names a user, if the proxy did
        not send what it has to, and for what is no name; `user_not_allowed`.
        """
        value = environ.get(self._user_key)
        if value is None:
            return None
        if not self._addresses.is_trusted(environ.get("REMOTE_ADDR", "")):
            text = f"The request has the header {self._header}, but its sender is not one of gateway.trustedProxies."
            raise GatewayError("untrusted_proxy_headers", text, param=self._header)
        missing = [name for key, name in self._required.items() if not environ.get(key, "").strip()]
        if missing:
            text = f"The trusted proxy did not send {', '.join(missing)} (gateway.auth.trustedProxy.requiredHeaders)."
            raise GatewayError("untrusted_proxy_headers", text, param=missing[0])
        name = self._parse(value)
        if not name:
            return None
        if not self.allows(name):
            raise GatewayError("user_not_allowed", "This user may not use this gateway.", param=self._header)
        owner = f"user:{hashlib.sha256(name.encode()).hexdigest()[:20]}"
        return Principal(owner, name=name, scopes=_SCOPES, user=name)

    def allows(self, name: str) -> bool:
        """Return True if the user may use this gateway."""
        return not self._allowed or name in self._allowed

    def _parse(self, value: str) -> str:
        try:
            name = value.encode("latin-1").decode().strip(" \t")
        except UnicodeError:
            name = "\ufffd"
        is_plain = all(unicodedata.category(one)[0] not in "CZ" or one == " " for one in name)
        # A comma is where several headers were joined: the proxy passed on one of the caller's.
        if len(name) > _LONGEST_NAME or not is_plain or "," in name or "\ufffd" in name:
            text = f"The header {self._header} is not the name of a user: up to {_LONGEST_NAME} characters, no comma."
            raise GatewayError("untrusted_proxy_headers", text, param=self._header)
        return name
