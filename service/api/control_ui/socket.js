// @ts-check
/** The gateway's WebSocket (docs/websocket.md): who is signed in, what happens, and what only it can answer. */

import { call, secret } from "./api.js";
import { redraw } from "./draw.js";

const RETRY_MS = [500, 1000, 2000, 5000];
const POLICY_VIOLATION = 1008;
const FIRST_MS = 2000;
const POLL_MS = 10_000;
/** Operations that change nothing, as no run is named by a space, and the scope that each needs: what they refuse, the caller may not do. */
const TRIALS = [["write", "POST", "/v1/runs/%20/cancel"], ["admin", "GET", "/v1/approvals?limit=1"]];

/**
 * `state`: "off", "connecting", "open", or "refused"; `scopes` of the caller, null while they are not known.
 * @type {{state: string, scopes: string[]|null}}
 */
export const live = { state: "off", scopes: null };

/** @type {WebSocket|null} */
let socket = null;
/** Whether the caller has the scope "read". */
let isReader = false;
let attempts = 0;
let number = 0;
/** @type {Map<string, {resolve: (value: any) => void, reject: (error: Error) => void}>} */
const waiting = new Map();
/** @type {Set<(name: string, payload: any) => void>} */
const listeners = new Set();

/** Call `fn` with each event, with "open" when a connection has begun, and again and again with "unwatched" while there is none. @param {(name: string, payload: any) => void} fn */
export function onEvent(fn) {
  listeners.add(fn);
}

/** Return false if the caller lacks a scope: "read", "write" or "admin". @param {string} name */
export function may(name) {
  const { scopes } = live;
  if (scopes === null) return true; // the gateway will say
  const wider = { read: ["read", "write", "admin"], write: ["write", "admin"], admin: ["admin"] };
  return wider[/** @type {"read"} */ (name)].some((scope) => scopes.includes(`operator.${scope}`));
}

/** Connect, and return when the scopes are known, or cannot be found out yet. @param {boolean} mayRead whether the caller has the scope "read" */
export async function connectFirst(mayRead) {
  isReader = mayRead;
  connect();
  await new Promise((resolve) => {
    setTimeout(resolve, FIRST_MS);
    onEvent((name) => name === "open" && resolve(null));
    socket?.addEventListener("close", resolve);
  });
  await look();
}

/** Have the others look again, for lack of events. */
async function look() {
  if (live.state === "open" || live.state === "off") return;
  if (live.scopes === null) await findScopes();
  if (live.scopes !== null && live.state !== "open") for (const listener of listeners) listener("unwatched", null);
}

setInterval(look, POLL_MS);

/** Learn the scopes without a WebSocket, from what is refused over HTTP; they stay unknown if an operation fails otherwise. */
async function findScopes() {
  const asked = secret();
  const tried = await Promise.all(TRIALS.map(([, method, path]) => isAllowed(method, path)));
  if (live.scopes !== null || live.state === "off" || asked !== secret() || tried.includes(null)) return;
  const found = TRIALS.filter((_, place) => tried[place]).map(([scope]) => `operator.${scope}`);
  live.scopes = isReader ? ["operator.read", ...found] : found;
  redraw();
}

/** Return null if the answer does not tell. @param {string} method @param {string} path */
async function isAllowed(method, path) {
  try {
    await call(method, path);
  } catch (error) {
    const { status, code } = /** @type {import("./api.js").ApiError} */ (error);
    if (code === "missing_scope") return false;
    return [400, 404].includes(status) ? true : null;
  }
  return true;
}

function connect() {
  const opened = new WebSocket(location.origin.replace(/^http/, "ws") + "/");
  socket = opened;
  live.state = "connecting";
  opened.onmessage = ({ data }) => receive(opened, JSON.parse(data));
  opened.onclose = ({ code }) => {
    if (socket !== opened) return;
    fail();
    live.state = code === POLICY_VIOLATION ? "refused" : "connecting";
    if (live.state !== "refused") setTimeout(() => socket === opened && connect(), RETRY_MS[Math.min(attempts++, 3)]);
    redraw();
  };
}

export function disconnect() {
  const closed = socket;
  socket = null;
  fail();
  Object.assign(live, { state: "off", scopes: null });
  closed?.close();
}

function fail() {
  for (const { reject } of waiting.values()) reject(new Error("The connection to the gateway was lost."));
  waiting.clear();
}

/** Call a method and return its payload. @param {string} method @param {object} [params] @returns {Promise<any>} */
export function request(method, params = {}) {
  if (socket?.readyState !== WebSocket.OPEN) return Promise.reject(new Error("The gateway is not connected."));
  const id = String(++number);
  socket.send(JSON.stringify({ type: "req", id, method, params }));
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

/** @param {WebSocket} opened @param {any} frame */
function receive(opened, frame) {
  if (opened !== socket) return;
  if (frame.event === "connect.challenge") greet();
  else if (frame.type === "event") for (const listener of listeners) listener(frame.event, frame.payload);
  else if (frame.ok) settle(frame.id, "resolve", frame.payload);
  else settle(frame.id, "reject", Object.assign(new Error(frame.error.message), { code: frame.error.details?.code ?? "" }));
}

/** @param {string} id @param {"resolve"|"reject"} how @param {any} value */
function settle(id, how, value) {
  waiting.get(id)?.[how](value);
  waiting.delete(id);
}

function greet() {
  const client = { id: "control-ui", version: "1", platform: "web", mode: "ui" };
  const auth = secret() ? { auth: { token: secret(), password: secret() } } : {};
  const wanted = ["operator.admin"];
  const params = { minProtocol: 4, maxProtocol: 4, client, scopes: wanted, caps: ["tool-events"], ...auth };
  request("connect", params).then((hello) => {
    attempts = 0;
    Object.assign(live, { state: "open", scopes: hello.auth.scopes });
    for (const listener of listeners) listener("open", hello);
    redraw();
  }, () => {});
}
