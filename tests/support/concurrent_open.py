"""Processes that open a database concurrently; a separate module so that the fork server imports it once."""

from __future__ import annotations

import logging
import multiprocessing
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path

import alembic.config
import alembic.runtime.environment
import alembic.script
import psycopg

from service.storage.database.open import open_database

__all__ = ["alembic", "context", "psycopg", "start_opening"]

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["__main__", __name__])


def _open(url: str | None, state_dir: Path, log: Path, start: Barrier) -> None:
    logging.basicConfig(filename=log, format="%(message)s")
    logging.getLogger("alembic").setLevel(logging.INFO)
    start.wait()
    open_database(url, state_dir).close()


def start_opening(url: str | None, state_dir: Path, log: Path, start: Barrier) -> ForkServerProcess:
    """Start a process that opens the database when all parties of `start` are ready, logging to the file `log`."""
    process = context.Process(target=_open, args=(url, state_dir, log, start))
    process.start()
    return process
