"""The files of the page at `/`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
from werkzeug.test import create_environ

import service.api.control_ui
from handlers.control_ui import get_control_ui, get_control_ui_asset, get_control_ui_library
from service.api.control_ui import load_file
from service.api.http.connexion_app import REQUEST, Application, Request
from service.api.http.contract import load_contract
from service.api.http.http_response import Response

HOME = Path(service.api.control_ui.__file__).parent
VENDOR = HOME / "vendor"
LIBRARIES = orjson.loads((VENDOR / "libraries.json").read_bytes())
FILE_LINES = 350


@contextmanager
def request_with(headers: dict[str, str] | None = None) -> Iterator[None]:
    app = Application(lambda _: None, str, lambda *_: None)
    token = REQUEST.set(Request(app, create_environ(headers=headers)))
    try:
        yield
    finally:
        REQUEST.reset(token)


@pytest.fixture(autouse=True)
def request_context() -> Iterator[None]:
    with request_with():
        yield


def names() -> set[str]:
    return {path.name for path in HOME.iterdir() if path.suffix in (".js", ".css")}


def library_names() -> set[str]:
    return {path.name for path in VENDOR.glob("*.js")}


def body_of(response: Response) -> str:
    assert isinstance(response.body, bytes)
    return response.body.decode()


def test_contract_lists_the_files() -> None:
    schemas = load_contract()["components"]["schemas"]
    assert set(schemas["ControlUiAsset"]["enum"]) == names()
    assert set(schemas["ControlUiLibrary"]["enum"]) == library_names()


def test_files_refer_to_files_of_the_page() -> None:
    page = body_of(get_control_ui())
    referred = set(re.findall(r'(?:src|href)="/ui/([^"]+)"', page))
    for name in names():
        referred |= set(
            re.findall(r'^(?:import|\} from|.*?from) "\./([^"]+)"', body_of(get_control_ui_asset(name)), re.MULTILINE)
        )
    assert referred == names() | {f"vendor/{name}" for name in library_names()}


def test_policy_allows_nothing_inline_and_no_other_host() -> None:
    policy = dict(get_control_ui().headers)["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "//" not in policy
    own = [body_of(get_control_ui_asset(name)) for name in names()]
    for text in (body_of(get_control_ui()), *own):
        assert not re.search(
            r"innerHTML|insertAdjacentHTML|\beval\(|new Function|\bstyle=|localStorage|document\.cookie", text
        )


def test_libraries_are_those_of_their_makers() -> None:
    digests = {name: hashlib.sha256(load_file(f"vendor/{name}").content).hexdigest() for name in library_names()}
    assert {one["file"]: one["sha256"] for one in LIBRARIES} == digests


def test_libraries_have_the_versions_and_licences_that_are_listed() -> None:
    page = (Path(__file__).parents[3] / "docs" / "control-ui.md").read_text()
    for one in LIBRARIES:
        assert one["version"] in body_of(get_control_ui_library(one["file"]))
        assert f"/package/{one['name']}) {one['version']} | {one['license']} |" in page
        assert (VENDOR / f"LICENSE.{one['name']}").stat().st_size > 1000


@pytest.mark.parametrize("sent", ['"{}"', 'W/"{}"', '"other", "{}"', "*"])
def test_file_that_the_browser_has_is_not_sent_again(sent: str) -> None:
    etag = dict(get_control_ui_asset("app.js").headers)["ETag"]
    with request_with(headers={"If-None-Match": sent.format(etag.strip('"'))}):
        unchanged = get_control_ui_asset("app.js")
    assert unchanged.status == "304 Not Modified"
    assert unchanged.body == b""
    assert dict(unchanged.headers) == {"ETag": etag, "Cache-Control": "no-cache"}


def test_file_that_the_browser_has_in_another_version_is_sent() -> None:
    etag = dict(get_control_ui_asset("style.css").headers)["ETag"]
    with request_with(headers={"If-None-Match": etag}):
        assert get_control_ui_asset("app.js").status == "200 OK"


def test_own_files_are_short() -> None:
    lengths = {name: (HOME / name).read_text().count("\n") for name in names()}
    assert {name: length for name, length in lengths.items() if length > FILE_LINES} == {}
