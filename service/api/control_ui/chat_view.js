// @ts-check
/** The panel in which people talk to agents. */

import { approvalsOf } from "./approvals_view.js";
import { begin, chat, edit, forget, loadAgents, open, regenerate, retry, send, stop, unsent } from "./chat.js";
import { toPieces } from "./conversation.js";
import { redraw } from "./draw.js";
import { compact, duration, pretty, shorten } from "./format.js";
import { html, nothing, render } from "./vendor/lit-html.js";
import { markdown } from "./markdown.js";
import { codeLink, copy, errorNote, icon, iconButton, visible } from "./parts.js";
import { fitTogether, isHeld, toDataUris } from "./pictures.js";
import { may } from "./socket.js";

const NEAR_END_PX = 120;

/** What is being written. @type {{text: string, pictures: string[], editing: number|null, error: Error|null, agentsError: Error|null}} */
const draft = { text: "", pictures: [], editing: null, error: null, agentsError: null };

/** The element of the conversation shown; another conversation has another one. @type {{id: number, element: HTMLElement}} */
const shown = { id: -1, element: document.createElement("div") };

export const chatPanel = {
  name: "chat",
  label: "Chat",
  /** @param {string} key */
  open(key) {
    if (!chat.agents.length) loadAgents().then(() => (draft.agentsError = null), (error) => (draft.agentsError = error)).then(redraw);
    if (key && key !== chat.key) open(key);
    else if (!key && chat.key && !chat.run) begin();
  },
  close() {},
  /** @param {boolean} isKept whether what was written is still there after the next sign-in */
  clear(isKept) {
    const kept = isKept ? unfinished() : { text: "", pictures: [] };
    if (!isKept) chat.agent = "";
    forget();
    Object.assign(draft, { ...kept, editing: null, error: null, agentsError: null });
    if (!fitTogether(draft.pictures)) addPictures([]);
  },
  view,
};

/** What is being written, behind a message that did not reach the gateway. */
function unfinished() {
  const { text = "", pictures = [] } = unsent() ?? {};
  const field = /** @type {HTMLTextAreaElement|null} */ (shown.element.querySelector(".editing textarea"));
  const edited = field && field.value !== chat.messages[draft.editing ?? 0]?.text ? field.value : "";
  return { text: [text, edited, draft.text].filter(Boolean).join("\n\n"), pictures: [...pictures, ...draft.pictures] };
}

function view() {
  const stopByKey = (event) => event.key === "Escape" && !event.isComposing && chat.run && stop();
  return html`<section class="chat" aria-label="Chat" @keydown=${stopByKey}>${header()}${conversation()}${composer()}</section>`;
}

function header() {
  return html`<header class="bar">
    ${chat.messages.length || chat.key ? html`<h1>${shorten(chat.title || firstText() || "New chat", 80)}</h1>` : html`<h1>New chat</h1>`}
    ${branchSwitch()}
    ${agentChoice()}
    ${chat.messages.length ? iconButton("plus", "New chat", newChat) : nothing}
  </header>`;
}

const firstText = () => chat.messages[0]?.text ?? "";

function newChat() {
  location.hash = "#/chat";
  begin();
  focusComposer();
}

function agentChoice() {
  const isFixed = chat.messages.length > 0;
  if (isFixed || chat.agents.length < 2) return html`<span class="tag" title="The agent">${chat.agent}</span>`;
  const choose = (event) => ((chat.agent = event.target.value), redraw());
  return html`<label class="choice"><span class="hidden">Agent</span>
    <select @change=${choose}>${chat.agents.map(({ id, description }) =>
      html`<option value=${id} title=${description} ?selected=${id === chat.agent}>${id}</option>`)}</select></label>`;
}

function branchSwitch() {
  const tips = chat.branches.map(({ index }) => index);
  if (tips.length < 2 || chat.run) return nothing;
  const last = chat.messages.at(-1)?.index ?? null;
  const place = Math.max(0, tips.findIndex((index) => index === last));
  const go = (by) => () => open(chat.key, tips[place + by]);
  return html`<div class="branches" role="group" aria-label="Branches of this conversation">
    ${iconButton("left", "Earlier branch", go(-1), place === 0)}
    <span>${place + 1}/${tips.length}</span>
    ${iconButton("right", "Later branch", go(1), place === tips.length - 1)}
  </div>`;
}

