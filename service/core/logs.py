"""Where a serving process writes its log: to standard error, one line for each thing that happened."""

from __future__ import annotations

import logging
import time


class _LineFormatter(logging.Formatter):
    """Logging's own form; what is the same for all lines of one second is made once."""

    _made = -1, ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        del datefmt
        second, text = self._made
        if second != int(record.created):
            text = time.strftime(self.default_time_format, self.converter(record.created))
            self._made = int(record.created), text
        return f"{text},{int(record.msecs):03d}"


def configure_logging(*, with_process: bool = False) -> None:
    """Send every logger's lines to standard error; `with_process` names the process that wrote each."""
    name = "%(name)s[%(process)d]" if with_process else "%(name)s"
    handler = logging.StreamHandler()
    handler.setFormatter(_LineFormatter(f"%(asctime)s %(levelname)s {name} %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.logThreads = logging.logMultiprocessing = False  # no line tells them
    logging.logProcesses = with_process
    for repeating in ("connexion", "werkzeug"):  # they would repeat what the access log and the answers say
        logging.getLogger(repeating).setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # each step of a first start is nobody's concern
