"""A running gateway follows its configuration file: what can be changed is, the rest is told, a wrong file is refused.

Nothing waits between the first and the last change of one edit, so that every request sees one configuration.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from service.api.auth import Credentials
from service.config.file_watch import FileWatch
from service.config.schema import Config
from service.config.source import ConfigError, Locations
from service.core.concurrency import spawn
from service.core.dataclass import record
from service.gateway.build import open_runtime
from service.gateway.gateway import Gateway
from service.gateway.runtime import Runtime
from service.gateway.startup_checks import check_agents, check_mode, check_state
from service.server.app import Apps

logger = logging.getLogger("openclaw.config")

#: How deep changed keys are named, and what of them deeper: where a part may wait for a restart.
_DEPTH = 2
_DEEPER = frozenset({"gateway.auth"})

#: What else waits with a key that waits for a restart.
_WITH = {
    "gateway.bind": ("gateway.customBindHost",),
    "gateway.auth.mode": ("gateway.auth.token", "gateway.auth.password"),
    "state": ("state.url",),
}


@record
class ResolvedConfig:
    """All that the file, the environment and the command line come to. `address` is what is listened on."""

    config: Config
    notices: tuple[str, ...]
    credentials: Credentials
    address: tuple[str, int]


def follow_file(
    watch: FileWatch, doors: Apps, started: ResolvedConfig, read: Callable[[], ResolvedConfig], locations: Locations
) -> None:
    """Apply edits of the file, which `read` reads, to `doors` and their Gateway, unless `gateway.reload` is off."""
    if started.config.gateway.reload.mode == "off":
        return
    gateway = doors.http.gateway
    live = ConfigReload(
        gateway, doors, started, read, lambda config: open_runtime(config, gateway.state.store, locations, os.environ)
    )
    spawn(watch.follow, live.apply)


class ConfigReload:
    """Brings a gateway that was started as `started` in line with what `read` gives now.

    `read` raises `ConfigError` for a file that cannot be used; `open_runtime` makes of a configuration what the Gateway
    runs with.
    """

    def __init__(
        self,
        gateway: Gateway,
        doors: Apps,
        started: ResolvedConfig,
        read: Callable[[], ResolvedConfig],
        open_runtime: Callable[[Config], Runtime],
    ) -> None:
        self._gateway = gateway
        self._doors = doors
        self._started = started
        self._now = started
        self._credentials = started.credentials  # in force, which those of `_now` are not while they wait for a restart
        self._read = read
        self._open_parts = open_runtime

    def apply(self) -> None:
        """Follow the file. Never raises: whatever is wrong, the configuration before stays in force and is told."""
        try:
            wanted = self._read()
            changed = _changed_keys(self._now, wanted)
            if changed:
                self._apply(wanted, changed)
        except ConfigError as error:
            logger.error("The edited configuration is refused, the one before stays in force. %s", error)  # noqa: TRY400  # no defect: the message says it all
        except Exception:
            # A defect must not end the watch over the file: it is logged here, and the next edit gets its chance.
            logger.exception("the edited configuration could not be applied")

    def _apply(self, wanted: ResolvedConfig, changed: list[str]) -> None:
        check_mode(wanted.config)
        check_state(wanted.config, os.environ)
        parts = self._open_parts(wanted.config)
        try:
            notices = check_agents(wanted.config, parts.roster, parts.catalog, parts.hidden)
        except BaseException:
            parts.close()
            raise
        waiting = _waiting_for_restart(self._started, wanted)
        if "gateway.auth.mode" not in waiting:
            self._credentials = wanted.credentials
        self._gateway.reconfigure(parts)
        self._doors.reconfigure(wanted.config, self._credentials)
        self._now = wanted
        in_force = [key for key in changed if not any(_is_of(key, waits) for waits in waiting)]
        if in_force:
            logger.info("The edited configuration is in force: %s", ", ".join(in_force))
        for notice in (*wanted.notices, *notices):
            logger.info("Note: %s", notice)
        if waiting:
            logger.warning("In force only after a restart: %s", ", ".join(waiting))


def _waiting_for_restart(started: ResolvedConfig, wanted: ResolvedConfig) -> list[str]:
    found = {
        "gateway.bind": started.address[0] != wanted.address[0],
        "gateway.port": started.address[1] != wanted.address[1],
        # Without authentication the contract itself is another one.
        "gateway.auth.mode": (started.credentials.mode == "none") != (wanted.credentials.mode == "none"),
        "state": started.config.state != wanted.config.state,
    }
    return [key for key, waits in found.items() if waits]


def _is_of(key: str, waiting: str) -> bool:
    return key == waiting or key in _WITH.get(waiting, ())


def _changed_keys(before: ResolvedConfig, after: ResolvedConfig) -> list[str]:
    """The keys whose values differ, a few steps deep and without the values: they may be secrets."""
    if before.config == after.config and before.credentials == after.credentials:
        return []
    old, new = before.config.model_dump(by_alias=True), after.config.model_dump(by_alias=True)
    return list(_differing(old, new, "", _DEPTH)) or ["gateway.auth"]


def _differing(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str, depth: int) -> Iterator[str]:
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        deeper = depth > 1 or f"{prefix}{key}" in _DEEPER
        if deeper and isinstance(before, dict) and isinstance(after, dict):
            yield from _differing(before, after, f"{prefix}{key}.", depth - 1)
        else:
            yield f"{prefix}{key}"