function conversation() {
  if (shown.id !== chat.id) {
    Object.assign(shown, { id: chat.id, element: Object.assign(document.createElement("div"), { className: "messages" }) });
    draft.editing = null;
    shown.element.tabIndex = 0;
    shown.element.setAttribute("role", "log");
    shown.element.setAttribute("aria-live", "off");
    shown.element.setAttribute("aria-label", "Conversation");
  }
  const { element } = shown;
  const isAtEnd = element.scrollHeight - element.scrollTop - element.clientHeight < NEAR_END_PX;
  render(messages(), element);
  if (isAtEnd) requestAnimationFrame(() => (element.scrollTop = element.scrollHeight));
  return element;
}

function messages() {
  const failed = chat.failed?.at(-1);
  return html`<div class="column">
    ${chat.messages.map((one, place) => (one.role === "user" ? userMessage(one, place) : answerMessage(one, place)))}
    ${chat.isLoading ? html`<p class="empty">Loading…</p>` : nothing}
    ${failed && !chat.messages.includes(failed) ? html`<div class="user failed"><div class="bubble">${failed.text}</div></div>` : nothing}
    ${chat.obstacle ? html`<p class="note">${chat.obstacle}</p>` : nothing}
    ${chat.error ? errorNote(chat.error, chat.failed ? retry : null) : nothing}
    ${chat.messages.length || chat.isLoading || chat.error ? nothing : welcome()}
  </div>`;
}

function welcome() {
  const agent = chat.agents.find(({ id }) => id === chat.agent);
  return html`<div class="welcome"><h2>What can I do for you?</h2>
    ${draft.agentsError ? errorNote(draft.agentsError) : html`<p>${agent?.description ?? ""}</p>`}</div>`;
}

/** @param {import("./chat.js").Shown} one @param {number} place */
function userMessage(one, place) {
  if (draft.editing === place) return editor(one, place);
  return html`<article class="user" aria-label="You">
    ${one.pictures.length ? html`<div class="pictures">${one.pictures.map(picture)}</div>` : nothing}
    ${one.unreadable ? html`<p class="note">This message is too long to be shown.</p>` : nothing}
    ${one.text ? html`<div class="bubble">${one.text}</div>` : nothing}
    ${endingMark(one)}
    <div class="actions">${iconButton("copy", "Copy message", () => copy(one.text))}
      ${iconButton("edit", "Edit message", () => startEditing(place), !canAsk())}</div>
  </article>`;
}

/** Show a picture if the text of its address holds it. @param {string} uri */
const picture = (uri) => (uri.startsWith("data:image/") ? html`<img src=${uri} alt="Attached picture">` : html`<span class="tag">picture: ${shorten(uri, 60)}</span>`);

/** @param {import("./chat.js").Shown} one @param {number} place */
function editor(one, place) {
  const done = (event) => {
    event.preventDefault();
    const text = event.target.elements.text.value;
    if (!canAsk() || !(text.trim() || one.pictures.length)) return;
    draft.editing = null;
    edit(place, text);
  };
  const cancel = () => ((draft.editing = null), redraw());
  const leave = (event) => event.key === "Escape" && (event.stopPropagation(), cancel());
  const send = (event) => isSending(event) && event.target.form.requestSubmit();
  return html`<form class="user editing" @submit=${done} @keydown=${leave}>
    <textarea name="text" aria-label="Edit message" .value=${one.text} rows="3" @keydown=${send}></textarea>
    <div class="row end"><button type="button" @click=${cancel}>Cancel</button><button class="main">Send</button></div>
  </form>`;
}

/** @param {number} place */
function startEditing(place) {
  draft.editing = place;
  redraw();
  requestAnimationFrame(() => requestAnimationFrame(() => /** @type {HTMLElement|null} */ (shown.element.querySelector(".editing textarea"))?.focus()));
}

const canAsk = () => chat.agent && !chat.run && !chat.obstacle && !chat.isLoading;

