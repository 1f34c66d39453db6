"""The composition root: builds the Gateway's every part from the configuration and wires them together."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from service.agent.compaction.compactor import Compactor
from service.agent.files import FileReader
from service.agent.images import check_images, image_client
from service.config.loading import resolve_state_url
from service.config.mcp import McpServerConfig
from service.config.roster import Roster
from service.config.schema import Config
from service.config.source import Locations
from service.config.workspaces import fix_directory
from service.core.byte_budget import ByteBudget
from service.core.concurrency import ThreadPool
from service.core.ids import new_uuid
from service.core.processes.hardening import trim_heap
from service.gateway.gateway import Gateway
from service.gateway.run_registry import RunRegistry
from service.gateway.run_slots import RunSlots
from service.gateway.runtime import RunLimits, Runtime
from service.gateway.webhooks import webhook_client
from service.models.catalog import ModelCatalog
from service.models.context_windows import LearnedWindows
from service.models.fallback import RetryPolicy
from service.models.tokens import TokenEstimator
from service.storage.database.open import open_database
from service.storage.sessions.transcripts import TranscriptStore
from service.storage.storage import Storage
from service.tools.built_in import ToolParts, open_built_in_tools
from service.tools.mcp.sandbox import McpSandbox
from service.tools.mcp.server import McpEndpoint
from service.tools.mcp.servers import McpServers
from service.tools.process_slots import ToolSlots
from service.tools.registry import ToolRegistry
from service.tools.sessions import VisibleSessions


def open_gateway(config: Config, locations: Locations, environ: Mapping[str, str], *, evicts: bool = True) -> Gateway:
    """The Gateway of `config`, which the caller closes; its state is in `locations`, or where `state.url` says.

    `environ` has keys of known model hosts, proxies and trusted certificates, and where the database is. A gateway that
    nobody counts the runs of must not be the one that `evicts` dead ones.

    Raises `StoreError` when the transcripts cannot be opened. No model is contacted or started yet.
    """
    clock, new_id = time.time, new_uuid
    url, durability = resolve_state_url(environ, config), config.state.durability
    storage = Storage(open_database(url, locations.state_dir, durability=durability), clock=clock, new_id=new_id)
    storage.membership.join(evicts=evicts)
    storage.maintain(config.session.maintenance)
    runtime = open_runtime(config, storage.transcripts, locations, environ, ToolSlots())
    return Gateway(
        runtime,
        storage,
        runs=RunRegistry(clock),
        slots=RunSlots(runtime.limits.max_concurrent),
        compactor=Compactor(TokenEstimator()),
        budget=ByteBudget(runtime.limits.in_flight_bytes, on_freed=partial(ThreadPool(1, 1.0).run, trim_heap)),
        clock=clock,
        new_id=new_id,
    )


def open_runtime(
    config: Config, store: TranscriptStore, locations: Locations, environ: Mapping[str, str], slots: ToolSlots
) -> Runtime:
    """Open the parts of the Gateway that depend on the configuration: agents, models, tools, limits.

    `slots` limit the tools' processes; all runtimes of a process share them.
    """
    defaults, images = config.agents.defaults, config.gateway.http.endpoints.chat_completions.images
    roster = Roster.from_config(config)
    return Runtime(
        roster,
        ModelCatalog(config, locations.state_dir, environ),
        open_toolboxes(config, roster, store, locations, environ, slots),
        partial(check_images, config=images, client=image_client(images)),
        RunLimits(
            defaults.max_turns,
            RetryPolicy.from_config(config.models.retry),
            defaults.max_concurrent,
            config.gateway.max_in_flight_bytes,
            config.approvals,
            None if config.session.queue_timeout_ms is None else config.session.queue_timeout_ms / 1000,
            config.structured_output.repairs,
        ),
        LearnedWindows(),
        locations.private_paths,
        slots,
        config.gateway.http,
        webhook_client(config.gateway.http.webhooks),
        config.tasks,
        FileReader(slots.searches),
        config.embeddings.model,
        config.gateway.limits,
    )


def open_toolboxes(
    config: Config,
    roster: Roster,
    store: TranscriptStore,
    locations: Locations,
    environ: Mapping[str, str],
    slots: ToolSlots,
) -> ToolRegistry:
    """Each agent's tools. No MCP server is contacted yet."""
    sessions = VisibleSessions(store, config.tools.session_visibility)
    parts = ToolParts(config.tools, roster, sessions, environ, slots)
    endpoints = [to_mcp_endpoint(name, server, roster, locations) for name, server in config.mcp.servers.items()]
    servers = McpServers(endpoints, locations.state_dir / "logs")
    return ToolRegistry(config, roster, open_built_in_tools(parts), servers)


def to_mcp_endpoint(name: str, server: McpServerConfig, roster: Roster, locations: Locations) -> McpEndpoint:
    """Return the settings of the MCP server `name`; its sandbox hides the gateway's own files.

    No link that an agent can have made leads to its directory.
    """
    workspaces = [agent.workspace_root for agent in roster.agents if agent.workspace_root is not None]
    hidden = tuple(map(str, locations.private_paths))
    return McpEndpoint(
        name,
        command=server.command,
        args=server.args,
        env=server.env,
        cwd=None if server.cwd is None else str(fix_directory(Path(server.cwd), workspaces)),
        url=server.url,
        headers=server.headers,
        timeout_seconds=server.timeout_seconds,
        allow=server.tool_lists.allow,
        deny=server.tool_lists.deny,
        sandbox=None if server.sandbox == "off" else McpSandbox(server.sandbox, server.network, hidden),
    )
