"""The parent of several processes that serve one port: gunicorn's arbiter, kept small, and what its workers are.

Run as a program by `openclaw gateway --workers N`, which has checked the configuration and opened the port before. The
arbiter's own standard library stays as it is; each worker makes its own cooperative before it imports the gateway.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Any, NoReturn

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.glogging import Logger
from gunicorn.sock import TCP6Socket, TCPSocket
from gunicorn.workers.ggevent import GeventPyWSGIWorker

from service.core.logs import configure_logging

_BURST_SECONDS = 1.0
_CLOSING_SECONDS = 10.0  # what a worker may take beyond it to let go of models and store
_INSISTED_SECONDS = 5.0
_SILENCE_SECONDS = 60.0  # a worker whose event loop has not turned for so long is replaced
_TELL_AFTER_SECONDS = 0.5

_log = logging.getLogger("openclaw.workers")


class _Log(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's warnings and errors in the gateway's log; it tells nothing else."""

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self.error_log = _log
        _log.setLevel(logging.WARNING)


class _Tokens:
    """One for each of `count` processes; who draws the last one knows that all have begun."""

    def __init__(self, count: int) -> None:
        self._read_end, write_end = os.pipe()
        os.write(write_end, b"." * (count - 1) + b"!")
        os.close(write_end)

    def draw_last(self) -> bool:
        """Draw one: whether it is the last. Who comes when none is left has drawn none."""
        return os.read(self._read_end, 1) == b"!"


class _Application(BaseApplication):  # type: ignore[misc]
    """What gunicorn asks of an application: its settings. Workers make their own WSGI application."""

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
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def opening(self) -> dict[str, Any]:
        """The arguments of `Worker.open` and its like."""
        return {"host": self.options.host, "dev": self.options.dev, "profile": self.options.profile}


class GatewayWorker(GeventPyWSGIWorker):  # type: ignore[misc]
    """A gunicorn worker that serves a Gateway of its own with the gateway's own server."""

    def init_process(self) -> None:
        """Become a worker: tied to the arbiter, with signals that only the arbiter sends."""
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH):
            signal.signal(number, signal.SIG_IGN)
        super().init_process()

    def init_signals(self) -> None:
        """Until there is something to drain, a signal to stop is only remembered."""
        for number in (signal.SIGTERM, signal.SIGQUIT):
            signal.signal(number, self.handle_exit)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGABRT, self.handle_abort)

    def load_wsgi(self) -> None:
        """Open the gateway; one that cannot be opened ends this process and, by its status, the arbiter."""
        from service.core.processes.launcher import tie_to_parent  # noqa: PLC0415 - only now all is patched
        from service.server.http1.server import RequestHandler, Server  # noqa: PLC0415
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
    """Keeps the workers: on a port that is open already, and with a stop like the single process's."""

    def __init__(self, app: _Application) -> None:
        super().__init__(app)
        listener = socket.socket(fileno=os.dup(app.options.listener))
        kind = TCP6Socket if listener.family == socket.AF_INET6 else TCPSocket
        address = listener.getsockname()[:2]
        listener.close()
        self.LISTENERS = [kind(address, self.cfg, self.log, fd=app.options.listener)]

    def handle_int(self) -> NoReturn:
        """SIGINT asks to stop, as SIGTERM does."""
        raise StopIteration

    def handle_usr2(self) -> None:
        """SIGUSR2, gunicorn's change of program, is not offered."""

    def reload(self) -> None:
        """Replace all workers by new ones that read the configuration again, unless that has a fault."""
        if not self._is_configuration_good():
            _log.error("The workers were not replaced: the configuration has a fault.")
            return
        for _ in range(self.num_workers):
            self.spawn_worker()
        self.manage_workers()  # the oldest finish what they are doing

    def _is_configuration_good(self) -> bool:
        # In a child: what it takes to read the configuration is not for the arbiter to import.
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
        except Exception:  # noqa: BLE001 - a defect must not end the workers that serve
            _log.exception("The configuration could not be checked.")
        finally:
            os._exit(status)

    def stop(self, graceful: bool = True) -> None:
        """Dismiss the workers and wait for them: their grace, or less once somebody insists.

        A SIGQUIT does, and a SIGINT or SIGTERM that comes more than a second later.
        """
        for listener in self.LISTENERS:
            listener.close()
        self.LISTENERS = []
        self.kill_workers(signal.SIGTERM if graceful else signal.SIGQUIT)
        began = time.monotonic()
        give_up_at = began + (self.cfg.graceful_timeout if graceful else _INSISTED_SECONDS)
        told = not graceful
        while self.WORKERS and time.monotonic() < give_up_at:
            numbers = self.wait_for_signals(timeout=0.1)
            waited = time.monotonic() - began
            asked_again = signal.SIGINT in numbers or signal.SIGTERM in numbers
            if signal.SIGQUIT in numbers or (asked_again and waited > _BURST_SECONDS):
                self.kill_workers(signal.SIGQUIT)
                give_up_at = min(give_up_at, time.monotonic() + _INSISTED_SECONDS)
            with suppress(HaltServer):  # one that could not begin, when all are to end
                self.reap_workers()
            if not told and self.WORKERS and waited > _TELL_AFTER_SECONDS:
                told = True
                grace_seconds = self.app.options.grace
                _tell(f"Stopping: answers are under way, {grace_seconds:g} s at most. Ctrl-C again stops at once.")
        self.kill_workers(signal.SIGKILL)
        with suppress(HaltServer):
            self.reap_workers()

    def halt(self, reason: str | None = None, exit_status: int = 0) -> NoReturn:
        """Stop everything and end with `exit_status`."""
        self.stop()
        _tell("Stopped." if exit_status == 0 else f"Error: {reason} The gateway has ended.")
        sys.exit(exit_status)


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Serve with several workers until told to stop."""
    parser = argparse.ArgumentParser(description="Serve with several workers; started by `openclaw gateway --workers`.")
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--listener", type=int, required=True, help="the descriptor of a socket that listens")
    parser.add_argument("--host", required=True, help="the address it listens on")
    parser.add_argument("--grace", type=float, default=30.0, help="how many seconds answers may go on at the end")
    parser.add_argument("--dev", action="store_true")
    parser.add_argument("--profile")
    configure_logging(with_process=True)
    GatewayArbiter(_Application(parser.parse_args())).run()


if __name__ == "__main__":
    main()
