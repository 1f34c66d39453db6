// @ts-check
/** What was used and what it cost. */

import { getJson } from "./api.js";
import { compact, count, money } from "./format.js";
import { html, nothing } from "./vendor/lit-html.js";
import { Loaded } from "./parts.js";
import { lyingBars, uprightBars } from "./plot.js";

const KINDS = ["day", "model", "agent", "key", "user"];
const DAYS = [7, 30, 90];
const DAY_MS = 86_400_000;

const chosen = { by: "day", days: 30 };
const usage = new Loaded(load);

const firstDay = () => new Date(Date.now() - (chosen.days - 1) * DAY_MS).toISOString().slice(0, 10);

async function load() {
  const report = await getJson("/v1/usage", { by: chosen.by, from: firstDay(), limit: 1000 });
  return { ...report, data: report.data.map((row) => withOwnName(row, report.data)) };
}

/** Add the id of a key to its name if another one is called the same. @param {any} row @param {any[]} data */
function withOwnName(row, data) {
  const { key, key_name: name } = row;
  const isShared = name !== null && data.some((other) => other.key_name === name && other.key !== key);
  return isShared ? { ...row, key_name: `${name} (${key})` } : row;
}

export const usagePanel = {
  name: "usage",
  label: "Usage",
  open: () => usage.refresh(),
  close() {},
  clear: () => usage.clear(),
  view: () => html`<section class="page"><header class="bar"><h1>Usage</h1>
    ${choice("By", KINDS, "by", (kind) => kind)}${choice("Period", DAYS, "days", (days) => `${days} days`)}</header>
    ${usage.view(report)}</section>`,
};

/** @param {string} label @param {any[]} values @param {"by"|"days"} name @param {(value: any) => string} text */
function choice(label, values, name, text) {
  const choose = (event) => {
    chosen[name] = /** @type {never} */ (values[event.target.selectedIndex]);
    usage.refresh();
  };
  return html`<label class="choice"><span>${label}</span><select @change=${choose}>
    ${values.map((value) => html`<option ?selected=${value === chosen[name]}>${text(value)}</option>`)}</select></label>`;
}

/** @param {any} report */
function report({ by, from, to, data, total, has_more: hasMore }) {
  const rows = by === "day" ? everyDay(data, from, to) : data;
  const bars = rows.map((row) => ({ label: by === "day" ? row.day.slice(5) : nameOf(row, by), value: tokensOf(row), text: describe(row, by) }));
  const title = `Tokens by ${by}, ${from} to ${to}`;
  return html`<dl class="totals">
      ${[["Runs", count(total.runs)], ["Input tokens", compact(total.input_tokens)], ["Output tokens", compact(total.output_tokens)], ["Cost", money(total.cost)]]
        .map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
    ${total.uncosted_calls ? html`<p class="faint">${count(total.uncosted_calls)} of ${count(total.model_calls)} model calls have no known cost.</p>` : nothing}
    ${data.length ? html`<h2>${title}</h2>${by === "day" ? uprightBars(title, bars) : lyingBars(title, bars.slice(0, 20))}${table(data, by)}`
      : html`<div class="empty"><h2>Nothing was used</h2><p>No run has asked a model in this period.</p></div>`}
    ${hasMore ? html`<p class="faint">There are more; the totals have all of them.</p>` : nothing}`;
}

/** @param {any} row */
const tokensOf = ({ usage: { input_tokens: given, output_tokens: made } }) => given + made;

/** @param {any} row @param {string} by */
function nameOf(row, by) {
  const key = row.key_name ?? row.key ?? "the gateway's token";
  if (by === "key") return key;
  if (by === "user") return `${row.user ?? "(none)"}, ${key}`; // two keys may call different users the same
  return row[by] ?? "(none)";
}

/** @param {any} row @param {string} by */
const describe = (row, by) => `${nameOf(row, by)}: ${count(tokensOf(row))} tokens, ${count(row.usage.runs)} runs, ${money(row.usage.cost)}`;

/** Fill the days on which nothing was used. @param {any[]} data @param {string} from @param {string} to */
function everyDay(data, from, to) {
  const known = new Map(data.map((row) => [row.day, row]));
  const none = { runs: 0, input_tokens: 0, output_tokens: 0, cost: 0 };
  const days = [];
  for (let at = Date.parse(from); at <= Date.parse(to); at += DAY_MS) {
    const day = new Date(at).toISOString().slice(0, 10);
    days.push(known.get(day) ?? { day, usage: none });
  }
  return days;
}

/** @param {any[]} data @param {string} by */
function table(data, by) {
  return html`<div class="scroll" tabindex="0" role="group" aria-label="Table of usage"><table>
    <thead><tr><th scope="col">${by}</th><th scope="col">Runs</th><th scope="col">Calls</th><th scope="col">Input</th><th scope="col">Cached</th><th scope="col">Output</th><th scope="col">Cost</th></tr></thead>
    <tbody>${data.map((row) => html`<tr><th scope="row">${nameOf(row, by)}</th>${cells(row.usage)}</tr>`)}</tbody></table></div>`;
}

/** @param {any} used */
const cells = (used) => [used.runs, used.model_calls, used.input_tokens, used.cached_tokens, used.output_tokens]
  .map((value) => html`<td>${count(value)}</td>`).concat(html`<td>${money(used.cost)}</td>`);
