"""The storage for commands that work on the database itself, without a gateway."""

from __future__ import annotations

import functools
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from service.cli.shared.common import Command, pass_locations
from service.config.source import Locations

if TYPE_CHECKING:
    from service.config.schema import Config
    from service.storage.storage import Storage


def pass_storage(command: Command) -> Command:
    """Pass `command` a function that opens the storage as its first argument."""

    @pass_locations
    @functools.wraps(command)
    def with_storage(locations: Locations, *arguments: Any, **options: Any) -> None:
        from service.config.loading import load_sections  # slow import

        sections = ("approvals", "agents", "session")
        config = load_sections(locations, os.environ, required=("state",), optional=sections)
        command(functools.partial(open_storage, config, locations.state_dir), *arguments, **options)

    return with_storage


@contextmanager
def open_storage(config: Config, state_dir: Any, *, writes: bool = False) -> Iterator[tuple[Storage, Config]]:
    """Open the storage; with `writes`, first release the sessions of dead gateways."""
    from service.config.loading import resolve_state_url
    from service.storage.database.open import open_database
    from service.storage.storage import Storage

    database = open_database(resolve_state_url(os.environ, config), state_dir, durability=config.state.durability)
    with closing(Storage(database, clock=time.time, new_id=lambda: str(uuid.uuid4()))) as storage:
        if writes:
            storage.membership.join()
        yield storage, config
