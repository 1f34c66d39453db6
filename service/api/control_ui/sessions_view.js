// @ts-check
/** The stored conversations: find, open, export, delete. */

import { call, getJson, sessionPath } from "./api.js";
import { begin, chat } from "./chat.js";
import { toMarkdown, toShown } from "./conversation.js";
import { redraw } from "./draw.js";
import { ago, atHidden, count, time } from "./format.js";
import { html, nothing } from "./vendor/lit-html.js";
import { choose, download, errorNote, iconButton, Loaded } from "./parts.js";
import { loadSession } from "./sessions_api.js";
import { may } from "./socket.js";

const PAGE = 50;
/** As many sessions are searched. */
const MOST_SEARCHED = 1000;

const search = { text: "", agent: "", stateless: false };
/** @type {Error|null} */
let problem = null;
/** How many are shown. */
let wanted = PAGE;

const sessions = new Loaded(load);

async function load() {
  const { agent, stateless, text } = search;
  const most = text ? MOST_SEARCHED : wanted;
  /** @type {any[]} */
  const data = [];
  let after = "";
  do {
    const given = { agent, stateless: stateless ? undefined : false, limit: Math.min(100, most - data.length), after };
    const page = await getJson("/v1/sessions", given);
    data.push(...page.data);
    after = page.next_cursor ?? "";
  } while (after && data.length < most);
  return { data: data.filter(isFound), hasMore: after !== "" };
}

/** @param {any} session */
function isFound({ title, key, agent, model }) {
  const words = search.text.toLowerCase().split(/\s+/).filter(Boolean);
  const text = [title, key, agent, model].join(" ").toLowerCase();
  return words.every((word) => text.includes(word));
}

export const sessionsPanel = {
  name: "sessions",
  label: "Sessions",
  open: () => sessions.refresh(),
  close() {
    problem = null;
  },
  clear: () => sessions.clear(),
  view: () => html`<section class="page"><header class="bar"><h1>Sessions</h1></header>
    ${filters()}${problem ? errorNote(problem) : nothing}${sessions.view(list)}</section>`,
};

let delay = 0;

function filters() {
  const refresh = () => sessions.refresh();
  const type = (event) => {
    search.text = event.target.value;
    clearTimeout(delay);
    delay = setTimeout(refresh, 250);
  };
  const check = (event) => ((search.stateless = event.target.checked), refresh());
  return html`<form class="row filters" @submit=${(event) => event.preventDefault()}>
    <input type="search" aria-label="Search sessions" placeholder="Search titles and keys" .value=${search.text} @input=${type}>
    <label><input type="checkbox" .checked=${search.stateless} @change=${check}> also requests without a session</label></form>`;
}

/** @param {{data: any[], hasMore: boolean}} found */
function list({ data, hasMore }) {
  if (!data.length) return html`<div class="empty"><h2>${search.text ? "Nothing found" : "No sessions yet"}</h2>
    <p>${search.text ? "Search has titles, keys, agents and models." : "A conversation that you begin in Chat appears here."}</p></div>`;
  const more = () => ((wanted += PAGE), sessions.refresh());
  return html`<ul class="list">${data.map(row)}</ul>
    ${hasMore ? html`<button type="button" ?disabled=${sessions.isLoading} @click=${more}>${search.text ? "Only the newest were searched" : "Show more"}</button>` : nothing}`;
}

/** @param {any} session */
function row(session) {
  const { key, title, agent, message_count: messages, last_used_at: used, model } = session;
  return html`<li><a href="#/chat/${encodeURIComponent(key)}"><strong>${title || "(no title)"}</strong>
      <span class="faint" title=${time(used)}>${agent} · ${count(messages)} messages · ${ago(used)}${model ? ` · ${model}` : ""}</span>
      <code class="faint">${key}</code></a>
    ${iconButton("save", `Export ${title || key}`, () => attempt(() => save(session)))}
    ${iconButton("trash", `Delete ${title || key}`, () => attempt(() => remove(session)), !may("write"))}</li>`;
}

/** @param {() => Promise<void>} action */
async function attempt(action) {
  problem = null;
  await action().catch((error) => (problem = error));
  redraw();
}

/** @param {any} session */
async function save({ key, title }) {
  const name = `${title || key}`.slice(0, 60);
  const kind = await choose(`Export “${name}”`, ["Cancel", "Markdown", "JSON"]);
  if (kind === "Cancel") return;
  const whole = await loadSession(key);
  if (kind === "JSON") download(`${name}.json`, "application/json", JSON.stringify(whole, null, 2));
  else download(`${name}.md`, "text/markdown", toMarkdown(title || key, toShown(whole.messages), whole.isCut));
}

/** @param {any} session */
async function remove({ key, title }) {
  const question = `Delete “${atHidden(title || key).join("")}” with all of its messages and runs?`;
  if ((await choose(question, ["Cancel", "Delete"], "danger")) !== "Delete") return;
  await call("DELETE", sessionPath(key));
  if (chat.key === key) begin();
  await sessions.refresh();
}
