"""OpenClaw's keys that this gateway does not use: refused where they restrict something, ignored elsewhere.

OpenClaw's schema is far wider than this gateway, and its files are read as they are. A key that withholds something
from an agent or a caller must not lose its effect silently: `RESTRICTIONS` lists each with the values that are harmless
and a remedy. `IGNORED` lists the others by the reason why they cannot matter here. To honour a key, add its field to
the schema and remove its row; to honour some of its values, add them to the harmless ones.

A pattern covers everything below it, restrictions excepted. `*` is any key of an object, `[]` any item of a list, `|`
separates alternatives of the last step, and a name in braces stands for each of its `PLACES`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

#: What a name in braces stands for in a pattern.
PLACES: Mapping[str, tuple[str, ...]] = {
    "agent": ("agents.defaults", "agents.entries.*", "agents.list[]"),
    "named": ("agents.entries.*", "agents.list[]"),
    "memory": (
        "memory.search",
        "agents.defaults.memorySearch",
        *(f"agents.{place}.{key}" for place in ("entries.*", "list[]") for key in ("memorySearch", "memory.search")),
    ),
    "tools": ("tools", "agents.entries.*.tools", "agents.list[].tools"),
    "routing": (
        "agents.defaults.params.provider",
        "agents.defaults.models.*.params.provider",
        "agents.entries.*.params.provider",
        "agents.entries.*.models.*.params.provider",
        "agents.list[].params.provider",
        "agents.list[].models.*.params.provider",
        "models.providers.*.params.provider",
        "models.providers.*.models[].params.provider",
        "models.providers.*.models[].compat.openRouterRouting",
        "models.providers.*.models[].compat.vercelGatewayRouting",
    ),
}


class Harmless(NamedTuple):
    """The values of a key that withhold nothing."""

    accepts: Callable[[Any], bool]
    description: str


class Restriction(NamedTuple):
    """A key that withholds something this gateway would otherwise allow."""

    pattern: str
    harmless: Harmless
    remedy: str


def _only(*values: str | bool) -> Harmless:
    # True == 1 in Python, but not in a configuration.
    def accepts(value: Any) -> bool:
        return any(value == harmless and type(value) is type(harmless) for harmless in values)

    return Harmless(accepts, " or ".join(f"`{json.dumps(value)}`" for value in values))


def _at_least(limit: int) -> Harmless:
    def accepts(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and value >= limit

    return Harmless(accepts, f"`{limit}` and more")


def _uses_no_proxy(proxy: Any) -> bool:
    if not isinstance(proxy, dict):
        return False
    return proxy.get("enabled") is False or not (proxy.get("enabled") or proxy.get("proxyUrl"))


def _denies_no_caller(rule: Any) -> bool:
    if not isinstance(rule, dict):
        return False
    match = rule.get("match")
    channel = match.get("channel") if isinstance(match, dict) else None
    return rule.get("action") == "allow" or (isinstance(channel, str) and channel not in ("", "webchat"))


_EMPTY = Harmless(lambda value: value in (None, [], {}, ""), "empty")
_NO_PROXY = Harmless(_uses_no_proxy, "without `proxyUrl`, or with `enabled: false`")
_OTHER_CALLERS = Harmless(_denies_no_caller, '`action: "allow"`, or `match.channel` is a messaging channel')

_ROUTING = "name the model's upstream providers in its OpenRouter or Vercel account instead, and remove this key"
_LIMIT = "remove it; this gateway's own limit, {}, cannot be lowered"
_IMAGES = "set gateway.http.endpoints.chatCompletions.images, which holds for both endpoints, and remove this key"
_PROXY = "set HTTPS_PROXY and HTTP_PROXY in the gateway's environment for models, and remove this key"
_EXEC = 'set it to "full" to run any command, or to "deny" to run none; tools.exec.mode "ask" asks a person first'

RESTRICTIONS: tuple[Restriction, ...] = (
    Restriction(
        "gateway.auth.trustedProxy.cloudflareAccessOidc",
        _EMPTY,
        "let the proxy check the token itself, name its header in requiredHeaders, and remove this key",
    ),
    Restriction(
        "{agent}.sandbox.perSession",
        _only(False),
        'set it to false; to keep commands and files from an agent, deny "group:runtime" and "group:fs" in its tools',
    ),
    Restriction("{tools}.exec.mode", _only("full", "ask", "deny"), _EXEC),
    Restriction("{tools}.exec.security", _only("full", "deny"), _EXEC),
    Restriction(
        "{tools}.exec.strictInlineEval",
        _only(False),
        'set it to false; tools.exec.ask "always" asks about every command, and mode "deny" keeps all from running',
    ),
    Restriction("{named}.tools.exec.timeoutSec", _at_least(1800), "set tools.exec.timeoutSec, for all agents, instead"),
    Restriction("{tools}.exec.timeoutSeconds", _at_least(1800), "set tools.exec.timeoutSec, for all agents, instead"),
    Restriction("{tools}.sandbox.tools.allow", _EMPTY, "move its entries to tools.allow"),
    Restriction("{tools}.sandbox.tools.deny", _EMPTY, "move its entries to tools.deny"),
    Restriction(
        "tools.web.fetch.ssrfPolicy.blockedHostnames",
        _EMPTY,
        "remove it, or set tools.web.fetch.enabled to false; addresses that are not public are always refused",
    ),
    Restriction("gateway.roles", _EMPTY, "remove it, and run one gateway for each group of callers"),
    Restriction("gateway.remote.tlsFingerprint", _EMPTY, "remove it; SSL_CERT_FILE names the certificates to trust"),
    Restriction("gateway.http.endpoints.chatCompletions.maxBodyBytes", _at_least(20 << 20), _LIMIT.format("20 MiB")),
    Restriction("gateway.http.endpoints.chatCompletions.maxImageParts", _at_least(8), _LIMIT.format("8 images")),
    Restriction(
        "gateway.http.endpoints.chatCompletions.maxTotalImageBytes", _at_least(20 << 20), _LIMIT.format("20 MiB")
    ),
    Restriction("gateway.http.endpoints.responses.maxBodyBytes", _at_least(20 << 20), _LIMIT.format("20 MiB")),
    Restriction("gateway.http.endpoints.responses.maxUrlParts", _at_least(8), _LIMIT.format("8 images")),
    Restriction("gateway.http.endpoints.responses.images", _EMPTY, _IMAGES),
    Restriction("session.sendPolicy.default", _only("allow"), "remove it, and give the token to fewer callers"),
    Restriction("session.sendPolicy.rules[]", _OTHER_CALLERS, "remove the rule, and give the token to fewer callers"),
    Restriction("proxy", _NO_PROXY, f"{_PROXY}; web_fetch connects directly unless tools.web.fetch.enabled is false"),
    Restriction("secrets.egressProxy.enabled", _only(False), "set it to false and deny the tool exec"),
    Restriction("models.providers.*.request.proxy.mode", _only("env-proxy"), _PROXY),
    Restriction("models.providers.*.request.tls.ca", _EMPTY, "name the file of certificates in SSL_CERT_FILE instead"),
    Restriction("models.providers.*.request.allowPrivateNetwork", _only(True), "remove it, or change baseUrl"),
    Restriction("{routing}.ignore|max_price|only|quantizations", _EMPTY, _ROUTING),
    Restriction("{routing}.data_collection", _only("allow"), _ROUTING),
    Restriction("{routing}.enforce_distillable_text|require_parameters|zdr", _only(False), _ROUTING),
    Restriction("{routing}.allow_fallbacks", _only(True), _ROUTING),
)

#: Why keys cannot matter to this gateway, and which they are.
IGNORED: Mapping[str, tuple[str, ...]] = {
    "there are no messaging channels": (
        "accessGroups|bindings|broadcast|channels|commands|messages|surfaces|web",
        "approvals.exec|plugin",
        "gateway.channelHealthCheckMinutes|channelMaxRestartsPerHour|channelStaleEventThresholdMinutes",
        "session.dmScope|groupScope|identityLinks|resetByChannel|resetByType|scope|sendPolicy|threadBindings",
        "session.typingIntervalSeconds|typingMode",
        "{agent}.blockStreamingBreak|blockStreamingChunk|blockStreamingCoalesce|blockStreamingDefault",
        "{agent}.envelopeElapsed|envelopeTimestamp|envelopeTimezone|humanDelay|mediaMaxMb|silentReply",
        "{agent}.toolProgressDetail|typingIntervalSeconds|typingMode|verboseDefault",
        "{named}.groupChat",
        "{tools}.message",
    ),
    "callers have no identity beside the shared secret": (
        "auth",
        "agents.ownership",
        "gateway.auth.allowTailscale|identityScopes",
        "gateway.auth.trustedProxy.deviceAutoApprove",
        "session.sharing",
        "{agent}.authInheritance",
    ),
    "there is no speech": ("audio|talk|tts", "{agent}.voiceModel", "{named}.tts"),
    "there is no browser": ("browser",),
    "there is no control page and no app": (
        "attachments|canvasHost|cli|desktop|tui|ui|wizard",
        "gateway.cliAgents|portals|publicOrigin|push|terminal",
        "gateway.controlUi.allowExternalEmbedUrls|allowInsecureAuth|automaticallyFetchFavicons|basePath",
        "gateway.controlUi.chatMessageMaxWidth|communityInvite|dangerouslyAllowHostHeaderOriginFallback",
        "gateway.controlUi.dangerouslyDisableDeviceAuth|embedSandbox|environment|experimental|github|root",
        "gateway.controlUi.sessionObserver",
        "mcp.apps",
    ),
    "there are no nodes and no remote workers": (
        "cloudWorkers|nodeHost|worktreeAcceleration|worktreeRoot",
        "gateway.nodes",
    ),
    "nothing is announced on the network": ("discovery", "gateway.tailscale"),
    "there are no plugins and no skills": (
        "marketplaces|plugins|skills",
        "security.installPolicy",
        "{agent}.skills",
        "{named}.skillsLimits",
    ),
    "there are no hooks and no scheduled runs": (
        "commitments|crestodian|cron|hooks",
        "{agent}.heartbeat|systemAgent",
    ),
    "there are no subagents and no other agent programs": (
        "acp",
        "mcp.servers.*.codex",
        "models.providers.*.agentRuntime",
        "models.providers.*.models[].agentRuntime",
        "session.agentToAgent",
        "{agent}.cliBackends|embeddedAgent|embeddedPi|runtime|subagents",
        "{tools}.sessions_spawn|subagents|swarm",
    ),
    "the tool it belongs to does not exist here": (
        "media",
        "memory.backend|citations|qmd",
        "{memory}.cache|chunking|documentInputType|experimental|extraPaths|fallback|inputType|local|multimodal",
        "{memory}.outputDimensionality|qmd|query|queryInputType|rememberAcrossConversations|sources|store|sync",
        "tools.web.search|x_search",
        "{agent}.decisionModel|imageGenerationModel|imageModel|mediaGenerationAutoProviderFallback|mediaModels",
        "{agent}.musicGenerationModel|pdfMaxBytesMb|pdfMaxMb|pdfMaxPages|pdfModel|utilityModel",
        "{agent}.videoGenerationModel",
        "{tools}.codeMode|experimental|github|links|media|toolSearch|updatePlan",
        "{tools}.exec.applyPatch",
    ),
    "files are never reached outside an agent's workspace": ("{tools}.fs",),
    "commands never leave their sandbox": ("{agent}.elevatedDefault", "{tools}.elevated"),
    "the sandbox is that of tools.exec, not a container": (
        "{agent}.sandbox.backend|browser|docker|prune|scope|sessionToolsVisibility|ssh|workspaceRoot",
        "{tools}.sandbox",
    ),
    "it has an effect only with an allow list of commands or a reviewer": (
        "{tools}.exec.approvalRunningNoticeMs|commandHighlighting|grantExpiryDays|reviewer|safeBinProfiles",
        "{tools}.exec.safeBinTrustedDirs|safeBins",
    ),
    "commands end with their run, and have limits of their own": (
        "{tools}.exec.backgroundMs|cleanupMs|node|notifyOnExit|notifyOnExitEmptySuccess|pathPrepend",
    ),
    "web_fetch reaches public addresses only, and has limits of its own": (
        "tools.web.fetch.cacheTtlMinutes|firecrawl|headers|maxChars|maxCharsCap|provider|readability",
        "tools.web.fetch.ssrfPolicy|useTrustedEnvProxy|userAgent",
    ),
    "agents.defaults.maxTurns ends every loop": ("{tools}.loopDetection",),
    "this gateway writes its own system prompt": (
        "{agent}.bootstrapMaxChars|bootstrapPromptTruncationWarning|bootstrapTotalMaxChars|contextInjection",
        "{agent}.contextLimits|cwd|experimental|promptOverlays|repoRoot|skipBootstrap|skipOptionalBootstrapFiles",
        "{agent}.startupContext|timeFormat|userTimezone",
        "{named}.agentDir|description",
        "{named}.identity.avatar",
    ),
    "this gateway shortens long conversations by itself": (
        "models.providers.*.contextTokens",
        "models.providers.*.models[].contextTokens",
        "{agent}.compaction|contextPruning|contextTokens",
    ),
    "callers and providers choose how a model answers": (
        "models.bedrockDiscovery|catalogRefresh|pricing",
        "models.providers.*.auth|authHeader|contextWindow|injectNumCtxForOpenAICompat|maxTokens|params|region|request",
        "models.providers.*.models[].api|baseUrl|headers|mediaInput|metadataSource|params|reasoning|thinkingLevelMap",
        "models.providers.*.models[].compat.cacheControlFormat|codeMode|nativeWebSearchTool|openRouterRouting",
        "models.providers.*.models[].compat.reasoningEffortMap|requiresAssistantAfterToolResult",
        "models.providers.*.models[].compat.requiresOpenAiAnthropicToolPayload|requiresStringContent",
        "models.providers.*.models[].compat.requiresReasoningContentOnAssistantMessages|requiresThinkingAsText",
        "models.providers.*.models[].compat.requiresToolResultName|sendSessionAffinityHeaders|sendSessionIdHeader",
        "models.providers.*.models[].compat.strictMessageKeys|supportedReasoningEfforts|supportsDeveloperRole",
        "models.providers.*.models[].compat.supportsEagerToolInputStreaming|supportsInstructions",
        "models.providers.*.models[].compat.supportsJsonSchemaResponseFormat|supportsLongCacheRetention",
        "models.providers.*.models[].compat.supportsPromptCacheKey|supportsReasoningEffort",
        "models.providers.*.models[].compat.supportsResponsesContinuation|supportsStore|supportsStrictMode",
        "models.providers.*.models[].compat.supportsTemperature|supportsUsageInStreaming|thinkingFormat",
        "models.providers.*.models[].compat.toolCallArgumentsEncoding|toolSchemaProfile|vercelGatewayRouting",
        "models.providers.*.models[].compat.unsupportedToolSchemaKeywords|visibleReasoningDetailTypes|zaiToolStream",
        "{agent}.fastModeDefault|imageMaxDimensionPx|imageQuality|llm|modelSelectionScope|reasoningDefault|runRetries",
        "{agent}.models.*.agentRuntime|codeMode|pickerRuntimes|streaming",
        "{agent}.models.*.params.*",
        "{agent}.params.*",
    ),
    "MCP servers are reached in this gateway's own way": (
        "mcp.sessionIdleTtlMs",
        "mcp.servers.*.auth|clientCert|clientKey|client_cert|client_key|connectTimeout|connect_timeout",
        "mcp.servers.*.connectionTimeoutMs|oauth|requestTimeoutMs|sslVerify|ssl_verify|supportsParallelToolCalls",
        "mcp.servers.*.supports_parallel_tool_calls",
    ),
    "sessions are kept in this gateway's own database": (
        "transcripts",
        "session.idleMinutes|mainKey|notifyOnCreate|parentForkMaxTokens|reset|resetTriggers|store|writeLock",
        "session.maintenance.archiveDashboardAfter|coldStorage|highWaterBytes|maxDiskBytes|preserveRecent",
        "session.maintenance.pruneDays|resetArchiveRetention|rotateBytes",
        "{agent}.sessionStore",
    ),
    "callers may use every tool of the agent that is not denied": ("gateway.tools.allow",),
    "files in requests have limits of their own": ("gateway.http.endpoints.responses.files",),
    "a reverse proxy has to provide TLS": ("gateway.tls.autoGenerate|caPath|certPath|keyPath",),
    "this gateway has limits, logs and updates of its own": (
        "$schema|audit|telemetry|update",
        "diagnostics.cacheTrace|flags|memoryPressureSnapshot|stuckSessionAbortMs|stuckSessionWarnMs",
        "logging.audit",
        "gateway.allowRealIpFallback|handshakeTimeoutMs",
        "gateway.http.securityHeaders",
        "gateway.reload.debounceMs|deferralTimeoutMs",
        "meta.lastTouchedAt|lastTouchedVersion",
        "meta.migrations.utilityModelSeparation",
        "security.audit",
    ),
    "only traces are sent to OpenTelemetry, and contents only if OpenTelemetry's own variable asks": (
        "diagnostics.otel.captureContent|flushIntervalMs|logs|logsEndpoint|logsExporter|metricNamePrefix|metrics",
        "diagnostics.otel.metricsEndpoint",
    ),
    "secrets and variables come from the environment": ("env|secrets",),
    "a remote gateway is reached at its url alone": (
        "gateway.remote.edgeAuth|enabled|remotePort|sshHostKeyPolicy|sshIdentity|sshTarget|transport",
    ),
}
