// @ts-check
/** Calls of the gateway's HTTP API, as openapi.yaml describes it. The secret stays in this tab until it is closed. */

const SECRET = "openclaw.secret";
/** After so long, reading makes room for drawing. */
const BUSY_MS = 8;

/** A refusal, in the gateway's own words; `status` 0 if the gateway could not be reached. */
export class ApiError extends Error {
  /** @param {number} status @param {{message: string, code?: string|null}} error @param {number|null} retryAfter */
  constructor(status, error, retryAfter = null) {
    super(error.message);
    this.status = status;
    this.code = error.code ?? "";
    this.retryAfter = retryAfter;
  }
}

export const UNREACHABLE = "The gateway cannot be reached. It may be restarting.";

/** @type {(error: ApiError) => void} */
let refused = () => {};

/** Set what happens when the secret is refused. @param {(error: ApiError) => void} fn */
export function onRefused(fn) {
  refused = fn;
}

export const secret = () => sessionStorage.getItem(SECRET) ?? "";

/** @param {string} value */
export function keepSecret(value) {
  if (value) sessionStorage.setItem(SECRET, value);
  else sessionStorage.removeItem(SECRET);
}

/**
 * Send a request and return its response; throws `ApiError`, or `AbortError`.
 * @param {string} method @param {string} path
 * @param {{body?: unknown, headers?: Record<string, string>, signal?: AbortSignal}} options
 */
export async function call(method, path, { body, headers = {}, signal } = {}) {
  const sent = { ...headers };
  if (secret()) sent.Authorization = `Bearer ${secret()}`;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  const text = body === undefined ? undefined : JSON.stringify(body);
  let response;
  try {
    response = await fetch(path, { method, headers: sent, body: text, signal, cache: "no-store" });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, { message: UNREACHABLE });
  }
  if (response.ok) return response;
  const error = await toError(response);
  if (error.status === 401) refused(error);
  throw error;
}

/** @param {Response} response */
async function toError(response) {
  const after = response.headers.get("Retry-After");
  const body = await response.json().catch(() => null);
  const error = body?.error ?? { message: `The gateway answered with status ${response.status}.` };
  return new ApiError(response.status, error, after === null ? null : Number(after));
}

/** Get JSON. @param {string} path @param {Record<string, unknown>} query */
export async function getJson(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return (await call("GET", text ? `${path}?${text}` : path)).json();
}

/** Post JSON and return the answer's. @param {string} path @param {unknown} [body] */
export const postJson = async (path, body) => (await call("POST", path, { body })).json();

/**
 * Read Server-Sent Events; throws `ApiError` if the connection breaks.
 * @param {Response} response @returns {AsyncGenerator<{id: string, event: string, data: string}>}
 */
export async function* readEvents(response) {
  const reader = /** @type {ReadableStream} */ (response.body).pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let began = performance.now();
  try {
    while (true) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = /** @type {string} */ (blocks.pop());
      for (const block of blocks) {
        const event = toEvent(block);
        if (event.data) yield event;
        if (performance.now() - began > BUSY_MS) {
          await new Promise((resolve) => setTimeout(resolve));
          began = performance.now();
        }
      }
    }
  } catch (error) {
    if (error instanceof ApiError || /** @type {Error} */ (error).name === "AbortError") throw error;
    throw new ApiError(0, { message: UNREACHABLE });
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** @param {string} block */
function toEvent(block) {
  const event = { id: "", event: "", data: "" };
  for (const line of block.split("\n")) {
    const [name, value] = [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).replace(/^ /, "")];
    if (name === "id" || name === "event") event[name] = value;
    else if (name === "data") event.data += event.data ? `\n${value}` : value;
  }
  return event;
}

/** Return a session's path. @param {string} key */
export const sessionPath = (key) => `/v1/sessions/${encodeURIComponent(key)}`;

/** Return a session's key for a header: other than printable ASCII is percent-encoded. @param {string} key */
export const toHeader = (key) => key.replace(/[^!-$&-~]+/gu, encodeURIComponent);
