"""Providers that need no configuration: hosts with a key in the environment, and a local Ollama.

A key makes its provider's models available by name (`groq/llama-3.3-70b-versatile`); the default model stays the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from service.config.models import ProviderConfig
from service.core.dataclass import record

OLLAMA = "ollama"
_OLLAMA_PORT = 11434
_ANY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104  # addresses to listen on, not to connect to


@record
class KnownHost:
    """Address and dialect of a provider, and the environment variable of its key."""

    variable: str
    base_url: str
    api: str = "openai-completions"


_GEMINI = KnownHost("GEMINI_API_KEY", "https://generativelanguage.googleapis.com/v1beta/openai")

#: By provider id.
KNOWN_HOSTS: Mapping[str, KnownHost] = {
    "openai": KnownHost("OPENAI_API_KEY", "https://api.openai.com/v1"),
    "anthropic": KnownHost("ANTHROPIC_API_KEY", "https://api.anthropic.com", "anthropic-messages"),
    "openrouter": KnownHost("OPENROUTER_API_KEY", "https://openrouter.ai/api/v1"),
    "groq": KnownHost("GROQ_API_KEY", "https://api.groq.com/openai/v1"),
    "mistral": KnownHost("MISTRAL_API_KEY", "https://api.mistral.ai/v1"),
    "deepseek": KnownHost("DEEPSEEK_API_KEY", "https://api.deepseek.com/v1"),
    "google": _GEMINI,
    "gemini": _GEMINI,
}


def ids_with_key(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the ids of the hosts whose key is in the environment."""
    return tuple(provider_id for provider_id, host in KNOWN_HOSTS.items() if environ.get(host.variable, "").strip())


def config_of(provider_id: str, environ: Mapping[str, str]) -> ProviderConfig | None:
    """Return the configuration of a known host, `None` for an unknown id or a missing key.

    Raises `ValueError`, without the value itself, for a key or an OLLAMA_HOST that cannot be used.
    """
    if provider_id == OLLAMA:
        return _ollama(environ.get("OLLAMA_HOST", "").strip())
    host = KNOWN_HOSTS.get(provider_id)
    key = environ.get(host.variable, "").strip() if host else ""
    if host is None or not key:
        return None
    try:
        return ProviderConfig.model_validate({"api": host.api, "baseUrl": host.base_url, "apiKey": key})
    except ValueError:
        raise ValueError(
            f"{host.variable} is not a valid key: it contains a character that HTTP headers cannot carry. Set it again"
        ) from None


def _ollama(value: str) -> ProviderConfig:
    """Parse OLLAMA_HOST: a host, optionally with a scheme and a port."""
    problem = "OLLAMA_HOST must be the address of an Ollama, such as 127.0.0.1:11434 or http://gpu.example.com:11434"
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        host, port = parts.hostname or "", parts.port or (_OLLAMA_PORT if "://" not in value else None)
        host = "127.0.0.1" if host in _ANY_ADDRESS else f"[{host}]" if ":" in host else host
        url = f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}/v1"
        return ProviderConfig.model_validate({"baseUrl": url})
    except ValueError:
        raise ValueError(problem) from None
