// @ts-check
/** Runs as they happen: a list, and the events of one of them. */

import { call, getJson, postJson, readEvents } from "./api.js";
import { approvalsOf } from "./approvals_view.js";
import { lastStep, toPieces } from "./conversation.js";
import { redraw } from "./draw.js";
import { ago, count, duration, money, pretty, time } from "./format.js";
import { html, nothing } from "./vendor/lit-html.js";
import { errorNote, Loaded, visible } from "./parts.js";
import { may, onEvent } from "./socket.js";

const POLL_MS = 3000;
const ENDED = ["ok", "error", "aborted", "interrupted"];

const filter = { state: "" };
const runs = new Loaded(() => getJson("/v1/runs", { limit: 50, state: filter.state }));
/** The run that is shown. @type {{id: string, run: Loaded<any>, watch: Watch}|null} */
let chosen = null;
let timer = 0;

/** What is known of a run from its events. */
class Watch {
  /** @param {string} id */
  constructor(id) {
    this.id = id;
    this.text = "";
    this.reasoning = "";
    /** @type {any[]} */ this.steps = [];
    /** The number of the last event. */ this.after = 0;
    this.isOver = false;
    this.hasEvents = false;
    /** @type {Error|null} */ this.error = null;
    this.control = new AbortController();
  }

  /** Take the events to the last one, again behind what has come when the connection breaks. */
  async follow() {
    const { signal } = this.control;
    while (!this.isOver) {
      try {
        const response = await call("GET", `/v1/runs/${encodeURIComponent(this.id)}/events?after=${this.after}`, { signal });
        this.error = null;
        for await (const { id, data } of readEvents(response)) this.take(id, JSON.parse(data));
      } catch (error) {
        if (signal.aborted) return;
        const { status } = /** @type {any} */ (error);
        this.isOver = status !== 0;
        if (status !== 410) this.error = /** @type {Error} */ (error);
      }
      redraw();
      if (!this.isOver) await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      if (signal.aborted) return;
    }
  }

  /** @param {string} id @param {any} event */
  take(id, event) {
    const { type } = event;
    this.after = Number(id);
    this.isOver = type === "run.ended";
    this.hasEvents = true;
    if (type === "text.delta") this.text += event.text;
    else if (type === "text.retracted") this.text = cut(this.text, event.characters);
    else if (type === "reasoning.delta") this.reasoning += event.text;
    else if (type === "reasoning.retracted") this.reasoning = cut(this.reasoning, event.characters);
    else if (type === "tool.started") this.steps.push({ ...event, result: null, textAt: this.text.length, reasoningAt: this.reasoning.length });
    else if (type === "tool.ended") Object.assign(lastStep(this, event.id) ?? {}, { ...event, result: event.summary });
    else if (type === "run.ended" && chosen?.id === this.id) chosen.run.refresh();
    redraw();
  }
}

/** Cut characters off the end of a text; the gateway counts code points. @param {string} text @param {number} characters */
const cut = (text, characters) => [...text].slice(0, -characters || undefined).join("");

onEvent((name, payload) => {
  if (timer && name === "agent" && payload.stream === "lifecycle") runs.refresh();
});

export const runsPanel = {
  name: "runs",
  label: "Runs",
  /** @param {string} id */
  open(id) {
    leave();
    if (id) choose(id);
    const refresh = () => (chosen ? isGoingOn(chosen.run.value) && chosen.run.refresh() : runs.refresh());
    if (!id) runs.refresh();
    timer = setInterval(refresh, POLL_MS);
  },
  close: leave,
  clear: () => runs.clear(),
  view: () => (chosen ? detail(chosen) : overview()),
};

/** @param {string} id */
function choose(id) {
  chosen = { id, run: new Loaded(() => getJson(`/v1/runs/${encodeURIComponent(id)}`)), watch: new Watch(id) };
  chosen.run.refresh();
  chosen.watch.follow();
}

function leave() {
  clearInterval(timer);
  timer = 0;
  chosen?.watch.control.abort();
  chosen = null;
}

/** @param {any} run */
const isGoingOn = (run) => run !== null && !ENDED.includes(run.state);

