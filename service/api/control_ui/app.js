// @ts-check
/** The page: signing in, the panels, and which of them the address names. */

import { keepSecret, onRefused, secret } from "./api.js";
import { approvalsPanel } from "./approvals_view.js";
import { begin, chat } from "./chat.js";
import { chatPanel } from "./chat_view.js";
import { drawWith, redraw } from "./draw.js";
import { gatewayPanel } from "./gateway_view.js";
import { html, nothing, render } from "./vendor/lit-html.js";
import { icon } from "./parts.js";
import { clearRecent, recentView } from "./recent.js";
import { runsPanel } from "./runs_view.js";
import { sessionsPanel } from "./sessions_view.js";
import { isKnown, signIn, signInView } from "./sign_in.js";
import { connectFirst, disconnect, live } from "./socket.js";
import { usagePanel } from "./usage_view.js";

/** @type {any[]} */
const PANELS = [chatPanel, sessionsPanel, runsPanel, approvalsPanel, usagePanel, gatewayPanel];
const CONNECTION = { open: "Connected", connecting: "Connecting…", refused: "No live updates", off: "" };

/** "starting", "out" or "in". */
let state = "starting";
let panel = chatPanel;

function route() {
  if (state !== "in") return;
  const [, name = "", argument = ""] = location.hash.split("/");
  const next = PANELS.find((one) => one.name === name) ?? chatPanel;
  panel.close();
  panel = next;
  panel.open(decoded(argument));
  redraw();
}

/** Decode a part of the address, which may be anything. @param {string} part */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

async function enter() {
  await connectFirst(signIn.mayRead);
  state = "in";
  signIn.error = null;
  route();
}

/** @param {Error|null} error */
function leave(error) {
  keepSecret("");
  panel.close();
  disconnect();
  for (const { clear } of PANELS) clear?.(error !== null);
  begin();
  chat.agents = [];
  clearRecent();
  signIn.error = error;
  showSignIn();
}

function signOut() {
  leave(null);
  location.hash = "";
}

function showSignIn() {
  state = "out";
  redraw();
  requestAnimationFrame(() => document.getElementById("secret")?.focus());
}

function view() {
  if (state === "starting") return nothing;
  if (state === "out") return signInView();
  return html`<a class="skip" href="#main" @click=${skip}>Skip to content</a><div class="shell">
    <nav aria-label="Panels"><p class="brand">OpenClaw</p><ul>${PANELS.map(link)}</ul>${recentView(panel === chatPanel)}
      <div class="foot"><span class="connection ${live.state}" role="status">${CONNECTION[/** @type {"open"} */ (live.state)]}</span>
        ${secret() ? html`<button type="button" class="quiet" @click=${signOut}>${icon("out")}<span>Sign out</span></button>` : nothing}</div></nav>
    <main id="main" tabindex="-1">${panel.view()}</main></div>`;
}

/** @param {any} one */
function link({ name, label, badge }) {
  const number = badge?.() ?? 0;
  const key = name === "chat" && chat.key.startsWith("agent:") ? `/${encodeURIComponent(chat.key)}` : "";
  return html`<li><a href="#/${name}${key}" aria-current=${panel.name === name ? "page" : "false"}>${icon(name)}<span>${label}</span>
    ${number ? html`<span class="badge" aria-label="${number} pending">${number}</span>` : nothing}</a></li>`;
}

/** @param {Event} event */
function skip(event) {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

/** What had the focus last, within the panels. @type {any} */
let focused = null;

/** Keep those who use a keyboard in their place when what had the focus is gone: in the chat that is its message. */
function keepFocus() {
  if (state !== "in" || document.activeElement !== document.body || !focused || (focused.isConnected && !focused.disabled)) return;
  const field = /** @type {HTMLTextAreaElement|null} */ (document.getElementById("message"));
  const isTyping = field && !field.disabled && !matchMedia("(pointer: coarse)").matches; // touch screens would show their keyboard
  (isTyping ? field : document.getElementById("main"))?.focus({ preventScroll: true });
}

const root = /** @type {HTMLElement} */ (document.getElementById("app"));
drawWith(() => {
  const waiting = approvalsPanel.badge();
  document.title = `${waiting ? `(${waiting}) ` : ""}${state === "in" ? `${panel.label} · ` : ""}OpenClaw Gateway`;
  render(view(), root);
  keepFocus();
});
root.addEventListener("focusin", ({ target }) => (focused = state === "in" ? target : null));
onRefused((error) => state === "in" && leave(error));
signIn.done = enter;
addEventListener("hashchange", route);
isKnown().then((known) => {
  if (known) enter();
  else showSignIn();
});
