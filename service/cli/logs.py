"""`openclaw logs`: the log file of the gateway, as text or as the JSON lines that it has."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import click

from service.cli.shared.common import json_option, pass_locations, print_json_text, printable
from service.config.source import Locations
from service.core.logs import rotated_path, to_logfmt

_POLL_SECONDS = 0.25
_BLOCK_BYTES = 1 << 20
_HEAD = ("time", "level", "logger", "process", "message", "exception")
_COLOURS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Print further lines as they come.")
@click.option("--limit", type=click.IntRange(0), default=200, show_default=True, help="Lines from the end to print.")
@json_option
@pass_locations
def logs(locations: Locations, *, follow: bool, limit: int, as_json: bool) -> None:
    """Print the end of the log file of the gateway on this machine (`logging.file`)."""
    path = _log_path(locations)
    tail = _Tail(path)
    if not tail.open() and not follow:
        raise click.ClickException(f"{path} does not exist: no gateway has written to it yet.")
    for line in tail.last(limit):
        _print(line, as_json=as_json)
    while follow:
        for line in tail.more():
            _print(line, as_json=as_json)
        time.sleep(_POLL_SECONDS)


def _log_path(locations: Locations) -> Path:
    from service.config.loading import load_sections

    config = load_sections(locations, os.environ, required=("logging",), optional=())
    path = config.logging.path_in(locations.state_dir)
    if path is None:
        raise click.ClickException(
            "The gateway logs to its standard error only: see the terminal or the service that runs it, such as "
            f"`journalctl --unit openclaw-gateway`. `{locations.command} config set logging.file logs/gateway.log` "
            "makes it log to a file, too."
        )
    return path


class _Tail:
    """The lines of a file that grows, and that is moved away or emptied and begun again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None
        self._rest = b""

    def last(self, count: int) -> Iterator[str]:
        """Yield the last `count` lines, the file before this one included; `more` continues there."""
        found = 0 if self._file is None else _seek_last_lines(self._file, count)
        if found < count:
            with suppress(OSError), rotated_path(self._path, 1).open("rb") as file:
                _seek_last_lines(file, count - found)
                yield from (line.decode(errors="replace").rstrip("\n") for line in file)
        yield from self.more()

    def more(self) -> Iterator[str]:
        """Yield the complete lines that are new since the last call."""
        while True:
            while self._file is not None and (data := self._file.read(_BLOCK_BYTES)):
                *complete, self._rest = (self._rest + data).split(b"\n")
                yield from (line.decode(errors="replace") for line in complete)
            if not self.open():
                return

    def open(self) -> bool:
        """Open the file that is at the path now; returns whether it is another one, or was emptied."""
        try:
            found = self._path.stat()
            if self._file is not None:
                current = os.fstat(self._file.fileno())
                if (found.st_dev, found.st_ino) == (current.st_dev, current.st_ino):
                    return self._begin_again_if_cut(found.st_size)
                self._file.close()
            self._file, self._rest = self._path.open("rb"), b""
        except FileNotFoundError:
            return False
        except OSError as error:
            remedy = "Run this as the user of the gateway, and have `logging.file` name a file."
            raise click.ClickException(f"{self._path} cannot be read: {error.strerror}. {remedy}") from None
        return True

    def _begin_again_if_cut(self, size: int) -> bool:
        is_cut: bool = size < self._file.tell()  # logrotate's copytruncate
        if is_cut:
            self._file.seek(0)
            self._rest = b""
        return is_cut


def _seek_last_lines(file: BinaryIO, count: int) -> int:
    """Go to where the last `count` complete lines begin, or to the beginning; returns how many follow."""
    start, ends = file.seek(0, os.SEEK_END), 0
    while start > 0:
        size = min(_BLOCK_BYTES, start)
        start = file.seek(start - size)
        block = file.read(size)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            if ends == count:
                file.seek(start + at + 1)
                return count
            ends += 1
    file.seek(0)
    return ends


def _print(line: str, *, as_json: bool) -> None:
    if as_json:
        print_json_text(line)
        return
    try:
        entry = json.loads(line)
        level, process = str(entry["level"]), f"[{entry['process']}]" if "process" in entry else ""
        words = [f"{entry['logger']}{process}"]
        words += [str(entry["message"])] if "message" in entry else []
        words += [f"{key}={to_logfmt(value)}" for key, value in entry.items() if key not in _HEAD]
        words[-1] += f"\n{entry['exception']}" if "exception" in entry else ""
        head = f"{printable(str(entry['time']))} {click.style(printable(level), fg=_COLOURS.get(level))}"
    except (ValueError, KeyError, TypeError):  # cut short, or not by a gateway
        click.echo(printable(line))
    else:
        click.echo(f"{head} {printable(' '.join(words))}")
