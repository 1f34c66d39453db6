"""Types of arguments that a shell completes: agents, models and sessions."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from service.cli.shared.common import Utf8Text
from service.config.source import Locations, locate

if TYPE_CHECKING:
    from service.config.schema import Config

#: Sessions that are offered, the latest.
_MAX_SESSIONS = 100


class _Completed(Utf8Text, ABC):
    """A text of which the shell offers what `values` returns. What cannot be read is offered nothing for."""

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - as click calls it
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the values that begin with `incomplete`."""
        general = ctx.find_root().params
        try:
            locations = locate(os.environ, dev=bool(general.get("dev")), profile=general.get("profile"))
            values = list(self.values(locations))
        except Exception:  # noqa: BLE001 - an error would be printed into the command line
            return []
        return [CompletionItem(value) for value in values if value.startswith(incomplete)]

    @abstractmethod
    def values(self, locations: Locations) -> Iterable[str]:
        """Return all values."""


class AgentId(_Completed):
    """The id of an agent."""

    def values(self, locations: Locations) -> Iterable[str]:
        """See `_Completed`."""
        from service.config.roster import Roster

        return [agent.id for agent in Roster.from_config(_load(locations)).agents]


class ModelRef(_Completed):
    """A model as `provider/model`."""

    def values(self, locations: Locations) -> Iterable[str]:
        """See `_Completed`."""
        from service.cli.shared.model_discovery import ANY_MODEL, find_models

        return [model.ref for model in find_models(_load(locations), os.environ) if ANY_MODEL not in model.ref]


class SessionKey(_Completed):
    """The key of a session."""

    def values(self, locations: Locations) -> Iterable[str]:
        """See `_Completed`."""
        from service.cli.shared.storage import open_storage

        with open_storage(_load(locations), locations.state_dir) as (storage, _):
            return [one.key for one in storage.transcripts.list_sessions(None, _MAX_SESSIONS)]


def _load(locations: Locations) -> Config:
    from service.config.loading import load_sections

    return load_sections(locations, os.environ, required=(), optional=("agents", "models", "state"))
