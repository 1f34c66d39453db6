// @ts-check
/** The gateway itself: its health and its configuration, which is only shown. */

import { ApiError, getJson } from "./api.js";
import { count, duration, time } from "./format.js";
import { html, nothing } from "./vendor/lit-html.js";
import { errorNote, Loaded, visible } from "./parts.js";
import { live, may, onEvent, request } from "./socket.js";

const POLL_MS = 5000;

const health = new Loaded(readHealth);
const status = new Loaded(() => request("status"));
const configuration = new Loaded(() => request("config.get"));
let timer = 0;

/** Read the readiness; that it is not ready, or cannot be reached, is an answer, too. */
async function readHealth() {
  try {
    return { problem: null, details: (await getJson("/readyz")).details };
  } catch (error) {
    if (!(error instanceof ApiError && [0, 503].includes(error.status))) throw error;
    return { problem: error, details: { mcp_servers: [] } };
  }
}

onEvent((name) => name === "open" && timer && refresh(true));

/** @param {boolean} isFirst */
function refresh(isFirst) {
  health.refresh();
  if (may("read") && live.state === "open") status.refresh();
  if (isFirst && may("admin")) configuration.refresh();
}

export const gatewayPanel = {
  name: "gateway",
  label: "Gateway",
  open() {
    refresh(true);
    timer = setInterval(() => refresh(false), POLL_MS);
  },
  close() {
    clearInterval(timer);
    timer = 0;
  },
  clear: () => [health, status, configuration].forEach((one) => one.clear()),
  view: () => html`<section class="page"><header class="bar"><h1>Gateway</h1></header>
    <h2>Health</h2>${health.view(healthView)}
    ${may("read") ? overSocket(status, statusView) : notFor("the status", "read")}
    <h2>Configuration</h2>${may("admin") ? overSocket(configuration, configurationView) : notFor("the configuration", "admin")}</section>`,
};

/** Show what only the WebSocket has. @param {Loaded<any>} loaded @param {(value: any) => unknown} template */
const overSocket = (loaded, template) => (live.state !== "open"
  ? html`<p class="empty" role="status">This comes over the gateway's WebSocket, which is not connected.</p>` : loaded.view(template));

/** @param {string} what @param {string} scope */
const notFor = (what, scope) => html`<div class="note"><p><strong>Not for this key.</strong> To see ${what} of the gateway, a key needs the scope ${scope}.</p></div>`;

/** @param {any} value */
function healthView({ problem, details }) {
  return html`${problem ? errorNote(problem) : html`<p><span class="state ok">ready</span> Runs can begin.</p>`}
    ${details.mcp_servers.length ? html`<ul class="plain">${details.mcp_servers.map(({ name, state }) =>
      html`<li><span class="state ${state === "failed" ? "error" : state === "connected" ? "ok" : ""}">${state}</span> MCP server <strong>${name}</strong></li>`)}</ul>` : nothing}`;
}

/** @param {any} value */
function statusView({ version, uptimeMs, agents, connections, runCount, ts }) {
  const clock = time(new Date(ts).toISOString());
  const own = [["Up for", duration(uptimeMs)], ["WebSockets", count(connections)], ["Runs now", count(runCount)]];
  return html`${facts([["Version", version], ["Agents", agents.join(", ")], ["Clock", clock]])}
    <h2>The process behind this page</h2>
    <p class="faint">A gateway of several workers or hosts has others, with numbers of their own.</p>
    ${facts(own)}`;
}

/** @param {string[][]} rows */
const facts = (rows) => html`<dl class="facts">${rows.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;

/** @param {any} value */
function configurationView({ config, path }) {
  return html`<p class="faint">${path ?? "No file"}, with defaults; secrets are masked. Edit the file, or use <code>openclaw config set</code>.</p>
    ${Object.entries(config).map(([name, value]) => html`<details class="fold"><summary><code>${name}</code></summary>
      <pre tabindex="0">${visible(JSON.stringify(value, null, 2))}</pre></details>`)}`;
}
