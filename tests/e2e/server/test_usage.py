"""What was used and what it cost: over HTTP by every kind of caller, and on the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest
from support.api_keys import open_keys
from support.chat import ask, error_of, text_of
from support.command import Home
from support.live import LiveGateway, live_gateway, scripted_config
from support.polling import until

from service.core.budgets import parse_budget
from service.core.principal import Scope

#: Four times two words of input and output of `echo`; the second request also reads the first turn of its session.
ECHO = 4 * (2 * 1.5e-6 + 2 * 4e-6) + 4 * 1.5e-6


@dataclass(frozen=True)
class Setup:
    gateway: LiveGateway
    keys: dict[str, str]
    ids: dict[str, str]

    def client(self, name: str) -> httpx.Client:
        return self.gateway.client(self.keys[name])

    def usage(self, name: str | None = None, **query: Any) -> dict[str, Any]:
        with self.gateway.client() if name is None else self.client(name) as client:
            found: dict[str, Any] = client.get("/v1/usage", params=query).raise_for_status().json()
        return found


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    """A gateway that two keys and the administrator have used."""
    config = scripted_config()
    config["gateway"]["http"]["endpoints"] |= {name: {"enabled": True} for name in ("embeddings", "metrics")}
    config["embeddings"] = {"model": "scripted/embed"}
    config["models"]["retry"] = {"attempts": 1}
    config["agents"]["list"].append(
        {"id": "falls", "model": {"primary": "scripted/fail-provider_error", "fallbacks": ["scripted/count-3"]}}
    )
    prices = {
        "echo": {"input": 1.5, "output": 4},
        "embed": {"input": 1, "output": 0},
        "count-3": {"input": 0, "output": 0},
    }
    config["models"]["providers"]["scripted"]["models"] = [
        {"id": model, "cost": cost} for model, cost in prices.items()
    ]
    with live_gateway(tmp_path_factory.mktemp("gateway"), config) as gateway:
        with open_keys(gateway.state_dir) as stored:
            made = {name: stored.create(name, [Scope.WRITE]) for name in ("anna", "ben")}
        texts, ids = ({name: one[1] for name, one in made.items()}, {name: one[0].id for name, one in made.items()})
        setup = Setup(gateway, texts, ids)
        with setup.client("anna") as anna, setup.client("ben") as ben, gateway.client() as admin:
            ask(anna, "two words", user="u1").raise_for_status()
            ask(anna, "two words", user="u1").raise_for_status()
            ask(anna, "two words", headers={"Idempotency-Key": "k"}).raise_for_status()
            ask(anna, "two words", headers={"Idempotency-Key": "k"}).raise_for_status()  # not used again
            ask(ben, "two words", user="u1").raise_for_status()
            ask(ben, "two words", model="openclaw/falls").raise_for_status()
            admin.post("/v1/embeddings", json={"input": "one two three"}).raise_for_status()
            assert ask(admin, "two", headers={"x-openclaw-model": "scripted/fail-midway"}).status_code == 502
        yield setup


def rows(found: dict[str, Any], *names: str) -> list[Any]:
    return [tuple(one[name] if name in one else one["usage"][name] for name in names) for one in found["data"]]


def test_the_administrator_sees_the_usage_of_all(setup: Setup) -> None:
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    found = setup.usage(by="key")
    assert rows(found, "key_name", "key", "runs") == [
        ("anna", setup.ids["anna"], 3),
        ("ben", setup.ids["ben"], 2),
        (None, None, 1),
    ]
    assert (found["to"], found["has_more"]) == (today, False)
    assert rows(setup.usage(by="model"), "model", "runs", "model_calls", "uncosted_calls", "cost") == [
        ("scripted/echo", 4, 4, 0, pytest.approx(ECHO)),
        ("scripted/count-3", 1, 1, 0, 0),
        ("scripted/embed", 0, 1, 0, pytest.approx(3e-6)),
        ("scripted/fail-midway", 1, 1, 1, None),
    ]
    by_user = rows(setup.usage(by="user"), "key_name", "user", "runs")
    assert by_user[:2] == [("anna", "u1", 2), ("ben", None, 1)]
    assert sorted(map(str, by_user)) == sorted(
        map(str, [("anna", "u1", 2), ("ben", "u1", 1), ("ben", None, 1), ("anna", None, 1), (None, None, 1)])
    )
    assert rows(setup.usage(), "day", "input_tokens", "output_tokens") == [(today, 2 * 5 + 4 + 3, 2 * 4 + 3)]
    assert rows(setup.usage(by="agent"), "agent", "runs") == [("main", 5), ("falls", 1)]
    assert setup.usage(by="key", limit=1)["has_more"]
    yesterday = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}"
    before = setup.usage(to=yesterday)
    assert (before["data"], before["total"]["runs"], before["total"]["cost"]) == ([], 0, 0)


@pytest.mark.parametrize("by", ["key", "user", "agent", "model", "day"])
def test_a_key_sees_its_own_usage(setup: Setup, by: str) -> None:
    for name, runs in (("anna", 3), ("ben", 2)):
        found = setup.usage(name, by=by)
        assert found["total"]["runs"] == sum(one["usage"]["runs"] for one in found["data"]) == runs
        assert {one["key"] for one in found["data"]} <= {None, setup.ids[name]}
        assert {one["key_name"] for one in found["data"]} <= {None, name}


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"by": "session"}, "by"),
        ({"from": "2026-02-30"}, "from"),
        ({"from": "today"}, "from"),
        ({"to": "2100-02-29"}, "to"),
        ({"limit": 0}, "limit"),
    ],
)
def test_a_period_that_cannot_be_is_refused(setup: Setup, query: dict[str, Any], param: str) -> None:
    with setup.gateway.client() as client:
        assert error_of(client.get("/v1/usage", params=query)) == (400, "invalid_value", param)


def test_the_command_line_shows_the_same(setup: Setup) -> None:
    directory, state_dir = setup.gateway.directory, setup.gateway.state_dir
    environment = {"OPENCLAW_CONFIG_PATH": str(directory / "openclaw.json"), "OPENCLAW_STATE_DIR": str(state_dir)}
    home = Home(directory, environment)
    assert home.run("usage", "--by", "key", "--json").json == setup.usage(by="key")
    lines = home.run("usage", "--by", "model").out.splitlines()
    assert lines[0].split()[0] == "MODEL"
    shown = {line.split()[0]: line.split()[6:] for line in lines[1:]}
    assert shown == {
        "scripted/echo": ["0.00005"],
        "scripted/count-3": ["0.00"],
        "scripted/embed": ["0.000003"],
        "scripted/fail-midway": ["?"],
        "total": ["0.000053", "+", "?"],
    }
    assert "no day 2026-02-30" in home.run("usage", "--from", "2026-02-30").err
    for last in (("--to", "2026-02-01"), ()):
        refused = home.run("usage", "--from", "2096-02-29", *last, "--json")
        assert (refused.status, "--from is later than --to" in refused.err) == (2, True)
    [anna, ben] = home.run("keys", "list", "--json").json["keys"]
    assert (anna["usage"]["runs"], ben["usage"]["runs"]) == (3, 2)
    assert home.run("keys", "show", "anna", "--json").json["usage"] == setup.usage("anna", by="key")["total"]


def test_the_cost_of_a_run_is_known_wherever_it_shows(setup: Setup) -> None:
    cost = pytest.approx(2 * 1.5e-6 + 2 * 4e-6)
    include = {"usage": {"include": True}}
    with setup.gateway.client() as client:
        answer = ask(client, "two words", headers={"Idempotency-Key": "cost"}, **include)
        assert answer.json()["usage"]["cost"] == cost
        again = ask(client, "two words", headers={"Idempotency-Key": "cost"}, **include)
        assert (again.headers["idempotency-replayed"], again.json()["usage"]) == ("true", answer.json()["usage"])
        stateless = ask(client, "two words", stream=True, **include)
        *_, last, _ = stateless.text.strip().split("\n\n")
        assert orjson.loads(last.removeprefix("data: "))["usage"]["cost"] == cost
        assert "cost" not in ask(client, "two words").json()["usage"]
        for extra in ({}, {"stream": True}):
            response = client.post("/v1/responses", json={"input": "two words", **include, **extra})
            [shown] = re.findall(r'"cost":([^,}]+)', response.text)
            assert float(shown) == cost
        assert '"cost"' not in client.post("/v1/responses", json={"input": "two words"}).text
        for one in (answer, stateless):
            run = client.get(f"/v1/runs/{one.headers['x-openclaw-run-id']}").json()
            assert run["usage"]["cost"] == cost
            session = client.get(f"/v1/sessions/{one.headers['x-openclaw-session-key']}").json()
            assert session["usage"]["cost"] == cost
        unknown = ask(client, "hi", headers={"x-openclaw-model": "scripted/count-4"}, **include)
        assert unknown.json()["usage"]["cost"] is None
        free = ask(client, "hi", headers={"x-openclaw-model": "scripted/count-3"}, **include)
        assert free.json()["usage"]["cost"] == 0
        metrics = client.get("/metrics").text
    [line] = [line for line in metrics.splitlines() if line.startswith("openclaw_model_cost_usd_total")]
    assert float(line.rpartition(" ")[2]) == pytest.approx(ECHO + 6 * 1.1e-5)
    output = setup.gateway.output
    lines = {line.partition("run=")[2].split()[0]: line for line in output.splitlines() if " openclaw.run " in line}
    assert "cost=1.1e-05 " in lines[answer.headers["x-openclaw-run-id"]] + " "
    assert "cost=" not in lines[unknown.headers["x-openclaw-run-id"]]
    assert "cost=0.0 " in lines[free.headers["x-openclaw-run-id"]] + " "


@pytest.fixture(scope="module")
def budgeted(tmp_path_factory: pytest.TempPathFactory, lasting_database_url: str | None) -> Iterator[LiveGateway]:
    """A gateway whose agents and keys have budgets; two words to `echo` cost four dollars."""
    config = scripted_config()
    config["gateway"]["http"]["endpoints"]["embeddings"] = {"enabled": True}
    config["gateway"]["limits"] = {"agents": {"Beta": {"budget": "3usd/day"}}, "perKey": {"budget": "99usd/month"}}
    prices = {"echo": {"input": 1e6, "output": 1e6}, "fail-provider_error": {"input": 1, "output": 1}}
    provider = config["models"]["providers"]["scripted"]
    provider["models"] = [{"id": model, "cost": cost} for model, cost in prices.items()]
    config["models"]["retry"] = {"attempts": 1}
    model = {"primary": "scripted/count-3", "fallbacks": ["scripted/echo"]}
    config["agents"]["list"].append({"id": "cheap", "model": model})
    environment = {} if lasting_database_url is None else {"OPENCLAW_STATE_URL": lasting_database_url}
    with live_gateway(tmp_path_factory.mktemp("budgeted"), config, env=environment) as gateway:
        yield gateway


def refusal(response: httpx.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    return response.status_code, error["code"], response.headers.get("x-should-retry")


def test_a_spent_budget_of_a_key_is_refused_until_it_is_raised(
    budgeted: LiveGateway, lasting_database_url: str | None
) -> None:
    with open_keys(budgeted.state_dir, lasting_database_url) as stored:
        key, text = stored.create("anna", [Scope.WRITE], budget=parse_budget("10usd/day"))
    with budgeted.client(text) as client:
        once = {"Idempotency-Key": "once"}
        assert ask(client, "two words", headers=once).status_code == 200
        assert ask(client, "two words", headers={"Idempotency-Key": "twice"}).status_code == 200
        assert ask(client, "two words", headers={"Idempotency-Key": "thrice"}).status_code == 200  # 8 dollars so far
        refused = ask(client, "two words")
        assert refusal(refused) == (429, "budget_exceeded", "false")
        message = refused.json()["error"]["message"]
        assert re.fullmatch(
            r"The budget of this API key is spent: 10usd/day\. It renews at 20\d\d-\d\d-\d\dT00:00:00Z\.", message
        )
        assert ask(client, "two words", headers=once).headers["idempotency-replayed"] == "true"
        vectors = client.post("/v1/embeddings", json={"input": "hi"}, headers={"x-openclaw-model": "scripted/echo"})
        assert refusal(vectors)[:2] == (429, "budget_exceeded")
        assert client.get("/v1/usage", params={"by": "key"}).json()["total"]["cost"] == 12
        with open_keys(budgeted.state_dir, lasting_database_url) as stored:
            stored.set_budget(key.id, parse_budget("1000usd/month"))
        until(lambda: ask(client, "two words").status_code == 200)


def test_a_budget_of_an_agent_holds_for_all_its_callers(budgeted: LiveGateway) -> None:
    with budgeted.client() as client:
        assert ask(client, "two words", model="openclaw/beta").status_code == 200
        refused = ask(client, "two words", model="openclaw/beta")
        assert refusal(refused) == (429, "budget_exceeded", "false")
        assert "the agent beta is spent: 3usd/day" in refused.text
        assert ask(client, "two words").status_code == 200


def test_a_budget_leaves_out_models_without_a_price(budgeted: LiveGateway, lasting_database_url: str | None) -> None:
    with open_keys(budgeted.state_dir, lasting_database_url) as stored:
        _, text = stored.create("ben", [Scope.WRITE])
    with budgeted.client(text) as client, budgeted.client() as admin:
        refused = ask(client, "hi", headers={"x-openclaw-model": "scripted/count-3"})
        assert refusal(refused)[:2] == (404, "model_not_found")
        assert "scripted/count-3 has no price" in refused.text
        assert "this API key, 99usd/month" in refused.text
        assert text_of(ask(client, "hi there", model="openclaw/cheap")) == "hi there"
        assert text_of(ask(admin, "hi there", model="openclaw/cheap")) == "1 2 3 "
