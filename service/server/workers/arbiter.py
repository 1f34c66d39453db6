"""The arbiter of several worker processes on one port, based on gunicorn's.

Run as a program by `openclaw gateway --workers N`, which has checked the configuration and opened the port before. The
arbiter does not patch its standard library; each worker patches its own before it imports the gateway.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.glogging import Logger
from gunicorn.sock import TCP6Socket, TCPSocket
from gunicorn.workers.ggevent import GeventPyWSGIWorker

from service.api.metrics.tallies import DIRECTORY_KEY, retire
from service.core.logs import configure_logging
from service.core.processes.hardening import make_undumpable, return_freed_memory

_BURST_SECONDS = 1.0
_CLOSING_SECONDS = 10.0  # time beyond the grace period for a worker to close models and storage
_FORCED_STOP_SECONDS = 5.0
_SILENCE_SECONDS = 60.0  # a worker whose event loop has been blocked for this long is replaced
_MESSAGE_AFTER_SECONDS = 0.5

_log = logging.getLogger("openclaw.workers")


class _Log(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's warnings and errors in the gateway's log, and nothing else."""

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self.error_log = _log
        _log.setLevel(logging.WARNING)


class _Tokens:
    """Start-up barrier: one token for each of `count` workers; the worker that draws the last prints the banner."""

    def __init__(self, count: int) -> None:
        self._read_end, write_end = os.pipe()
        os.write(write_end, b"." * (count - 1) + b"!")
        os.close(write_end)

    def draw_last(self) -> bool:
        """Draw a token; returns whether it was the last. A worker that finds none left returns False."""
        return os.read(self._read_end, 1) == b"!"


class _Application(BaseApplication):  # type: ignore[misc]
    """The settings that gunicorn reads from an application. Workers create their own WSGI application."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.tokens = _Tokens(options.workers)
        super().__init__()

    def load_config(self) -> None:
        settings = {
            "workers": self.options.workers,
            "worker_class": GatewayWorker,
            "logger_class": _Log,
            "timeout": int(_SILENCE_SECONDS),
            "graceful_timeout": int(self.options.grace + _CLOSING_SECONDS),
            "control_socket_disable": True,
            "child_exit": _forget_figures,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def opening(self) -> dict[str, Any]:
        """Return the arguments of `Worker.open` and `find_fault`."""
        return {"host": self.options.host, "dev": self.options.dev, "profile": self.options.profile}


def _forget_figures(_: Arbiter, worker: Any) -> None:
    """Leave the gauges of an ended worker out of the metrics."""
    retire(Path(os.environ[DIRECTORY_KEY]), worker.pid)


class GatewayWorker(GeventPyWSGIWorker):  # type: ignore[misc]
    """A gunicorn worker with its own gateway and the gateway's HTTP server."""

    def init_process(self) -> None:
        """Become a worker: ignore the signals of the terminal, which the arbiter handles."""
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH):
            signal.signal(number, signal.SIG_IGN)
        super().init_process()

    def init_signals(self) -> None:
        """Record a stop signal; `run` handles it once the worker serves."""
        for number in (signal.SIGTERM, signal.SIGQUIT):
            signal.signal(number, self.handle_exit)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGABRT, self.handle_abort)

    def load_wsgi(self) -> None:
        """Open the gateway; a failure ends this process and, by its exit status, the arbiter."""
        from service.core.processes.reaper import tie_to_parent  # noqa: PLC0415 - not before everything is patched
        from service.server.http1.request_handler import RequestHandler  # noqa: PLC0415
        from service.server.http1.server import Server  # noqa: PLC0415
        from service.server.workers.worker import CannotOpenError, Worker  # noqa: PLC0415

        self.server_class, self.wsgi_handler = Server, RequestHandler
        if not tie_to_parent(self.ppid, signal.SIGTERM):
            sys.exit(0)
        try:
            self.gateway = Worker.open(**self.app.opening())
        except CannotOpenError as error:
            sys.stderr.write(f"Error: {error}\n")
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
        self.wsgi = self.gateway.app

    def run(self) -> None:
        """Serve until dismissed."""
        self.gateway.serve(
            self.sockets[0],
            self.server_class,
            self.wsgi_handler,
            self.app.options.grace,
            is_last=self.app.tokens.draw_last,
            is_wanted=lambda: self.alive,
            beat=self.tmp.notify,
        )