/** @param {import("./chat.js").Shown} one @param {number} place */
function answerMessage(one, place) {
  const pieces = toPieces(one);
  return html`<article class="answer" aria-label="Answer" aria-busy=${one.isLive ? "true" : "false"}>
    ${pieces.map((piece, at) => pieceView(piece, pieces[at - 1]?.step ?? one, one.isLive === true))}
    ${one.unreadable ? html`<p class="note">This answer is too long to be shown.</p>` : nothing}
    ${isEmptyAnswer(one) ? html`<p class="faint">The answer is empty.</p>` : nothing}
    ${one.isLive && !pieces.at(-1)?.text ? html`<p class="pause"><span class="dots" aria-hidden="true"></span><span class="hidden">The agent is working</span></p>` : nothing}
    ${approvalsOf(one.runId)}
    ${one.isLive && chat.run?.note ? html`<p class="note">${chat.run.note}</p>` : nothing}
    ${endingMark(one)}
    ${one.isLive ? nothing : answerActions(one, place)}
  </article>`;
}

/** @param {ReturnType<typeof toPieces>[number]} piece @param {object} owner of its text @param {boolean} isLive whether the answer is being made */
function pieceView({ text, reasoning, step }, owner, isLive) {
  const isOpen = isLive && !step;
  return html`${reasoning ? html`<details class="fold"><summary>${isOpen && !text ? "Thinking…" : "Reasoning"}</summary><div class="thoughts">${reasoning}</div></details>` : nothing}
    ${text ? markdown(owner, text, !isOpen) : nothing}
    ${step ? stepView(step, isLive) : nothing}`;
}

/** Return true for a whole answer without a text. @param {import("./chat.js").Shown} one */
const isEmptyAnswer = ({ isLive, text, ending, unreadable, index, usage }) =>
  !(isLive || text.trim() || ending || unreadable) && (index !== null || usage);

/** Say why there is no whole answer, once if the error below says the same. @param {import("./chat.js").Shown} one */
function endingMark({ ending, isLive }) {
  if (!ending || isLive) return nothing;
  const isSaid = ending === chat.messages.at(-1)?.ending && ending.message === chat.error?.message;
  return html`<p class="ending"><span class="state error">${ending.word}</span>
    ${isSaid ? nothing : html`<bdi>${ending.message}</bdi> ${codeLink(ending.code)}`}</p>`;
}

/** Say to those who do not see it how a run that has ended here has ended; an error says so itself. */
function announcement() {
  const last = chat.messages.at(-1);
  if (!chat.hasEnded || !last || chat.error) return "";
  if (last.ending) return `The answer is not complete: ${last.ending.word}. ${last.ending.message}`;
  return last.role === "user" ? "" : `The answer is ${last.text.trim() ? "complete" : "empty"}.`;
}

/** @param {import("./chat.js").Shown} one @param {number} place */
function answerActions(one, place) {
  return html`<div class="actions">${iconButton("copy", "Copy answer", () => copy(one.text))}
    ${iconButton("again", "Ask again", () => regenerate(place), !canAsk())}
    ${one.runId && may("read") ? html`<a class="faint" href="#/runs/${encodeURIComponent(one.runId)}">Run</a>` : nothing}
    ${one.usage ? html`<span class="faint">${compact(one.usage.prompt_tokens)} in, ${compact(one.usage.completion_tokens)} out</span>` : nothing}</div>`;
}

/** @param {import("./conversation.js").Step} step @param {boolean} isLive */
function stepView(step, isLive) {
  const isRunning = isLive && step.ok === null;
  return html`<details class="fold step">
    <summary><span class="mark ${step.ok === false ? "bad" : isRunning ? "busy" : "good"}" aria-hidden="true"></span>
      <code>${visible(shorten(step.label === step.name && step.arguments ? `${step.name} ${step.arguments}` : step.label, 90))}</code>
      <span class="faint">${isRunning ? "running…" : step.ok === false ? "failed" : duration(step.ms)}</span></summary>
    ${step.arguments ? html`<p class="label">Arguments</p><pre tabindex="0">${visible(pretty(step.arguments))}</pre>` : nothing}
    ${step.result === null ? html`<p class="faint">${isLive ? "The result is shown when the answer is complete." : "There is no result."}</p>` : html`<p class="label">Result</p><pre tabindex="0">${visible(step.result)}</pre>`}
  </details>`;
}

