"""The text of files that requests bring: PDF, HTML, and everything that is text itself.

The content decides what a file is. PDF and HTML are converted in processes with limits of time and memory.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections import OrderedDict
from pathlib import Path

import orjson

from service.agent.pdf_text import TOO_LARGE
from service.core.dataclass import record
from service.core.errors import GatewayError, internal_error
from service.core.processes.command import Command, CommandError, Outcome, run_command
from service.tools import page_text
from service.tools.process_slots import ProcessSlots
from service.tools.tool import ToolError

logger = logging.getLogger("openclaw.http")

MAX_FILE_BYTES = 5 * 1024 * 1024

#: The longest text of one file: that of the longest text file.
MAX_CHARACTERS = MAX_FILE_BYTES

_PDF_PROGRAM = Path(__file__).with_name("pdf_text.py")
_PAGE_PROGRAM = Path(page_text.__file__)
_PDF_MARK = b"%PDF-"
_MARK_WITHIN_BYTES = 1024
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_HTML_NAMES = (".html", ".htm", ".xhtml")
_CONVERSION_SECONDS = 20.0
_QUEUE_SECONDS = 30.0
_REPORT_BYTES = 8 * MAX_CHARACTERS
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_CONTROLS = frozenset(map(chr, range(32))) - frozenset("\t\n\r\f\v\x1b\x08")
_LOGGED_CHARACTERS = 2000
_KEPT_CHARACTERS = 4 * 1024 * 1024


@record
class SentFile:
    """A file of a request; `media_type` is its label, which may be wrong or empty."""

    name: str
    media_type: str
    data: bytes


class FileError(Exception):
    """A file that cannot be read; the text completes "The file cannot be read: "."""


class FileReader:
    """Reads files. `slots` limit the processes; the latest texts are kept, since clients send conversations again."""

    def __init__(self, slots: ProcessSlots) -> None:
        self._slots = slots
        self._texts: OrderedDict[bytes, str] = OrderedDict()
        self._kept_characters = 0

    def read(self, file: SentFile) -> str:
        """Return the text of a file. Raises `FileError`, and `GatewayError` (`overloaded`) without a free process."""
        if len(file.data) > MAX_FILE_BYTES:
            raise FileError(f"it has {len(file.data)} bytes; at most {MAX_FILE_BYTES} (5 MiB) are allowed")
        if not file.data.strip():
            raise FileError("it is empty")
        is_pdf = _PDF_MARK in file.data[:_MARK_WITHIN_BYTES]
        if not (is_pdf or _is_html(file)):
            return _decode(file.data)
        key = hashlib.sha256(file.data).digest() + bytes([is_pdf])
        text = self._texts.get(key)
        if text is None:
            text = self._convert_pdf(file.data) if is_pdf else self._convert_html(file.data)
            self._keep(key, text)
        return text

    def _keep(self, key: bytes, text: str) -> None:
        self._texts[key] = text
        self._kept_characters += len(text)
        while self._kept_characters > _KEPT_CHARACTERS:
            self._kept_characters -= len(self._texts.popitem(last=False)[1])

    def _convert_pdf(self, data: bytes) -> str:
        outcome = self._run((str(_PDF_PROGRAM),), data)
        report = _parse_report(outcome)
        if "problem" in report:
            raise FileError(report["problem"])
        return report["text"]

    def _convert_html(self, data: bytes) -> str:
        outcome = self._run((str(_PAGE_PROGRAM), "file:", "", "0", str(MAX_CHARACTERS + 1)), data)
        report = _parse_report(outcome)
        if not report["text"].strip():
            raise FileError("its HTML has no text")
        return report["text"]

    def _run(self, arguments: tuple[str, ...], data: bytes) -> Outcome:
        command = Command(
            argv=(sys.executable, "-I", *arguments),
            cwd="/",
            env={"LANG": "C.UTF-8"},
            timeout_seconds=_CONVERSION_SECONDS,
            kept_bytes=_REPORT_BYTES,
            stdin=data,
        )
        try:
            with self._slots.hold(_QUEUE_SECONDS):
                outcome = run_command(command)
        except (CommandError, ToolError) as error:
            raise GatewayError("overloaded", f"Files cannot be converted now: {error}") from error
        if outcome.cause == "timeout":
            raise FileError(f"its conversion takes longer than {_CONVERSION_SECONDS:g} seconds")
        if outcome.status == TOO_LARGE or outcome.status < 0:  # a parser without memory may crash
            raise FileError("it takes too much memory to convert, or is too deeply nested")
        if outcome.status != 0:
            output = outcome.stderr.tail or outcome.stderr.head
            logger.error("a file cannot be converted: the converter failed\n%s", output[-_LOGGED_CHARACTERS:])
            raise internal_error()
        return outcome


def _parse_report(outcome: Outcome) -> dict[str, str]:
    if outcome.stdout.cut_bytes:
        raise FileError("its text is too long")
    report: dict[str, str] = orjson.loads(outcome.stdout.head)
    if len(report.get("text", "")) > MAX_CHARACTERS:
        raise FileError("its text is too long")
    return report


def _is_html(file: SentFile) -> bool:
    return file.media_type in _HTML_TYPES or file.name.lower().endswith(_HTML_NAMES)


def _decode(data: bytes) -> str:
    try:
        text = data.decode(_BYTE_ORDER_MARKS.get(data[:2], "utf-8-sig"))
    except UnicodeDecodeError:
        text = None
    if text is None or not _CONTROLS.isdisjoint(text):
        raise FileError("it is neither a PDF nor text in UTF-8, such as Markdown, CSV, JSON or HTML")
    return text
