"""Where a serving process writes its log: to standard error, one line for each thing that happened."""

from __future__ import annotations

import logging


def configure_logging(*, with_process: bool = False) -> None:
    """Send every logger's lines to standard error; `with_process` names the process that wrote each."""
    name = "%(name)s[%(process)d]" if with_process else "%(name)s"
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s %(levelname)s {name} %(message)s")
    logging.logThreads = logging.logMultiprocessing = False  # no line tells them
    logging.logProcesses = with_process
    for repeating in ("connexion", "werkzeug"):  # they would repeat what the access log and the answers say
        logging.getLogger(repeating).setLevel(logging.CRITICAL)
