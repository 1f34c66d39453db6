"""A client generated from the contract that a live gateway serves, used against that gateway.

The generation is a gate: one warning, one operation or response left out, and it fails.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import orjson
import pytest
import yaml
from support.live import TOKEN, LiveGateway

PACKAGE = "generated_gateway_client"


def generate(source: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    """Run the generator's command line; the package is `directory / PACKAGE`."""
    config = directory / "config.json"
    config.write_bytes(orjson.dumps({"post_hooks": []}))  # formatting is left out: it needs further programs
    options = ["--meta", "none", "--fail-on-warning", "--config", str(config), "--output-path", PACKAGE]
    command = [sys.executable, "-m", "openapi_python_client", "generate", *source, *options]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=False)


class GeneratedClient:
    """The generated package: its models by name, its operations by `operationId`."""

    def __init__(self, root: ModuleType, directory: Path) -> None:
        self.root: Any = root
        self.models: Any = importlib.import_module(f"{PACKAGE}.models")
        self._places = {path.stem: path.parent.name for path in directory.glob("api/*/*.py") if path.stem != "__init__"}

    @property
    def operations(self) -> set[str]:
        return set(self._places)

    def operation(self, name: str) -> Any:
        return importlib.import_module(f"{PACKAGE}.api.{self._places[name]}.{name}")

    def ask(self, client: Any, *messages: Any, headers: dict[str, str] | None = None, **fields: Any) -> Any:
        """The detailed response to a request of these messages."""
        body = self.models.ChatCompletionRequest(messages=list(messages), **fields)
        return self.operation("create_chat_completion").sync_detailed(client=client, body=body, **(headers or {}))

    def user(self, text: str) -> Any:
        return self.models.UserMessage(role=self.models.UserMessageRole.USER, content=text)


@pytest.fixture(scope="module")
def generated(gateway: LiveGateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GeneratedClient]:
    directory = tmp_path_factory.mktemp("client")
    run = generate(["--url", f"{gateway.url}/openapi.json"], directory)
    assert run.returncode == 0, run.stdout + run.stderr
    package = directory / PACKAGE
    spec = importlib.util.spec_from_file_location(
        PACKAGE, package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert spec is not None
    assert spec.loader is not None
    root = sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(root)
    yield GeneratedClient(root, package)
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


@pytest.fixture
def caller(generated: GeneratedClient, gateway: LiveGateway) -> Iterator[Any]:
    """The generated client object, with the gateway's token; a status that is not in the contract raises."""
    with generated.root.AuthenticatedClient(
        base_url=gateway.url, token=TOKEN, timeout=httpx.Timeout(30), raise_on_unexpected_status=True
    ) as connected:
        yield connected


@pytest.fixture
def anonymous(generated: GeneratedClient, gateway: LiveGateway) -> Iterator[Any]:
    """The generated client object without a token."""
    with generated.root.Client(base_url=gateway.url, raise_on_unexpected_status=True) as connected:
        yield connected


def test_every_operation_is_generated(generated: GeneratedClient, gateway: LiveGateway) -> None:
    document = httpx.get(f"{gateway.url}/openapi.json").json()
    assert generated.operations == {one["operationId"] for item in document["paths"].values() for one in item.values()}


def test_inexpressible_schema_fails_generation(gateway: LiveGateway, tmp_path: Path) -> None:
    document = httpx.get(f"{gateway.url}/openapi.json").json()
    fields = document["components"]["schemas"]["ChatCompletionRequest"]["properties"]
    fields["parallel_tool_calls"] = {"type": "boolean", "nullable": True, "enum": [False, None]}
    (tmp_path / "openapi.json").write_bytes(orjson.dumps(document))
    run = generate(["--path", "openapi.json"], tmp_path)
    assert run.returncode != 0
    assert "ChatCompletionRequest" in run.stdout + run.stderr


def test_client_of_openapi_generator_reads_what_the_gateway_returns(gateway: LiveGateway, tmp_path: Path) -> None:
    generator = str(Path(sys.executable).with_name("openapi-generator-cli"))
    document = httpx.get(f"{gateway.url}/openapi.json")
    (tmp_path / "openapi.json").write_bytes(document.content)
    made = [generator, "generate", "-g", "python", "-i", "openapi.json", "-o", "."]
    subprocess.run(made, cwd=tmp_path, capture_output=True, check=True)
    program = str(Path(__file__).with_name("programs") / "generated.py")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, program, gateway.url, TOKEN]
    used = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert used.returncode == 0, used.stdout + used.stderr


def test_completion_is_typed_model(generated: GeneratedClient, caller: Any) -> None:
    models = generated.models
    system = models.SystemMessage(role=models.SystemMessageRole.SYSTEM, content="Be brief.")
    completion = generated.ask(caller, system, generated.user("hello there"), model="openclaw/main").parsed
    assert isinstance(completion, models.ChatCompletion)
    assert completion.model == "openclaw/main"
    [choice] = completion.choices
    assert choice.message.content == "hello there"
    assert choice.finish_reason is models.FinishReason.STOP
    assert (choice.message.refusal, choice.logprobs) == (None, None)
    assert completion.usage.completion_tokens == 2


