"""TypeScript types generated from the published contract, checked by the compiler and used against the gateway."""

from __future__ import annotations

from pathlib import Path

from support.documents import reader_environment, succeed
from support.live import LiveGateway

from interop.conftest import Published

CALLS = Path(__file__).with_name("typed_client.ts")


def test_generated_types_describe_json_and_stream(gateway: LiveGateway, published: Published) -> None:
    directory = gateway.directory / "types"
    directory.mkdir()
    (directory / "node_modules").symlink_to(published.modules)
    (directory / "package.json").write_text('{"type": "module"}')
    (directory / CALLS.name).write_bytes(CALLS.read_bytes())

    def run(package: str, script: str, *arguments: str) -> str:
        program = [str(published.node), str(published.modules / package / script), *arguments]
        return succeed(program, reader_environment(gateway), directory)

    run("openapi-typescript", "bin/cli.js", f"{gateway.url}/openapi-3.1.json", "-o", "gateway.d.ts")
    compiled = ["--strict", "--target", "es2022", "--module", "nodenext", "--types", "node", CALLS.name]
    run("typescript", "bin/tsc", *compiled)
    printed = succeed([str(published.node), "typed_client.js", gateway.url], reader_environment(gateway), directory)
    assert printed.splitlines() == ["hi", "hi", "model_not_found"]
