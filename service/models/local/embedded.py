"""The embedded model, SmolLM2-135M-Instruct, for a fresh installation without any account.

It is a demo model: fast, small, often wrong. Its provider is an ordinary one whose server is a child process that runs
on demand.
"""

from __future__ import annotations

import logging
import secrets
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import service
from service.core.errors import GatewayError
from service.models.http.transport import Upstream
from service.models.local.server import LocalService
from service.models.local.shared_server import Endpoint, Share
from service.models.local.weights import INSTALL_COMMAND, find_weights, has_runtime
from service.models.openai.provider import OpenAIProvider
from service.models.provider import ModelEnded, ModelRequest, Provider, TextReceiver

logger = logging.getLogger("openclaw.models")

#: Its model id.
EMBEDDED_MODEL = "smollm2-135m-instruct"

_SERVER = ("-m", "service.models.local.llama_server")
_KEY_VARIABLE = "OPENCLAW_EMBEDDED_MODEL_KEY"
_IDLE_STOP_SECONDS = 900.0
_READ_TIMEOUT_SECONDS = 120.0


class EmbeddedProvider:
    """The embedded model's limits around its provider: text input only and no function calls.

    Functions are left out of requests; a request with an image is `provider_rejected_request`.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def ask(self, request: ModelRequest, on_text: TextReceiver) -> ModelEnded:
        """Ask the model; see `Provider.ask` for the contract."""
        if any(message.has_image for message in request.messages):
            message = f"The model {EMBEDDED_MODEL} accepts text only. Remove the image or choose another model."
            raise GatewayError("provider_rejected_request", message)
        return self._provider.ask(replace(request, functions=()), on_text)

    def close(self) -> None:
        """Stop the model's server."""
        self._provider.close()


def installation_problem() -> str | None:
    """Describe what the embedded model lacks and the command that installs it; `None` if it is complete."""
    missing = [] if has_runtime() else ["its runtime"]
    if find_weights() is None:
        missing.append("its weights")
    if not missing:
        return None
    return f"The embedded model is not installed ({' and '.join(missing)}). Run `{INSTALL_COMMAND}`."


class _ServedModel:
    """Provider for the server's current address, which changes with each start."""

    def __init__(self, server: LocalService) -> None:
        self._server = server
        self._endpoint: Endpoint = {}
        self._provider: Provider | None = None

    def ask(self, request: ModelRequest, on_text: TextReceiver) -> ModelEnded:
        """Start the server if necessary and ask the model; see `Provider.ask` for the contract."""
        with self._server.in_use() as endpoint:
            return self._at(endpoint).ask(request, on_text)

    def close(self) -> None:
        """Close the connections and stop the server if this process runs it."""
        if self._provider is not None:
            self._provider.close()
        self._server.close()

    def _at(self, endpoint: Endpoint) -> Provider:
        if self._provider is None or endpoint != self._endpoint:
            if self._provider is not None:
                self._provider.close()  # of a server that is gone
            self._endpoint = endpoint
            headers = {"Authorization": f"Bearer {endpoint['key']}"}
            upstream = Upstream(endpoint["url"], headers, read_timeout_seconds=_READ_TIMEOUT_SECONDS)
            self._provider = OpenAIProvider(upstream)
        return self._provider


def open_embedded_provider(
    state_dir: Path, share: Share | None = None, *, report: Callable[[str], None] = logger.info
) -> Provider:
    """The embedded model, its server started by the first request and stopped after 15 minutes without one.

    The processes with the same `share` have one server. Its output goes to `state_dir`/logs; `report` gets a line about
    each start and stop. Raises `GatewayError` with `model_not_installed` when `installation_problem` has something to
    say.
    """
    weights, problem = find_weights(), installation_problem()
    if weights is None or problem is not None:
        raise GatewayError("model_not_installed", str(problem))
    key, port = secrets.token_urlsafe(32), _free_port()
    address = f"http://127.0.0.1:{port}"
    server = LocalService(
        sys.executable,
        [*_SERVER, "--port", str(port), "--model", str(weights), "--key-variable", _KEY_VARIABLE],
        name=EMBEDDED_MODEL,
        health_url=f"{address}/health",
        cwd=str(Path(service.__file__).parent.parent),
        # Busy-waiting threads of llama.cpp slow down everything on a loaded machine, themselves included.
        env={_KEY_VARIABLE: key, "OMP_WAIT_POLICY": "passive"},
        idle_stop_seconds=_IDLE_STOP_SECONDS,
        log_path=state_dir / "logs" / "embedded-model.log",
        report=report,
        share=share,
        endpoint={"url": f"{address}/v1", "key": key},
    )
    return EmbeddedProvider(_ServedModel(server))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
