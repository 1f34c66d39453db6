"""What an idle gateway imports: nothing that only some requests, settings or commands need."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.live import LiveGateway, live_gateway, stubbed_config
from support.upstream import Upstream

#: Packages and modules by what needs them; a name stands for everything below it.
NEEDED_LATER = {
    "a body or a tool that is checked": (
        "jsonschema_rs",
        "service.api.http.schema_validation",
        "service.tools.compiled_tool",
    ),
    "an older database": ("alembic", "mako", "service.storage.database.migrations"),
    "PostgreSQL": ("psycopg", "psycopg_binary", "sqlalchemy.dialects.postgresql", "service.storage.database.postgres"),
    "metrics": ("prometheus_client", "service.api.metrics"),
    "traces": ("opentelemetry", "google", "service.api.traces.export", "service.api.traces.spans"),
    "tools": ("trafilatura", "lxml", "wcmatch", "mcp"),
    "files in requests": ("pypdf",),
    "pages": ("swagger_ui",),
    "embedded models": ("xllamacpp", "service.models.local.llama_server"),
    "several workers": ("gunicorn", "service.server.workers.arbiter", "service.server.workers.worker"),
    "other commands": ("service.cli.agent", "service.cli.client.agent", "service.cli.doctor", "service.cli.setup"),
}
#: The number of modules of the gateway's own, with some room for new ones.
MOST_OWN = 380


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with Upstream() as upstream:
        config = stubbed_config(upstream.url)
        before = ("env", "PYTHONPROFILEIMPORTTIME=1")
        with live_gateway(tmp_path_factory.mktemp("idle"), config, before=before) as running:
            yield running


@pytest.fixture(scope="module")
def imported(gateway: LiveGateway) -> set[str]:
    with gateway.client() as client:
        assert client.get("/readyz").json()["ready"]
    return names_in(gateway)


def names_in(gateway: LiveGateway) -> set[str]:
    return set(re.findall(r"^import time: *\d+ \| *\d+ \| *([\w.]+)$", gateway.output, re.MULTILINE))


@pytest.mark.parametrize("reason", NEEDED_LATER)
def test_idle_gateway_has_not_imported_what_is_needed_later(imported: set[str], reason: str) -> None:
    names = NEEDED_LATER[reason]
    assert [one for one in imported if one in names or one.startswith(tuple(f"{name}." for name in names))] == []


def test_number_of_own_imported_modules_does_not_grow(imported: set[str]) -> None:
    own = [name for name in imported if name.partition(".")[0] in ("service", "handlers")]
    assert 300 < len(own) <= MOST_OWN


def test_compiler_of_schemas_is_imported_with_the_first_checked_body(gateway: LiveGateway, imported: set[str]) -> None:
    assert "jsonschema_rs" not in imported
    with gateway.client() as client:
        client.post("/v1/chat/completions", json={"messages": []})
    assert "jsonschema_rs" in names_in(gateway)


def test_every_name_exists() -> None:
    paths = [name.replace(".", "/") for names in NEEDED_LATER.values() for name in names if name.startswith("service.")]
    root = Path(__file__).parents[3]
    assert [path for path in paths if not ((root / path).is_dir() or (root / f"{path}.py").exists())] == []
