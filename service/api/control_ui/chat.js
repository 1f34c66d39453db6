// @ts-check
/** The conversation that is open: what it consists of, and the run that answers it. */

import { ApiError, call, getJson, postJson, readEvents, sessionPath, toHeader, UNREACHABLE } from "./api.js";
import { addChunk, addEndings, addKnown, beginsWith, hasForeignCalls, message, toEnding, toRequest, toShown } from "./conversation.js";
import { redraw } from "./draw.js";
import { loadConversation } from "./sessions_api.js";
import { may, onEvent } from "./socket.js";

const SHOWN = { "x-openclaw-events": "reasoning,tools" };
const BROKEN = "The connection was lost. Reconnecting…";
const WAITS = { queued: "Waiting for another run to end.", waiting: "A tool call waits for the decision of a person who may approve it." };
const LOOK_MS = 3000;
const RECONNECT_SECONDS = [0.5, 1, 2, 3, 5, 5, 5, 5, 5, 5, 5, 5];

/** @typedef {import("./conversation.js").Shown} Shown */

/** What was said in this tab, by role and id of the run: not all of it can be read back. @type {Map<string, Shown>} */
const known = new Map();

/** That of the last run. */
let concluded = Promise.resolve();

export const chat = {
  /** @type {{id: string, description: string}[]} */ agents: [],
  agent: "",
  /** The key of the session, once it has one. */ key: "",
  title: "",
  /** @type {Shown[]} */ messages: [],
  /** @type {any[]} */ branches: [],
  isStored: false,
  /** When the session was used last, and how much it had, as it was loaded. */ use: "",
  /** Why the conversation cannot be continued here, if so. */ obstacle: "",
  isLoading: false,
  /** Whether a run has ended since the conversation was opened. */ hasEnded: false,
  /** @type {any} */ error: null,
  /** A conversation whose last message was not answered. @type {Shown[]|null} */ failed: null,
  /** @type {{runId: string, after: number, looked: number, note: string, isStopping: boolean, control: AbortController}|null} */ run: null,
  /** Changes with each conversation. */ id: 0,
};

export async function loadAgents() {
  const { data } = await getJson("/v1/models");
  const named = data.filter(({ id }) => id.startsWith("openclaw/") && id !== "openclaw/default");
  chat.agents = named.map(({ id, description }) => ({ id: id.slice("openclaw/".length), description }));
  if (!chat.key && !chat.agents.some(({ id }) => id === chat.agent)) chat.agent = "";
  const usual = data.find(({ id }) => id === "openclaw")?.description;
  chat.agent ||= chat.agents.find(({ description }) => description === usual)?.id ?? chat.agents[0]?.id ?? "";
  redraw();
}

/** Begin a conversation. */
export function begin() {
  leave();
  const empty = { key: "", title: "", messages: [], branches: [], isStored: false, obstacle: "", error: null, failed: null };
  Object.assign(chat, empty, { id: chat.id + 1, isLoading: false, hasEnded: false });
  redraw();
}

/** Return the message that is not stored yet: no run of the gateway has it, or its answer failed. @returns {Shown|null} */
export function unsent() {
  const last = chat.run && !chat.run.runId ? chat.messages.at(-2) : chat.failed?.at(-1);
  return last?.role === "user" && last.index === null ? last : null;
}

/** Stop following the run of this conversation; it goes on. */
function leave() {
  const run = chat.run;
  chat.run = null;
  run?.control.abort();
}

/** Open a session. @param {string} key @param {number} [branch] */
export async function open(key, branch) {
  begin();
  Object.assign(chat, { key, isLoading: true });
  await openAgain(branch);
}

/** Load what is open, and follow the run that goes on in it. @param {number} [branch] */
async function openAgain(branch) {
  const session = await reload(branch);
  if (branch === undefined && session) joinFirst(session);
}

/** Load the session again, and return it, unless that failed or another one was opened. @param {number} [branch] */
async function reload(branch) {
  const { id, key } = chat;
  try {
    const session = await loadConversation(key, branch);
    if (chat.id !== id || chat.run) return null;
    show(session);
    return session;
  } catch (error) {
    if (chat.id === id) Object.assign(chat, { error, isLoading: false });
  }
  redraw();
  return null;
}

/** Show a session as it is stored. @param {any} session */
function show(session) {
  const shown = toShown(session.messages);
  addEndings(shown, session.endings);
  addKnown(shown, known);
  const { agent, branches } = session;
  Object.assign(chat, { agent, branches, obstacle: obstacleOf(session, shown), messages: shown, isStored: shown.length > 0, error: null });
  Object.assign(chat, { title: session.title ?? "", use: useOf(session), isLoading: false });
  redraw();
}

onEvent((name, payload) => {
  if (name === "sessions.changed") catchUp(payload.sessionKey);
  else if (name === "unwatched" || name === "open") lookAgain();
});

