"""Two gateways of one database, each with a client; a module's fixture `config` says how they are configured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support.live import LiveGateway, live_gateway


@pytest.fixture(scope="module")
def pair(
    config: dict[str, Any], lasting_database_url: str | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LiveGateway, LiveGateway]]:
    """Both gateways, on SQLite and on PostgreSQL."""
    directory = tmp_path_factory.mktemp("pair")
    shared = {**config, "state": {"url": lasting_database_url}}
    env = {"OPENCLAW_STATE_DIR": str(directory / "state")}
    with (
        live_gateway(directory / "one", shared, env=env) as one,
        live_gateway(directory / "two", shared, env=env) as two,
    ):
        yield one, two


@pytest.fixture
def here(pair: tuple[LiveGateway, LiveGateway]) -> Iterator[httpx.Client]:
    """A client of the first gateway."""
    with pair[0].client() as client:
        yield client


@pytest.fixture
def there(pair: tuple[LiveGateway, LiveGateway]) -> Iterator[httpx.Client]:
    """A client of the second gateway."""
    with pair[1].client() as client:
        yield client
