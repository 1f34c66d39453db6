// @ts-check
/** Parts that several panels share: data that is loaded, errors, icons, questions. */

import { ApiError } from "./api.js";
import { redraw } from "./draw.js";
import { atHidden } from "./format.js";
import { html, nothing, svg } from "./vendor/lit-html.js";

const PATHS = {
  chat: "M21 12a8 8 0 0 1-8 8H4l2-3a8 8 0 1 1 15-5Z",
  sessions: "M4 6h16M4 12h16M4 18h10",
  runs: "M3 12h4l3-8 4 16 3-8h4",
  approvals: "M12 3l8 3v6c0 5-3.5 8-8 9-4.5-1-8-4-8-9V6l8-3Zm-3 9 2 2 4-4",
  usage: "M4 20V10m6 10V4m6 16v-7m5 7H2",
  gateway: "M4 5h16v6H4zM4 13h16v6H4zM8 8h.01M8 16h.01",
  plus: "M12 5v14M5 12h14",
  send: "M12 19V5m-6 6 6-6 6 6",
  stop: "M7 7h10v10H7z",
  clip: "M20 11l-8.5 8.5a5 5 0 0 1-7-7L13 4a3.3 3.3 0 0 1 4.7 4.7l-8.5 8.5a1.7 1.7 0 0 1-2.4-2.4L14.5 7",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  again: "M20 11a8 8 0 1 0-.6 4M20 4v7h-7",
  edit: "M4 20l1-4L16 5l3 3L8 19l-4 1Z",
  left: "M15 6l-6 6 6 6",
  right: "M9 6l6 6-6 6",
  trash: "M5 7h14M10 7V4h4v3m-7 0 1 13h8l1-13",
  save: "M12 4v11m-5-5 5 5 5-5M5 20h14",
  close: "M6 6l12 12M18 6 6 18",
  out: "M14 4h5v16h-5M10 8l-4 4 4 4m-4-4h10",
};

/** @param {keyof typeof PATHS} name */
export const icon = (name) => html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true">${svg`<path d=${PATHS[name]}></path>`}</svg>`;

/** @param {keyof typeof PATHS} name @param {string} label @param {(event: Event) => void} action */
export const iconButton = (name, label, action, isDisabled = false) =>
  html`<button class="quiet" type="button" title=${label} aria-label=${label} ?disabled=${isDisabled} @click=${action}>${icon(name)}</button>`;

/** Data of the gateway, and how it is shown while it is not there. @template T */
export class Loaded {
  /** @param {() => Promise<T>} load */
  constructor(load) {
    this.load = load;
    /** @type {T|null} */ this.value = null;
    /** @type {Error|null} */ this.error = null;
    this.isLoading = false;
    this.turn = 0;
  }

  /** Load, keeping what is shown until it has come; the last call counts. */
  async refresh() {
    const turn = ++this.turn;
    this.isLoading = true;
    redraw();
    try {
      const value = await this.load();
      if (turn === this.turn) Object.assign(this, { value, error: null });
    } catch (error) {
      if (turn === this.turn) this.error = /** @type {Error} */ (error);
    }
    if (turn === this.turn) this.isLoading = false;
    redraw();
  }

  clear() {
    this.turn++;
    Object.assign(this, { value: null, error: null, isLoading: false });
  }

  /** @param {(value: T) => unknown} template */
  view(template) {
    return html`${this.error ? errorNote(this.error, () => this.refresh()) : nothing}
      ${this.value === null ? (this.error ? nothing : html`<p class="empty" role="status">Loading…</p>`) : template(this.value)}`;
  }
}

/**
 * Show what people decide on or look into: characters that are not seen, or that reorder others, are marked escapes.
 * @param {string} text
 */
export const visible = (text) => atHidden(text).map((piece, place) => (place % 2 ? html`<span class="escape">${piece}</span>` : piece));

/** Link an error's code to its page. @param {string} code */
export const codeLink = (code) =>
  (code ? html`<a href="/docs/errors/${code.toLowerCase()}" target="_blank" rel="noopener">${code.toLowerCase()}</a>` : nothing);

/** Show an error in the gateway's words. @param {Error} error @param {(() => void)|null} retry */
export function errorNote(error, retry = null) {
  const { code, retryAfter } = error instanceof ApiError ? error : { code: "", retryAfter: null };
  const isRefusal = code === "missing_scope";
  return html`<div class="note ${isRefusal ? "" : "bad"}" role=${isRefusal ? "note" : "alert"}>
    <p><strong>${isRefusal ? "Not for this key." : ""}</strong> <bdi>${error.message}</bdi>
      ${retryAfter === null ? nothing : html`Try again in ${retryAfter} ${retryAfter === 1 ? "second" : "seconds"}.`}
      ${codeLink(code)}</p>
    ${retry && !isRefusal ? html`<button type="button" @click=${retry}>Try again</button>` : nothing}
  </div>`;
}

/**
 * Ask a question and return the answer that is chosen: the first one, too, if the dialog is left.
 * @param {string} question @param {string[]} answers @param {string} kind the look of the last answer
 * @returns {Promise<string>}
 */
export function choose(question, answers, kind = "main") {
  const dialog = document.createElement("dialog");
  const text = Object.assign(document.createElement("p"), { textContent: question, id: "question" });
  dialog.setAttribute("aria-labelledby", text.id);
  const row = Object.assign(document.createElement("div"), { className: "row end" });
  for (const answer of answers) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: answer });
    button.onclick = () => dialog.close(answer);
    if (answer === answers.at(-1)) button.className = kind;
    row.append(button);
  }
  dialog.append(text, row);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      dialog.remove();
      resolve(dialog.returnValue || answers[0]);
    };
  });
}

/** Copy a text; not every address of a page has a clipboard. @param {string} text */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text).catch(() => {});
  const field = Object.assign(document.createElement("textarea"), { value: text, className: "hidden" });
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

/** Save a text as a file. @param {string} name @param {string} type @param {string} text */
export function download(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name.replace(/[^\p{L}\p{M}\p{N}_.-]+/gu, "_");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
