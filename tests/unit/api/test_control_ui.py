"""The files of the page at `/`."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import service.api.control_ui
from handlers.control_ui import get_control_ui, get_control_ui_asset
from service.api.http.contract import load_contract
from service.api.http.responses import Response

HOME = Path(service.api.control_ui.__file__).parent

#: SHA-256 of the libraries, as in the npm packages: lit-html 3.3.3, marked 18.2.1, dompurify 3.5.0.
LIBRARIES = {
    "lit-html.js": "b878e7f95dec8a9b6e9b217faca6b6a11bad82ebc44c0caa77419ed83edd81f2",
    "marked.esm.js": "5371fea86fd0656b4fc7bea7c94c663109d82789b69433eeee78d42895aa44de",
    "purify.min.js": "f69a46022ab1f53e969c8ebbca98172c8995785a9b3be72ea4a12d25b1a1bf67",
}
FILE_LINES = 350


def names() -> set[str]:
    return {path.name for path in HOME.iterdir() if path.suffix in (".js", ".css")}


def body_of(response: Response) -> str:
    assert isinstance(response.body, bytes)
    return response.body.decode()


def test_contract_lists_the_files() -> None:
    assert set(load_contract()["components"]["schemas"]["ControlUiAsset"]["enum"]) == names()


def test_files_refer_to_files_of_the_page() -> None:
    page = body_of(get_control_ui())
    referred = set(re.findall(r'(?:src|href)="/ui/([^"]+)"', page))
    for name in names() - LIBRARIES.keys():
        referred |= set(
            re.findall(r'^(?:import|\} from|.*?from) "\./([^"]+)"', body_of(get_control_ui_asset(name)), re.MULTILINE)
        )
    assert referred == names()


def test_policy_allows_nothing_inline_and_no_other_host() -> None:
    policy = dict(get_control_ui().headers)["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "//" not in policy
    own = [body_of(get_control_ui_asset(name)) for name in names() - LIBRARIES.keys()]
    for text in (body_of(get_control_ui()), *own):
        assert not re.search(
            r"innerHTML|insertAdjacentHTML|\beval\(|new Function|\bstyle=|localStorage|document\.cookie", text
        )


def test_libraries_are_those_of_their_makers() -> None:
    digests = {name: hashlib.sha256((HOME / name).read_bytes()).hexdigest() for name in LIBRARIES}
    assert digests == LIBRARIES


def test_own_files_are_short() -> None:
    lengths = {name: (HOME / name).read_text().count("\n") for name in names() - LIBRARIES.keys()}
    assert {name: length for name, length in lengths.items() if length > FILE_LINES} == {}
