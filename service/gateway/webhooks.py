"""Sending of the ends of runs to the webhooks of their callers, signed as Standard Webhooks.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md. A webhook that was answered
with success is never sent again. One whose process dies while it sends is sent again, with the same `webhook-id`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
from collections.abc import Callable
from typing import Any

import orjson

from service.config.gateway import WebhooksConfig
from service.core.concurrency import Event, sleep, spawn
from service.core.fetch.addresses import AddressPolicy
from service.core.fetch.client import FetchLimits, PublicHttpClient
from service.core.fetch.errors import FetchError
from service.storage.database.errors import StoreError
from service.storage.runs.records import RunRecord
from service.storage.runs.webhooks import DueWebhook
from service.storage.storage import Storage

logger = logging.getLogger("openclaw.runs")

SECRET_PREFIX = "whsec_"  # noqa: S105 - what every secret begins with

#: How often the database is looked at for webhooks that others left.
_POLL_SECONDS = 5.0
_LIMITS = FetchLimits(max_bytes=0, timeout_seconds=20.0)
#: A process that has claimed a webhook sends it within this time, or has died.
_CLAIM_SECONDS = 30.0
_AT_ONCE = 8
#: Delays after failed attempts; after the last one the webhook is abandoned.
_DELAYS_SECONDS = (1, 5, 30, 120, 600, 1800, 7200, 21600)
_GONE = 410


def webhook_client(config: WebhooksConfig) -> PublicHttpClient:
    """Return the client that reaches what `config` allows."""
    return PublicHttpClient(AddressPolicy(hosts=config.allow_hosts, exempt=frozenset(config.private_addresses)))


def sign(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a message; `secret` is base64, with or without its prefix."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = hmac.digest(key, b"%b.%d.%b" % (webhook_id.encode(), timestamp, body), hashlib.sha256)
    return f"v1,{base64.b64encode(signed).decode()}"


class WebhookSender:
    """Sends the webhooks of `storage` that are due, those of dead processes, too.

    `client` returns the client in force, `clock` seconds since 1970.
    """

    def __init__(self, storage: Storage, client: Callable[[], PublicHttpClient], clock: Callable[[], float]) -> None:
        self._storage = storage
        self._client = client
        self._clock = clock
        self._news = Event()
        self._is_closed = False

    @property
    def client(self) -> PublicHttpClient:
        """The client in force."""
        return self._client()

    def start(self, to_data: Callable[[RunRecord], dict[str, Any]]) -> None:
        """Send from now on; `to_data` returns what is sent of a run."""
        spawn(self._run, to_data)

    def notify(self) -> None:
        """Look for webhooks now: one may be due."""
        self._news.set()

    def close(self) -> None:
        """Send no more; what is left is sent by other processes, or after the next start."""
        self._is_closed = True
        self._news.set()

    def _run(self, to_data: Callable[[RunRecord], dict[str, Any]]) -> None:
        while not self._is_closed:
            self._news.clear()
            now_ms = int(self._clock() * 1000)
            try:
                due = self._storage.webhooks.claim(now_ms, now_ms + int(_CLAIM_SECONDS * 1000), _AT_ONCE)
            except StoreError as error:
                logger.warning("webhooks that are due could not be read: %s", error)
                due = ()
            for webhook in due:
                spawn(self._send, webhook, to_data)
            self._news.wait(_POLL_SECONDS)

    def _send(self, webhook: DueWebhook, to_data: Callable[[RunRecord], dict[str, Any]]) -> None:
        try:
            record = self._storage.records.get(webhook.run_id)
            status = None if record is None else self._post(webhook, to_data(record))
            self._storage.webhooks.put_off(webhook, self._next_ms(webhook, status))
        except StoreError as error:
            logger.warning("run %s: its webhook failed and is retried: %s", webhook.run_id, error)
        except Exception:
            # Nobody waits for this greenlet, so its failure is logged here.
            logger.exception("run %s: its webhook could not be sent", webhook.run_id)

    def _post(self, webhook: DueWebhook, data: dict[str, Any]) -> int:
        """Send a webhook and return the status of the answer, 0 without one."""
        now = int(self._clock())
        body = orjson.dumps({"type": "run.ended", "timestamp": data["ended_at"], "data": data})
        webhook_id = f"msg_{hashlib.sha256(webhook.run_id.encode()).hexdigest()[:32]}"
        headers = {
            "Content-Type": "application/json",
            "webhook-id": webhook_id,
            "webhook-timestamp": str(now),
            "webhook-signature": sign(webhook.secret, webhook_id, now, body),
        }
        try:
            return self.client.post(webhook.url, _LIMITS, headers, body)
        except FetchError as error:
            logger.warning("run %s: its webhook was not delivered: %s", webhook.run_id, error)
            return 0

    def _next_ms(self, webhook: DueWebhook, status: int | None) -> int | None:
        """Return when to send a webhook again; `None` for never."""
        if status is None or 200 <= status < 300:  # noqa: PLR2004 - success
            return None
        if status == _GONE or webhook.attempts > len(_DELAYS_SECONDS):
            logger.warning("run %s: its webhook is abandoned (status %d)", webhook.run_id, status)
            return None
        logger.info("run %s: its webhook failed and is retried (status %d)", webhook.run_id, status)
        delay = _DELAYS_SECONDS[webhook.attempts - 1]
        spawn(self._notify_after, delay)
        return int((self._clock() + delay) * 1000)

    def _notify_after(self, seconds: float) -> None:
        sleep(min(seconds, _POLL_SECONDS))
        self.notify()