/** Catch up if the session was used since it was loaded: all of it is loaded only then, or if the gateway was not reached. */
async function lookAgain() {
  await concluded;
  const { key, use } = chat;
  if (!may("read") || chat.run || !key) return;
  if (chat.error?.status === 0 && !chat.failed) return openAgain();
  if (!chat.isStored) return;
  const session = await getJson(sessionPath(key), { limit: 1 }).catch(() => null);
  if (session && chat.key === key && (useOf(session) !== use || session.active_run_ids.length)) await catchUp(key);
}

/** @param {any} session */
const useOf = ({ last_used_at: at, message_count: count }) => `${at} ${count}`;

/** Show what another tab or program adds to the end of the conversation, also as it happens, if nothing goes on here. @param {string} key */
async function catchUp(key) {
  await concluded;
  const { id } = chat;
  const isIdle = () => chat.id === id && chat.key === key && !(chat.run || chat.isLoading || chat.failed);
  if (!may("read") || !isIdle()) return;
  const session = await loadConversation(key).catch(() => null);
  if (!session || !isIdle()) return;
  const stored = toShown(session.messages);
  if (!beginsWith(stored, chat.messages)) return;
  chat.use = useOf(session);
  if (stored.length > chat.messages.length) show(session);
  joinFirst(session);
}

/** Follow the first run that goes on in a session, if there is one. @param {any} session @param {string} [left] a run not to go back to */
function joinFirst({ active_run_ids: ids }, left) {
  const runId = ids.find((/** @type {string} */ id) => id !== left);
  if (runId && !chat.run) join(runId);
}

/** Say why a conversation cannot be sent as a whole, if so. @param {any} session @param {Shown[]} shown */
function obstacleOf(session, shown) {
  if (session.isCut) return "This conversation is too long to be continued here; its first messages are not shown.";
  if (shown.some(({ unreadable }) => unreadable)) return "A message is too long to be shown. Continue where it came from.";
  return hasForeignCalls(session.messages) ? "A program runs functions in this conversation. Continue it there." : "";
}

/** Forget what was said in this tab. */
export const forget = () => known.clear();

/** Send a message. @param {string} text @param {string[]} pictures */
export const send = (text, pictures) => answer(() => [...chat.messages, message("user", { text, pictures })]);

/** Send a message again in place of the one at `place`, with another text. @param {number} place @param {string} text */
export function edit(place, text) {
  return answer(() => [...chat.messages.slice(0, place), { ...chat.messages[place], text, index: null, ending: null }]);
}

/** Ask again for the answer at `place`. @param {number} place */
export const regenerate = (place) => answer(() => chat.messages.slice(0, place));

export const retry = () => answer(() => chat.failed ?? []);

/** Get an answer to a conversation, once what was stored of the last run is known. @param {() => Shown[]} chosen */
async function answer(chosen) {
  await concluded;
  if (chat.run) return;
  const conversation = chosen();
  const given = toRequest(conversation, chat.isStored);
  return carryOut(conversation, (run) => start(run, given));
}

/** Follow a run that goes on in this session; what it answers is not stored yet. @param {string} runId */
function join(runId) {
  return carryOut(chat.messages, (run) => {
    run.runId = runId;
    return call("GET", streamPath(run), { headers: SHOWN, signal: run.control.signal });
  });
}

/** Show a run that answers `conversation` to its end. @param {Shown[]} conversation @param {(run: any) => Promise<Response>} begun */
async function carryOut(conversation, begun) {
  const { id } = chat;
  const before = { messages: chat.messages, isStored: chat.isStored };
  const shown = message("assistant", { isLive: true });
  const run = { runId: "", after: 0, looked: -1, note: "", isStopping: false, control: new AbortController() };
  Object.assign(chat, { messages: [...conversation, shown], run, error: null, failed: null });
  redraw();
  /** @type {any} */
  let error = null;
  try {
    await follow(run, shown, await begun(run));
  } catch (problem) {
    error = problem;
  }
  if (chat.run !== run) return;
  shown.isLive = false;
  if (error && hasContent(shown)) shown.ending = toEnding({ state: stateAfter(error), error: isStop(error) ? null : error });
  Object.assign(chat, { run: null, hasEnded: true });
  const conclusion = conclude({ run, shown, conversation, before, error });
  concluded = conclusion.then(() => {});
  const session = await conclusion;
  redraw();
  if (session && !chat.failed) setTimeout(() => chat.id === id && joinFirst(session, run.runId)); // what was sent meanwhile comes first
}