class GatewayArbiter(Arbiter):  # type: ignore[misc]
    """Keeps the workers on an open port, and stops like a single process."""

    def __init__(self, app: _Application) -> None:
        super().__init__(app)
        listener = socket.socket(fileno=os.dup(app.options.listener))
        kind = TCP6Socket if listener.family == socket.AF_INET6 else TCPSocket
        address = listener.getsockname()[:2]
        listener.close()
        self.LISTENERS = [kind(address, self.cfg, self.log, fd=app.options.listener)]

    def handle_int(self) -> NoReturn:
        """Stop gracefully on SIGINT, as on SIGTERM."""
        raise StopIteration

    def handle_usr2(self) -> None:
        """Ignore SIGUSR2: gunicorn's upgrade of the program is not offered."""

    def reload(self) -> None:
        """Replace all workers by new ones that read the configuration again, unless it is invalid."""
        if not self._is_configuration_good():
            _log.error("workers not replaced: the configuration is invalid")
            return
        for _ in range(self.num_workers):
            self.spawn_worker()
        self.manage_workers()  # the oldest ones finish their requests

    def _is_configuration_good(self) -> bool:
        # In a child, so that the arbiter does not import what reads the configuration.
        child = os.fork()
        if child:
            return os.waitpid(child, 0)[1] == 0
        status = 1
        try:
            from service.server.workers.worker import find_fault  # noqa: PLC0415

            fault = find_fault(**self.app.opening())
            if fault is None:
                status = 0
            else:
                sys.stderr.write(f"Error: {fault}\n")
                sys.stderr.flush()
        except Exception:  # noqa: BLE001 - a defect must not end the serving workers
            _log.exception("the configuration could not be checked")
        finally:
            os._exit(status)

    def stop(self, graceful: bool = True) -> None:
        """Stop the workers and wait for them: for the grace period, or less when the stop is forced.

        A SIGQUIT forces it, or a SIGINT or SIGTERM that arrives more than a second later.
        """
        for listener in self.LISTENERS:
            listener.close()
        self.LISTENERS = []
        self.kill_workers(signal.SIGTERM if graceful else signal.SIGQUIT)
        began = time.monotonic()
        give_up_at = began + (self.cfg.graceful_timeout if graceful else _FORCED_STOP_SECONDS)
        announced = not graceful
        while self.WORKERS and time.monotonic() < give_up_at:
            numbers = self.wait_for_signals(timeout=0.1)
            waited = time.monotonic() - began
            asked_again = signal.SIGINT in numbers or signal.SIGTERM in numbers
            if signal.SIGQUIT in numbers or (asked_again and waited > _BURST_SECONDS):
                self.kill_workers(signal.SIGQUIT)
                give_up_at = min(give_up_at, time.monotonic() + _FORCED_STOP_SECONDS)
            with suppress(HaltServer):  # a worker that failed to start, when all are stopping
                self.reap_workers()
            if not announced and self.WORKERS and waited > _MESSAGE_AFTER_SECONDS:
                announced = True
                grace_seconds = self.app.options.grace
                _print(f"Stopping: waiting {grace_seconds:g} s at most for requests. Press Ctrl-C again to stop now.")
        self.kill_workers(signal.SIGKILL)
        with suppress(HaltServer):
            self.reap_workers()

    def halt(self, reason: str | None = None, exit_status: int = 0) -> NoReturn:
        """Stop everything and end with `exit_status`."""
        self.stop()
        _print("Stopped." if exit_status == 0 else f"Error: {reason} The gateway has ended.")
        sys.exit(exit_status)


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Serve with several workers until a signal stops them."""
    parser = argparse.ArgumentParser(description="Serve with several workers; started by `openclaw gateway --workers`.")
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--listener", type=int, required=True, help="the descriptor of a socket that listens")
    parser.add_argument("--host", required=True, help="the address it listens on")
    parser.add_argument("--grace", type=float, default=30.0, help="seconds that running requests get to finish")
    parser.add_argument("--dev", action="store_true")
    parser.add_argument("--profile")
    make_undumpable()
    return_freed_memory()
    configure_logging(with_process=True)
    with _shared_figures():
        GatewayArbiter(_Application(parser.parse_args())).run()


@contextmanager
def _shared_figures() -> Iterator[None]:
    """Let the workers share the figures of their metrics in a directory, which goes with this process."""
    arbiter = os.getpid()
    directory = os.environ[DIRECTORY_KEY] = tempfile.mkdtemp(prefix="openclaw-metrics-")
    try:
        yield
    finally:
        if os.getpid() == arbiter:  # and not a worker, which is a fork of it
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
