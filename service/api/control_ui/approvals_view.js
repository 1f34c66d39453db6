// @ts-check
/** Tool calls that wait for a person. They are shown in their panel and in the chat that waits for them. */

import { getJson, postJson } from "./api.js";
import { redraw } from "./draw.js";
import { ago, pretty, time } from "./format.js";
import { html, nothing } from "./vendor/lit-html.js";
import { errorNote, Loaded, visible } from "./parts.js";
import { may, onEvent } from "./socket.js";

const LABELS = { "allow-once": "Allow once", "allow-session": "Allow in this session", deny: "Deny" };
const POLL_MS = 10_000;

const pending = new Loaded(() => getJson("/v1/approvals", { limit: 100 }));
/** Why a decision on a call of a run was not taken. @type {{runId: string, error: Error}|null} */
let refusal = null;
let timer = 0;

onEvent((name) => {
  if (name === "unwatched" && timer) return; // the open panel looks by itself
  if (name.startsWith("exec.approval.") || name === "open" || name === "unwatched") refreshApprovals();
});

export function refreshApprovals() {
  if (may("admin")) pending.refresh();
}

export const approvalsPanel = {
  name: "approvals",
  label: "Approvals",
  open() {
    pending.refresh();
    timer = setInterval(() => pending.refresh(), POLL_MS);
  },
  close() {
    clearInterval(timer);
    timer = 0;
    refusal = null;
  },
  badge: () => pending.value?.data.length ?? 0,
  clear() {
    pending.clear();
    refusal = null;
  },
  view: () => html`<section class="page"><header class="bar"><h1>Approvals</h1></header>
    ${refusal ? errorNote(refusal.error) : nothing}
    ${pending.view(({ data }) => (data.length ? html`<div class="cards">${data.map(card)}</div>` : nobodyWaits()))}</section>`,
};

const nobodyWaits = () => html`<div class="empty"><h2>Nothing waits for you</h2>
  <p>Tool calls that need a person's consent appear here and in their chat.</p></div>`;

/** Show the pending approvals of a run, and why the last decision on one was not taken. @param {string} runId */
export const approvalsOf = (runId) => html`${refusal?.runId === runId ? errorNote(refusal.error) : nothing}
  ${(pending.value?.data ?? []).filter((one) => one.run_id === runId).map(card)}`;

/** @param {any} approval */
function card(approval) {
  const { id, tool, agent, decisions, run_id: runId, created_at: created, expires_at: expires } = approval;
  return html`<article class="card approval">
    <p><strong>${agent}</strong> wants to use <code>${visible(tool)}</code> <span class="faint">asked ${ago(created)}, until ${time(expires)}</span></p>
    <pre tabindex="0">${visible(pretty(approval.arguments))}</pre>
    <div class="row">${decisions.map((decision) => html`<button type="button" class=${decision === "deny" ? "" : decision === "allow-once" ? "main" : ""}
      @click=${() => decide(id, runId, decision)}>${LABELS[decision] ?? decision}</button>`)}</div>
  </article>`;
}

/** @param {string} id @param {string} runId @param {string} decision */
async function decide(id, runId, decision) {
  refusal = null;
  try {
    await postJson(`/v1/approvals/${encodeURIComponent(id)}`, { decision });
  } catch (error) {
    refusal = { runId, error: /** @type {Error} */ (error) };
  }
  await pending.refresh();
  redraw();
}