/** Take over what the gateway has stored of a run that has ended, and return the session if it was read. @param {any} ended */
async function conclude({ run, shown, conversation, before, error }) {
  const { id, messages } = chat;
  const session = may("read") && run.runId ? await reload() : null;
  if (chat.id !== id || chat.run) return null;
  const problem = chat.error;
  if (session ? session.messages.some((one) => one.run_id === run.runId) : hasContent(shown) && !isLost(problem)) {
    const isShown = chat.messages.some(({ runId, ending }) => runId === run.runId && ending);
    const ownError = isShown ? null : error;
    const isRefusal = problem?.code === "missing_scope"; // of reading: the answer is there
    Object.assign(chat, { isStored: true, error: ownError ?? (isRefusal ? null : problem) });
    return session;
  }
  chat.messages = hasContent(shown) ? messages : before.messages;
  chat.isStored = session ? session.messages.length > 0 : before.isStored && !isLost(problem);
  const isJoined = before.messages === conversation;
  chat.error = isJoined && error?.code === "run_events_gone" ? null : (error ?? problem);
  if (!isJoined) chat.failed = conversation;
  return session;
}

/** @param {Shown} shown */
const hasContent = ({ text, steps }) => text !== "" || steps.length > 0;

/** @param {any} error */
const isStop = (error) => error?.code === "run_aborted" || error?.name === "AbortError";

/** Return the state of a run whose answer ended with an error. @param {any} error */
const stateAfter = (error) => (isStop(error) ? "aborted" : error.status === 0 || error.code === "run_interrupted" ? "interrupted" : "error");

/** @param {any} error */
const isLost = (error) => error?.code === "session_not_found";

/** @param {any} run @param {any[]} messages */
async function start(run, messages) {
  chat.key ||= `page:${newId()}`;
  const headers = { "x-openclaw-session-key": toHeader(chat.key), ...SHOWN };
  if (may("write")) headers["x-openclaw-on-disconnect"] = "continue";
  const body = { model: `openclaw/${chat.agent}`, messages, stream: true, stream_options: { include_usage: true } };
  const response = await call("POST", "/v1/chat/completions", { body, headers, signal: run.control.signal });
  run.runId = response.headers.get("x-openclaw-run-id") ?? "";
  chat.key = decodeURIComponent(response.headers.get("x-openclaw-session-key") ?? chat.key);
  if (/^(#\/chat.*)?$/.test(location.hash)) history.replaceState(null, "", `#/chat/${encodeURIComponent(chat.key)}`);
  return response;
}

/** Show the chunks of a stream to its end; go on behind the last one when the connection breaks. @param {any} run @param {Shown} shown @param {Response} response */
async function follow(run, shown, response) {
  shown.runId = run.runId;
  known.set(`assistant${run.runId}`, shown);
  const asked = chat.messages.at(-2);
  if (asked?.role === "user") known.set(`user${run.runId}`, asked);
  let source = response;
  while (!(await isWhole(run, shown, source))) {
    if (!may("write") || !run.runId) throw new ApiError(0, { message: "The connection broke before the answer was complete." });
    source = await resume(run);
  }
}

/** @param {any} run @param {Shown} shown @param {Response} response */
async function isWhole(run, shown, response) {
  try {
    for await (const { data } of readEvents(response)) {
      if (data === "[DONE]") return true;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(200, chunk.error);
      run.note = "";
      run.after = chunk.openclaw?.sequence_number || run.after;
      addChunk(shown, chunk);
      redraw();
    }
  } catch (error) {
    if (!(error instanceof ApiError) || error.status) throw error;
  }
  return false;
}

/** Where the rest of a run's stream is. @param {any} run */
const streamPath = ({ runId, after }) => `/v1/runs/${encodeURIComponent(runId)}/chat-stream?after=${after}&include_usage=true`;

/** @param {any} run @returns {Promise<Response>} */
async function resume(run) {
  run.note = BROKEN;
  redraw();
  for (const seconds of RECONNECT_SECONDS) {
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    try {
      return await call("GET", streamPath(run), { headers: SHOWN, signal: run.control.signal });
    } catch (error) {
      if (!(error instanceof ApiError) || (error.status && error.status !== 503)) throw error;
    }
  }
  throw new ApiError(0, { message: UNREACHABLE });
}

/** While nothing comes, find out what the run waits for. */
async function findWait() {
  const { run } = chat;
  if (!run?.runId || !may("read") || run.note === BROKEN) return;
  const { after, looked } = run;
  run.looked = after;
  if (after !== looked) return;
  const { state } = await getJson(`/v1/runs/${encodeURIComponent(run.runId)}`).catch(() => ({ state: "" }));
  if (run.after !== after || run.note === BROKEN) return;
  run.note = WAITS[/** @type {"queued"} */ (state)] ?? "";
  redraw();
}

setInterval(findWait, LOOK_MS);

/** The id of a new session; not every address of a page has `randomUUID`. */
const newId = () => [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** End the run. */
export async function stop() {
  const run = chat.run;
  if (!run) return;
  run.isStopping = true;
  redraw();
  if (!may("write") || !run.runId) return run.control.abort();
  try {
    await postJson(`/v1/runs/${run.runId}/cancel`);
  } catch (error) {
    if (!(error instanceof ApiError) || error.code !== "run_ended") chat.error = /** @type {Error} */ (error);
  }
  redraw();
}
