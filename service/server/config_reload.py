"""Live reload of the configuration file: valid edits are applied, invalid ones refused, the rest needs a restart.

The configuration in force is two immutable values, the gateway's `Runtime` and the APIs' `ApiSettings`. Both are
replaced without yielding in between, so that every request sees one configuration.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from service.api.auth import Credentials
from service.api.log_lines import GatewayLog
from service.config.file_watch import FileWatch
from service.config.log_settings import LoggingConfig
from service.config.roster import Roster
from service.config.schema import Config
from service.config.source import ConfigError, Locations
from service.core.concurrency import spawn
from service.core.dataclass import record
from service.gateway.build import open_runtime
from service.gateway.runtime import Runtime
from service.gateway.startup_checks import check_agents, check_mode, check_state
from service.server.app import Apps
from service.tools.policy_checks import unconfined_programs

logger = logging.getLogger("openclaw.config")

#: Depth of changed keys in log lines, and the keys that are split further because a part may need a restart.
_DEPTH = 2
_DEEPER = frozenset({"gateway.auth"})

_WAITS_FOR_RESTART = (
    "The edit of the configuration is in force only after a restart: agents use programs without a sandbox (%s), and "
    "one of them may have made it."
)

#: Keys that wait together with a key that needs a restart.
_WITH = {
    "gateway.bind": ("gateway.customBindHost",),
    "gateway.auth.mode": ("gateway.auth.token", "gateway.auth.password"),
    "state": ("state.url", "state.durability"),
}


@record
class ResolvedConfig:
    """The configuration resolved from file, environment and command line. `address` is the listen address."""

    config: Config
    notices: tuple[str, ...]
    credentials: Credentials
    address: tuple[str, int]


def follow_file(
    watch: FileWatch,
    apps: Apps,
    started: ResolvedConfig,
    read: Callable[[], ResolvedConfig],
    locations: Locations,
    log: GatewayLog,
) -> None:
    """Apply later edits of the file, read by `read`, to `log`, `apps` and their gateway, which began as `started`."""
    gateway = apps.gateway

    def open_next(config: Config) -> Runtime:
        slots = gateway.lease().runtime.slots
        return open_runtime(config, gateway.storage.transcripts, locations, os.environ, slots)

    reload = ConfigReload(apps, started, read, open_next, log.apply)
    spawn(watch.follow, reload.apply)


class ConfigReload:
    """Applies edited configurations to a gateway that was started as `started`.

    `read` raises `ConfigError` for an invalid file; `open_runtime` opens the gateway's runtime for a configuration,
    `apply_logging` raises `ConfigError` for a log that cannot be.
    """

    def __init__(
        self,
        apps: Apps,
        started: ResolvedConfig,
        read: Callable[[], ResolvedConfig],
        open_runtime: Callable[[Config], Runtime],
        apply_logging: Callable[[LoggingConfig], None],
    ) -> None:
        self._apps = apps
        self._started = started
        self._current = started
        self._credentials = started.credentials  # in force; those of `_current` may be waiting for a restart
        self._read = read
        self._open_runtime = open_runtime
        self._apply_logging = apply_logging

    def apply(self) -> None:
        """Apply the file's content, unless `gateway.reload.mode` is "off".

        Never raises: on any failure the previous configuration stays in force.
        """
        if self._current.config.gateway.reload.mode == "off":
            return
        try:
            wanted = self._read()
            changed = _changed_keys(self._current, wanted)
            unconfined = unconfined_programs(self._current.config, Roster.from_config(self._current.config))
            if changed and unconfined:
                logger.warning(_WAITS_FOR_RESTART, ", ".join(unconfined))
            elif changed:
                self._apply(wanted, changed)
            else:
                self._log_notices(wanted)
        except ConfigError as error:
            logger.error("The edited configuration is refused; the previous one stays in force. %s", error)  # noqa: TRY400  # not a defect: no traceback
        except Exception:
            # A defect must not end the watch: the next edit gets its chance.
            logger.exception("the edited configuration could not be applied")

    def _log_notices(self, wanted: ResolvedConfig) -> None:
        """Log the notices that an edit without any other effect adds."""
        for notice in wanted.notices:
            if notice not in self._current.notices:
                logger.info("Note: %s", notice)
        self._current = wanted

    def _apply(self, wanted: ResolvedConfig, changed: list[str]) -> None:
        check_mode(wanted.config)
        check_state(wanted.config, os.environ)
        runtime = self._open_runtime(wanted.config)
        try:
            notices = check_agents(wanted.config, runtime.roster, runtime.catalog, runtime.hidden)
            self._apply_logging(wanted.config.logging)
        except BaseException:
            runtime.close()
            raise
        waiting = _waiting_for_restart(self._started, wanted)
        if "gateway.auth.mode" not in waiting:
            self._credentials = wanted.credentials
        gateway = self._apps.gateway
        gateway.reconfigure(runtime)
        self._apps.apply(wanted.config, self._credentials)
        if wanted.config.session.maintenance != self._current.config.session.maintenance:
            gateway.storage.maintain(wanted.config.session.maintenance)
        self._current = wanted
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
        # Without authentication the contract is different.
        "gateway.auth.mode": (started.credentials.mode == "none") != (wanted.credentials.mode == "none"),
        "gateway.http.endpoints.metrics.port": _metrics_port(started) != _metrics_port(wanted),
        "state": started.config.state != wanted.config.state,
    }
    return [key for key, waits in found.items() if waits]


def _metrics_port(resolved: ResolvedConfig) -> int | None:
    return resolved.config.gateway.http.endpoints.metrics.port


def _is_of(key: str, waiting: str) -> bool:
    return key == waiting or key in _WITH.get(waiting, ())


def _changed_keys(before: ResolvedConfig, after: ResolvedConfig) -> list[str]:
    """Return the keys whose values differ, to a limited depth; values may be secrets and are left out."""
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