function overview() {
  const change = (event) => ((filter.state = event.target.value), runs.refresh());
  return html`<section class="page"><header class="bar"><h1>Runs</h1>
    <label class="choice"><span class="hidden">State</span><select @change=${change}>
      <option value="">all</option>${["running", "waiting", "queued", ...ENDED].map((state) => html`<option ?selected=${filter.state === state}>${state}</option>`)}</select></label></header>
    ${runs.view(({ data }) => (data.length ? html`<ul class="list">${data.map(row)}</ul>`
      : html`<div class="empty"><h2>No runs</h2><p>Each request to an agent is a run. It appears here as soon as it begins.</p></div>`))}</section>`;
}

/** @param {any} run */
function row({ id, state, agent, model, tool, step, created_at: created, duration_ms: ms, protocol, error, usage }) {
  const doing = tool ? `uses ${tool}` : step ? `step ${step}` : "";
  return html`<li><a href="#/runs/${encodeURIComponent(id)}"><span class="line"><span class="state ${state}">${state}</span>
      <strong>${agent}</strong> <span class="faint">${doing}</span></span>
    <span class="faint" title=${time(created)}>${ago(created)} · ${model ?? "no model yet"} · ${protocol}${ms === null ? "" : ` · ${duration(ms)}`} · ${count(usage.input_tokens + usage.output_tokens)} tokens</span>
    ${error ? html`<span class="error">${error.message}</span>` : nothing}</a></li>`;
}

/** @param {{id: string, run: Loaded<any>, watch: Watch}} shown */
function detail({ id, run, watch }) {
  const cancel = () => postJson(`/v1/runs/${encodeURIComponent(id)}/cancel`).catch((error) => (watch.error = error)).then(() => run.refresh());
  return html`<section class="page"><header class="bar"><a class="back" href="#/runs">Runs</a><h1 class="id">${id}</h1>
      ${isGoingOn(run.value) ? html`<button type="button" class="danger" ?disabled=${!may("write")} @click=${cancel}>Cancel</button>` : nothing}</header>
    ${run.view(facts)}${approvalsOf(id)}${watch.error && !run.error ? errorNote(watch.error) : nothing}${run.error ? nothing : watchView(watch)}</section>`;
}

/** @param {any} run */
function facts(run) {
  const rows = [
    ["State", html`<span class="state ${run.state}">${run.state}</span> ${run.finish_reason ?? ""}`],
    ["Agent", run.agent],
    ["Session", html`<a href="#/chat/${encodeURIComponent(run.session_key)}">${run.session_key}</a>`],
    ["Model", run.model ?? "none yet"],
    ["Accepted", `${time(run.created_at)} by ${run.protocol}`],
    ["Duration", run.duration_ms === null ? "" : duration(run.duration_ms)],
    ["Tokens", `${count(run.usage.input_tokens)} in, ${count(run.usage.output_tokens)} out, cost ${money(run.usage.cost)}`],
  ];
  return html`<dl class="facts">${rows.map(([name, value]) => (value ? html`<div><dt>${name}</dt><dd>${value}</dd></div>` : nothing))}</dl>
    ${run.error ? html`<div class="note bad"><p><bdi>${run.error.message}</bdi> <a href="/docs/errors/${run.error.code}" target="_blank" rel="noopener">${run.error.code}</a></p></div>` : nothing}`;
}

/** @param {Watch} watch */
function watchView(watch) {
  if (watch.isOver && !watch.hasEvents) return html`<p class="empty">The events of this run are not kept. Its session has the messages.</p>`;
  return toPieces(watch).map(({ text, reasoning, step }) => html`
    ${reasoning ? html`<details class="fold"><summary>Reasoning</summary><div class="thoughts">${reasoning}</div></details>` : nothing}
    ${text ? html`<pre class="output" tabindex="0">${text}</pre>` : nothing}
    ${step ? stepView(step) : nothing}`);
}

/** @param {any} step */
function stepView({ name, arguments: given, result, ok, duration_ms: ms }) {
  return html`<details class="fold step">
      <summary><span class="mark ${ok === undefined ? "busy" : ok ? "good" : "bad"}" aria-hidden="true"></span><code>${visible(name)}</code>
        <span class="faint">${ok === undefined ? "running…" : ok ? duration(ms) : "failed"}</span></summary>
      <p class="label">Arguments</p><pre tabindex="0">${visible(pretty(given ?? ""))}</pre>${result === null ? nothing : html`<p class="label">Beginning of the result</p><pre tabindex="0">${visible(result)}</pre>`}</details>`;
}
