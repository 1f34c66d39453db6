"""A headless Chromium, driven by its DevTools protocol: pages, keys, screenshots."""

from __future__ import annotations

import base64
import itertools
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from websockets.sync.client import ClientConnection, connect

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed (Debian: apt install chromium)")

PATIENCE_SECONDS = 30.0
_START_SECONDS = 120.0
_KEYS = {"Enter": (13, "\r"), "Tab": (9, ""), "Escape": (27, "")}
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"),
    *("--no-first-run", "--remote-debugging-port=0", "--hide-scrollbars", "--lang=en-US"),
)


class Page:
    """The one page of a browser. `problems` are its uncaught errors and refusals of its security policy."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._ids = itertools.count(1)
        self.problems: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> Any:
        """Call a method of the protocol and return its result."""
        number = next(self._ids)
        self._connection.send(orjson.dumps({"id": number, "method": method, "params": params}).decode())
        while True:
            frame = orjson.loads(self._connection.recv(PATIENCE_SECONDS))
            if frame.get("id") == number:
                assert "error" not in frame, frame
                return frame["result"]
            self._note(frame)

    def _note(self, frame: dict[str, Any]) -> None:
        params = frame.get("params", {})
        if frame.get("method") == "Runtime.exceptionThrown":
            self.problems.append(orjson.dumps(params["exceptionDetails"]).decode())
        elif frame.get("method") == "Log.entryAdded" and params["entry"]["source"] in ("security", "violation"):
            self.problems.append(params["entry"]["text"])

    def open(self, url: str) -> None:
        """Go to another address, or load the same again."""
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, of a promise's outcome."""
        result = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, expression: str) -> Any:
        """Wait until a JavaScript expression is true, and return its value, `True` for a part of the page."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (value := self.evaluate(f"(value => value instanceof Node || value)({expression})")):
            assert time.monotonic() < deadline, f"{expression}\n{self.text()}\n{self.problems}"
            time.sleep(0.02)
        return value

    def text(self) -> str:
        """Return the text that is shown."""
        return str(self.evaluate("document.body.innerText"))

    def wait_for_text(self, text: str) -> None:
        """Wait until the page shows `text`."""
        self.wait(f"document.body.innerText.includes({orjson.dumps(text).decode()})")

    def click(self, selector: str) -> None:
        """Wait for an element that is not disabled, and click it."""
        quoted = orjson.dumps(f"{selector}:not(:disabled)").decode()
        self.wait(f"(() => {{ const found = document.querySelector({quoted}); found?.click(); return !!found; }})()")

    def fill(self, selector: str, text: str) -> None:
        """Wait for a field, replace its text as typing does, and leave the focus in it."""
        found = f"document.querySelector({orjson.dumps(selector).decode()})"
        self.wait(f"({found} ?? {{}}).disabled === false")
        self.evaluate(f"{found}.focus(), {found}.select?.()")
        self.send("Input.insertText", text=text)

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press a key; `modifiers` is 8 for Shift."""
        code, text = _KEYS[key]
        both = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **both)
        self.send("Input.dispatchKeyEvent", type="keyUp", **both)

    def show_as(self, width: int, height: int, scheme: str = "light") -> None:
        """Set the size of the window in CSS pixels, and whether the person prefers light or dark."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def save_picture(self, path: Path) -> None:
        """Save what is shown as a PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def open_browser(profile: Path) -> Iterator[Page]:
    """Start a browser with an empty profile; it is killed at the end of the block."""
    assert PROGRAM is not None
    command = [PROGRAM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = _wait_for_port(profile / "DevToolsActivePort", process)
        targets = httpx.get(f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE_SECONDS).json()
        address = next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page")
        with connect(address, max_size=None, compression=None) as connection:
            yield Page(connection)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_port(path: Path, process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if path.exists() and (lines := path.read_text().splitlines()):
            return int(lines[0])
        assert process.poll() is None, f"the browser ended with status {process.returncode}"
        time.sleep(0.02)
    raise AssertionError("the browser did not start")
