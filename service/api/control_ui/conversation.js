// @ts-check
/**
 * A conversation as it is shown, made of a session's stored messages, and as it is sent: the page always brings the whole
 * conversation, so that the gateway finds by itself where it goes on, or where a branch begins (docs/sessions.md).
 *
 * @typedef {{id: string, name: string, label: string, arguments: string, result: string|null, ok: boolean|null, ms: number|null,
 *   textAt: number, reasoningAt: number}} Step a call of a tool, made after so many characters of the answer's text and reasoning
 * @typedef {{role: "user"|"assistant", text: string, pictures: string[], reasoning: string, steps: Step[], index: number|null,
 *   runId: string, unreadable: boolean, usage?: any, isLive?: boolean, ending?: Ending|null}} Shown
 * @typedef {{word: string, message: string, code: string}} Ending why a run has no whole answer
 */

const WORDS = { aborted: "stopped", error: "failed", interrupted: "interrupted" };
const CUTS = { length: "The limit of tokens was reached.", content_filter: "The provider's filter withheld the rest." };

/** Return why a run has no whole answer, null if it has one or goes on. @param {any} run @returns {Ending|null} */
export function toEnding({ state, error = null, finish_reason: reason = null }) {
  if (reason in CUTS) return { word: "cut off", message: CUTS[reason], code: "" };
  if (!(state in WORDS)) return null;
  const { code = "", message = "" } = error ?? {};
  return { word: WORDS[state], ...(code === "run_aborted" ? { message: "", code: "" } : { message, code }) };
}

/** Give the last message of each run why the run has no whole answer. @param {Shown[]} shown @param {Map<string, Ending>} endings by run */
export function addEndings(shown, endings) {
  for (const [place, one] of shown.entries()) {
    if (shown[place + 1]?.runId !== one.runId) one.ending = endings.get(one.runId);
  }
}

/** @param {"user"|"assistant"} role @param {Partial<Shown>} given @returns {Shown} */
export const message = (role, given = {}) => ({
  ...{ role, text: "", pictures: [], reasoning: "", steps: [], index: null, runId: "", unreadable: false },
  ...given,
});

/** Return what is shown of stored messages: an answer with its tools is one message. @param {any[]} stored @returns {Shown[]} */
export function toShown(stored) {
  /** @type {Shown[]} */
  const shown = [];
  for (const one of stored) {
    const last = shown.at(-1);
    if (one.role === "user") shown.push(toUser(one));
    else if (last?.role === "assistant" && last.runId === one.run_id) extend(last, one);
    else if (one.role !== "system") extend(shown[shown.push(message("assistant", { runId: one.run_id })) - 1], one);
  }
  return shown;
}

/** Return true if `stored` begins with all that is `shown`. @param {Shown[]} stored @param {Shown[]} shown */
export const beginsWith = (stored, shown) =>
  stored.length >= shown.length && shown.every(({ role, runId }, place) => stored[place].role === role && stored[place].runId === runId);

/** Return true if a program has carried out functions of its own for stored messages. @param {any[]} stored */
export function hasForeignCalls(stored) {
  const own = new Set(stored.flatMap(({ run_id: run, tool_calls: calls }) => calls.map(({ id }) => `${run} ${id}`)));
  return stored.some(({ role, run_id: run, tool_call_id: id }) => role === "tool" && !own.has(`${run} ${id}`));
}

/** @param {Shown} answer @param {{id: string, name: string, label: string, arguments: string}} call */
function addStep({ steps, text, reasoning }, call) {
  steps.push({ ...call, result: null, ok: null, ms: null, textAt: text.length, reasoningAt: reasoning.length });
}

/** @typedef {Pick<Shown, "text"|"reasoning"|"steps">} Said */

/** Providers may number their calls anew in each step. @param {Said} said @param {string} id */
export const lastStep = ({ steps }, id) => steps.findLast((step) => step.id === id);

/** Return an answer in the order of what happened: texts and reasoning that end with a call of a tool, and the last ones. @param {Said} said */
export function toPieces({ text, reasoning, steps }) {
  const from = { text: 0, reasoning: 0 };
  /** @param {"text"|"reasoning"} name @param {number} [end] */
  const next = (name, end) => {
    const [whole, start] = [{ text, reasoning }[name], from[name]];
    from[name] = Math.max(start, end ?? whole.length);
    return whole.slice(start, from[name]).replace(/^\n+/, "");
  };
  const pieces = steps.map((step) => ({ text: next("text", step.textAt), reasoning: next("reasoning", step.reasoningAt), step }));
  return [...pieces, { text: next("text"), reasoning: next("reasoning"), step: null }];
}