def test_nullable_fields_accept_null_and_values(generated: GeneratedClient, caller: Any) -> None:
    models = generated.models
    names = ["stream", "stream_options", "temperature", "seed", "stop", "logit_bias", "reasoning_effort", "verbosity"]
    names += ["n", "logprobs", "store", "service_tier", "modalities", "metadata", "function_call", "prediction"]
    nulls = generated.ask(caller, generated.user("hi"), **dict.fromkeys(names))
    assert nulls.status_code == 200, nulls.content
    values = {
        "stop": ["end"],
        "seed": 1,
        "reasoning_effort": models.ReasoningEffort.LOW,
        "stream_options": models.StreamOptions(include_usage=True),
        "store": False,
        "response_format": models.ResponseFormatText(type_=models.ResponseFormatTextType.TEXT),
    }
    assert generated.ask(caller, generated.user("hi"), **values).parsed.choices[0].message.content == "hi"


def test_tool_call_round_trip_completes_answer(generated: GeneratedClient, caller: Any) -> None:
    models = generated.models
    parameters = models.FunctionParameters.from_dict({"type": "object", "properties": {}})
    function = models.FunctionDefinition(name="weather", parameters=parameters)
    options: dict[str, Any] = {
        "headers": {"x_openclaw_model": "scripted/tools"},
        "tools": [models.Tool(type_=models.ToolType.FUNCTION, function=function)],
    }
    first = generated.ask(caller, generated.user("how is it outside?"), **options).parsed.choices[0]
    assert first.finish_reason is models.FinishReason.TOOL_CALLS
    assert first.message.content is None
    [call] = first.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("weather", "{}")
    called = models.AssistantMessage.from_dict(first.message.to_dict())
    result = models.ToolMessage(role=models.ToolMessageRole.TOOL, tool_call_id=call.id, content="sunny")
    second = generated.ask(caller, generated.user("how is it outside?"), called, result, **options)
    assert second.parsed.choices[0].message.content == "sunny"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"temperature": 3.0}, (400, "invalid_value", "temperature")),
        ({"model": "gpt-4o"}, (404, "model_not_found", "model")),
    ],
)
def test_refusal_is_typed_envelope(
    generated: GeneratedClient, caller: Any, fields: dict[str, Any], expected: tuple[int, str, str]
) -> None:
    response = generated.ask(caller, generated.user("hi"), **fields)
    assert isinstance(response.parsed, generated.models.ErrorEnvelope)
    error = response.parsed.error
    assert isinstance(error.code, generated.models.ErrorCode)
    assert (response.status_code, error.code, error.param) == expected


def test_wrong_token_is_typed_envelope(generated: GeneratedClient, gateway: LiveGateway) -> None:
    with generated.root.AuthenticatedClient(base_url=gateway.url, token="wrong") as stranger:
        response = generated.ask(stranger, generated.user("hi"))
    assert response.status_code == 401
    assert response.parsed.error.code is generated.models.ErrorCode.INVALID_API_KEY
    assert response.parsed.error.type_ is generated.models.ErrorType.AUTHENTICATION_ERROR


def test_agents_are_listed_as_models(generated: GeneratedClient, caller: Any) -> None:
    listed = generated.operation("list_models").sync(client=caller)
    assert [model.id for model in listed.data] == ["openclaw", "openclaw/default", "openclaw/main", "openclaw/beta"]


@pytest.mark.parametrize("name", ["openclaw", "openclaw/main", "agent:beta"])
def test_model_is_found_by_name_with_slashes_and_colons(generated: GeneratedClient, caller: Any, name: str) -> None:
    assert generated.operation("get_model").sync(name, client=caller).id == name


def test_unknown_model_is_typed_envelope(generated: GeneratedClient, caller: Any) -> None:
    refused = generated.operation("get_model").sync("agent:nobody", client=caller)
    assert refused.error.code is generated.models.ErrorCode.MODEL_NOT_FOUND


def test_health_and_readiness_need_no_token(generated: GeneratedClient, anonymous: Any) -> None:
    assert generated.operation("get_health").sync(client=anonymous).ok is True
    assert generated.operation("get_readiness").sync(client=anonymous).failing == []


def test_agent_header_selects_agent(generated: GeneratedClient, caller: Any) -> None:
    response = generated.ask(caller, generated.user("hi"), headers={"x_openclaw_agent_id": "beta"})
    assert response.headers["x-openclaw-session-key"].startswith("agent:beta:")


def test_session_key_keeps_history_across_requests(generated: GeneratedClient, caller: Any) -> None:
    headers = {"x_openclaw_session_key": f"generated-{uuid.uuid4()}"}
    first = generated.ask(caller, generated.user("one two"), headers=headers).parsed
    second = generated.ask(caller, generated.user("one two"), headers=headers).parsed
    # the model counts the words it is sent: the second time the first question and its answer as well
    assert second.usage.prompt_tokens == first.usage.prompt_tokens + 4


def test_contract_is_served_as_json_and_yaml(generated: GeneratedClient, anonymous: Any) -> None:
    document = generated.operation("get_contract_json").sync(client=anonymous).to_dict()
    text = generated.operation("get_contract_yaml").sync(client=anonymous)
    assert yaml.safe_load(text) == document