function composer() {
  const isBlocked = !canAsk() && !chat.run;
  return html`<form class="composer" @submit=${submit} @paste=${(event) => attach([...event.clipboardData.files], event)}
      @dragover=${(event) => event.preventDefault()} @drop=${(event) => attach([...event.dataTransfer.files], event)}>
    ${draft.error ? html`<p class="note bad" role="alert">${draft.error.message}</p>` : nothing}
    ${draft.pictures.length ? html`<div class="pictures">${draft.pictures.map(chosenPicture)}</div>` : nothing}
    <div class="box">
      <label class="quiet attach" title="Attach pictures">${icon("clip")}<span class="hidden">Attach pictures</span>
        <input type="file" accept="image/png,image/jpeg,image/gif,image/webp" multiple @change=${chooseFiles}></label>
      <textarea id="message" aria-label="Message" rows="1" placeholder="Message ${chat.agent}" ?disabled=${isBlocked}
        .value=${draft.text} @input=${typed} @keydown=${pressed}></textarea>
      ${chat.run ? html`<button class="main round" type="button" aria-label="Stop" title="Stop" ?disabled=${chat.run.isStopping} @click=${stop}>${icon("stop")}</button>`
        : html`<button class="main round" aria-label="Send" title="Send" ?disabled=${isBlocked || isEmpty()}>${icon("send")}</button>`}
    </div>
    <p class="hidden" role="status">${chat.run ? chat.run.note || "The agent is answering." : announcement()}</p>
  </form>`;
}

const isEmpty = () => !draft.text.trim() && !draft.pictures.length;

/** @param {string} uri @param {number} place */
const chosenPicture = (uri, place) => html`<span class="chosen"><img src=${uri} alt="Picture ${place + 1}">
  ${iconButton("close", `Remove picture ${place + 1}`, () => removePicture(place))}</span>`;

/** @param {number} place */
function removePicture(place) {
  Object.assign(draft, { pictures: draft.pictures.filter((_, at) => at !== place), error: null });
  if (!fitTogether(draft.pictures)) addPictures([]);
  redraw();
}

/** @param {any} event */
function typed(event) {
  draft.text = event.target.value;
  fit(event.target);
  redraw();
}

const GROWS = CSS.supports("field-sizing", "content");

/** Make a field as high as its text, where browsers do not. @param {HTMLTextAreaElement} field */
function fit(field) {
  if (GROWS) return;
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}

/** @param {KeyboardEvent} event */
function pressed(event) {
  if (isSending(event) && !chat.run && canAsk()) submit(event);
}

/** Whether a key sends what is written, and does not begin a line, which it does on touch screens. @param {KeyboardEvent} event */
function isSending(event) {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || matchMedia("(pointer: coarse)").matches) return false;
  event.preventDefault();
  return true;
}

/** @param {Event} event */
function submit(event) {
  event.preventDefault();
  if (isEmpty() || !canAsk()) return;
  if (!fitTogether(draft.pictures)) return void addPictures([]); // too many, as it says, or just being made smaller
  const { text, pictures } = draft;
  Object.assign(draft, { text: "", pictures: [], error: null });
  const field = /** @type {HTMLTextAreaElement} */ (document.getElementById("message"));
  field.value = ""; // what was typed last may not be drawn yet
  fit(field);
  shown.element.scrollTop = shown.element.scrollHeight;
  send(text, pictures);
}

/** @param {any} event */
function chooseFiles(event) {
  const files = [...event.target.files];
  event.target.value = "";
  attach(files);
}

/** @param {File[]} files @param {Event} [event] */
async function attach(files, event) {
  if (!files.length) return;
  event?.preventDefault();
  await addPictures(files);
}

/** Make all pictures small enough together, those that are there among them. @param {File[]} files */
async function addPictures(files) {
  const before = draft.pictures;
  try {
    const held = await toDataUris([...before.filter(isHeld).map(fetchPicture), ...files]);
    const pictures = [...before.filter((uri) => !isHeld(uri)), ...held];
    if (draft.pictures === before) Object.assign(draft, { pictures, error: null });
  } catch (error) {
    if (draft.pictures === before) draft.error = /** @type {Error} */ (error);
  }
  redraw();
}

/** @param {string} uri */
function fetchPicture(uri) {
  const [head, data] = uri.split(",");
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type: head.slice("data:".length, head.indexOf(";")) });
}

export function focusComposer() {
  requestAnimationFrame(() => requestAnimationFrame(() => document.getElementById("message")?.focus()));
}