/** Add a chunk of a stream to the answer that is shown. @param {Shown} answer @param {any} chunk */
export function addChunk(answer, chunk) {
  const { delta, finish_reason: reason } = chunk.choices[0] ?? {};
  if (delta?.reasoning_content) answer.reasoning += delta.reasoning_content;
  if (delta?.content) answer.text += delta.content;
  if (reason) answer.ending = toEnding({ state: "ok", finish_reason: reason });
  if (chunk.usage) answer.usage = chunk.usage;
  const { type, tool_call_id: id, name, label, ok, duration_ms: ms } = chunk.openclaw ?? {};
  if (type === "tool.started") addStep(answer, { id, name, label, arguments: "" });
  else if (type === "tool.ended") Object.assign(lastStep(answer, id) ?? {}, { ok, ms });
}

/** @param {any} stored */
function toUser(stored) {
  const parts = stored.content ?? [];
  const pictures = parts.filter((part) => part.type === "image_url").map((part) => part.image_url.url);
  const given = { text: textOf(parts), pictures, index: stored.index, runId: stored.run_id };
  return message("user", { ...given, unreadable: stored.content === null });
}

/** @param {any[]} parts */
const textOf = (parts) => parts.filter((part) => part.type === "text").map((part) => part.text).join("");

/** @param {Shown} answer @param {any} stored */
function extend(answer, stored) {
  answer.index = stored.index;
  const text = textOf(stored.content ?? []);
  if (stored.role === "tool") {
    const result = stored.content === null ? "(too long to be shown)" : text;
    Object.assign(lastStep(answer, stored.tool_call_id) ?? {}, { result, ms: stored.duration_ms });
    return;
  }
  answer.unreadable ||= stored.content === null && stored.tool_calls.length === 0;
  if (text) answer.text += answer.text ? `\n\n${text}` : text;
  for (const { id, function: { name, arguments: given } } of stored.tool_calls) {
    addStep(answer, { id, name, label: name, arguments: given });
  }
}

/**
 * Give loaded messages what only this tab knows: reasoning, and contents that are too long to be read back. `known` has
 * the messages of runs by `role` and id of the run.
 * @param {Shown[]} shown @param {Map<string, Shown>} known
 */
export function addKnown(shown, known) {
  for (const one of shown) {
    const seen = known.get(one.role + one.runId);
    if (!seen) continue;
    if (one.unreadable) Object.assign(one, { text: seen.text, pictures: seen.pictures, unreadable: false });
    Object.assign(one, { reasoning: seen.reasoning, usage: seen.usage, ending: one.ending === undefined ? seen.ending : one.ending });
    const left = [...seen.steps];
    for (const step of one.steps) {
      const place = left.findIndex(({ id }) => id === step.id);
      if (place < 0) continue;
      const [{ ok, reasoningAt }] = left.splice(place, 1);
      Object.assign(step, { ok, reasoningAt });
    }
  }
}

/**
 * Return the messages of a request for the conversation `shown`, whose last one is to be answered.
 *
 * A message without an answer before it would be taken for a new one of the session; an empty answer, which counts for
 * nothing else, says that this is the whole conversation. `isStored`: the session has messages.
 * @param {Shown[]} shown @param {boolean} isStored
 */
export function toRequest(shown, isStored) {
  const messages = shown.map((one) => ({ role: one.role, content: toContent(one) }));
  const hasAnswer = shown.some(({ role, text }) => role === "assistant" && text);
  return isStored && !hasAnswer ? [{ role: "assistant", content: "" }, ...messages] : messages;
}

/** @param {Shown} one */
function toContent({ text, pictures }) {
  if (pictures.length === 0) return text;
  const shown = pictures.map((url) => ({ type: "image_url", image_url: { url } }));
  return text ? [{ type: "text", text }, ...shown] : shown;
}

/** Return a conversation as Markdown. @param {string} title @param {Shown[]} shown @param {boolean} isCut whether its first messages are left out */
export function toMarkdown(title, shown, isCut) {
  const parts = shown.map((one) => {
    const { role, pictures, unreadable } = one;
    const said = toPieces(one).flatMap(({ text, step }) => [text, step ? `*(used ${step.name})*` : ""]).filter(Boolean).join("\n\n");
    const seen = pictures.length ? `\n\n*(${pictures.length} pictures)*` : "";
    const missing = unreadable ? "*(This message is too long for this file; `openclaw sessions export` has it.)*" : "";
    return `## ${role === "user" ? "User" : "Agent"}\n\n${said}${missing}${seen}`;
  });
  const earlier = isCut ? "*(The first messages are too many for this file; `openclaw sessions export` has them.)*\n\n" : "";
  return `# ${title}\n\n${earlier}${parts.join("\n\n")}\n`;
}
