// @ts-check
/** The newest conversations, beside the panels on wide screens. */

import { getJson } from "./api.js";
import { chat } from "./chat.js";
import { html, nothing } from "./vendor/lit-html.js";
import { Loaded } from "./parts.js";
import { may, onEvent, request } from "./socket.js";

const SHOWN = 15;
/** Changes that come together are looked at once. */
const PAUSE_MS = 300;

const recent = new Loaded(() => getJson("/v1/sessions", { stateless: false, limit: SHOWN }));
let timer = 0;

onEvent((name) => {
  if (!may("read")) return;
  if (name === "open" || name === "unwatched") {
    request("sessions.subscribe").catch(() => {});
    recent.refresh();
  } else if (name === "sessions.changed") {
    clearTimeout(timer);
    timer = setTimeout(() => recent.refresh(), PAUSE_MS);
  }
});

export const clearRecent = () => recent.clear();

/** @param {boolean} isChat whether the conversation that is open is shown */
export function recentView(isChat) {
  const data = recent.value?.data ?? [];
  if (!data.length) return nothing;
  return html`<div class="recent"><h2>Recent</h2><ul>${data.map(({ key, title, agent }) =>
    html`<li><a href="#/chat/${encodeURIComponent(key)}" title=${agent} aria-current=${isChat && key === chat.key ? "true" : "false"}>${title || "(no title)"}</a></li>`)}</ul></div>`;
}
