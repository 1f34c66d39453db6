"""Lines of the log: their two formats, and the file that several processes share."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from service.core import logs
from service.core.logs import KEPT_FILES, LogSettings, configure_logging, rotated_path, to_logfmt_line, write_event
from service.core.work_context import WorkContext, current_work

logger = logging.getLogger("openclaw.test")

WRITER = """
import logging, sys
from pathlib import Path
from service.core.logs import LogSettings, configure_logging, write_event
configure_logging(LogSettings(file=Path(sys.argv[1]), max_file_bytes=20_000), console=False, with_process=True)
for number in range(300):
    write_event(logging.getLogger("openclaw.test"), {"number": number, "filling": "x" * 100})
"""


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    root, own = logging.root, logging.getLogger("openclaw")
    before = list(root.handlers), root.level, own.level
    yield tmp_path / "logs" / "gateway.log"
    for handler in logs._handlers:
        handler.close()
    logs._handlers.clear()
    root.handlers = before[0]
    root.setLevel(before[1])
    own.setLevel(before[2])


def entries(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain/1.5", "plain/1.5"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a\nb", '"a\\nb"'),
        ("\ud800", '"\\ud800"'),
        ("x" * 300, "x" * 256),
        ("forged a=b", '"forged a=b"'),
        ("x=", '"x="'),
        (1.5, "1.5"),
    ],
)
def test_logfmt_value_stays_on_its_line(value: str | float, text: str) -> None:
    assert to_logfmt_line({"a": 1, "b": value, "d": "d"}) == f"a=1 b={text} d=d"


def test_both_formats_have_the_same_fields(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(file=path))
    write_event(logger, {"run": "r 1", "tokens": 3, "key": "a=b c"})
    token = current_work.set(WorkContext({"run": "r2"}))
    logger.warning("it %s", "failed")
    current_work.reset(token)
    logger.error("defect \ud800", exc_info=ValueError("why"))
    event, warning, defect = entries(path)
    assert (event["level"], event["logger"], event["run"], event["tokens"]) == ("INFO", "openclaw.test", "r 1", 3)
    assert (warning["level"], warning["message"], warning["run"]) == ("WARNING", "it failed", "r2")
    assert defect["exception"].endswith("ValueError: why")
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].endswith(' INFO openclaw.test run="r 1" tokens=3 key="a=b c"')
    assert lines[1].endswith(" WARNING openclaw.test it failed run=r2")
    assert lines[-1] == "ValueError: why"
    assert path.stat().st_mode & 0o777 == 0o600


def test_levels_hold_for_each_place(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(level=logging.DEBUG, console_level=logging.ERROR, file=path))
    logger.debug("found")
    write_event(logger, {"run": "r"})
    logging.getLogger("a_library").debug("its own matter")
    logger.error("failed")
    assert [one.get("message") for one in entries(path)] == ["found", None, "failed"]
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_processes_share_file_and_lose_no_line_when_it_is_rotated(path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(Path.cwd())}) for _ in range(2)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    files = [path, *(rotated_path(path, number) for number in range(1, KEPT_FILES + 1))]
    assert all(file.exists() for file in files[:4])
    kept = [file for file in files if file.exists()]
    assert all(file.stat().st_size < 20_500 for file in kept)  # each writer may have been about to add a line
    assert not rotated_path(path, KEPT_FILES + 1).exists()
    newest: dict[int, list[int]] = {}
    for one in [one for file in reversed(kept) for one in entries(file)]:
        newest.setdefault(one["process"], []).append(one["number"])
    for numbers in newest.values():  # the oldest may have gone with a file beyond those that are kept
        assert numbers == list(range(numbers[0], 300))
