// Streams of a gateway that go on where they were when a connection breaks.
//
// A connection that breaks is opened again behind the last event, up to ATTEMPTS times in a row, also where the answer is
// that the gateway, or a proxy before it, is busy or gone for a while; nothing is missed, and nothing comes twice. An
// error status, and an error inside a stream, is thrown as a GatewayError.
import { toEnvelope } from "./envelopes.js";
import type { components } from "./gateway.js";

type Schemas = components["schemas"];

export const ATTEMPTS = 5;
const PAUSE_SECONDS = 0.2;
const LONGEST_PAUSE_SECONDS = 30;
const TEMPORARY = [429, 502, 503, 504];

/** Where a gateway is, and the token for it. */
export interface Connection {
  baseUrl: string;
  token: string;
}

/**
 * An error that the gateway has answered with; `status` is null if it came inside a stream. A request may be sent again
 * after `retryAfter` seconds, where the gateway says so.
 */
export class GatewayError extends Error {
  constructor(
    readonly status: number | null,
    readonly error: Schemas["ErrorDetails"],
    readonly retryAfter = 0,
  ) {
    super(error.message);
  }
}

interface Fields {
  id?: string;
  event?: string;
  data?: string;
}

/** A stream across its connections: what to request, and what an event says unless it has come before. */
interface Stream<Event> {
  request(): { path: string; headers?: Record<string, string>; body?: unknown };
  opened(headers: Headers): void;
  decode(fields: Fields): Event | undefined;
  resumable: boolean;
  ended: boolean;
}

/** Return the request that asks the default agent a question. */
export function ask(question: string): Schemas["ChatCompletionRequest"] {
  return { messages: [{ role: "user", content: question }] };
}

/** Run an agent on a conversation, and yield the chunks of its answer. The run goes on while no client is connected. */
export function chatStream(
  connection: Connection,
  body: Schemas["ChatCompletionRequest"],
  headers: Record<string, string> = {},
): AsyncGenerator<Schemas["ChatCompletionChunk"]> {
  let runId = "";
  const progress = new ChatProgress();
  const sent = { "x-openclaw-on-disconnect": "continue", ...headers };
  const usage = body.stream_options?.include_usage ?? false;
  return read(connection, {
    resumable: false,
    ended: false,
    request: () =>
      runId
        ? {
            path: `/v1/runs/${encodeURIComponent(runId)}/chat-stream?after=${progress.after}&include_usage=${usage}`,
            headers: sent,
          }
        : { path: "/v1/chat/completions", headers: sent, body: { ...body, stream: true } },
    opened(head) {
      progress.connected();
      runId ||= head.get("x-openclaw-run-id") ?? "";
      this.resumable = runId !== "";
    },
    decode(fields) {
      const data: Schemas["ChatCompletionChunk"] | Schemas["ErrorEnvelope"] = JSON.parse(fields.data ?? "");
      if ("error" in data) throw new GatewayError(null, data.error);
      return progress.isNew(data) ? data : undefined;
    },
  });
}

/**
 * What has come of a chat stream across its connections.
 *
 * A resumed stream begins with the role. It repeats what has no number behind it: the beginning of a call, in other
 * pieces, and the usage.
 */
class ChatProgress {
  after = 0;
  private number = 0;
  private hasRole = false;
  private readonly calls = new Map<number, number>(); // characters of their arguments
  private readonly repeated = new Map<number, number>(); // of these, what this connection has brought

  /** Begin with the next connection. */
  connected(): void {
    this.repeated.clear();
  }

  /** Cut what has come before from a chunk, and return whether there is more in it. */
  isNew(chunk: Schemas["ChatCompletionChunk"]): boolean {
    const number = chunk.openclaw?.sequence_number ?? 0;
    if (number > 0 && number <= this.number) return false;
    this.number = Math.max(number, this.number);
    const hasEnded = chunk.choices.some((choice) => choice.finish_reason);
    // The usage comes behind the end, without a number.
    if (number > 0 || !chunk.choices.length) this.after = this.number - Number(hasEnded);
    let isNew = true;
    for (const { delta } of chunk.choices) {
      if (delta.role) {
        isNew = !this.hasRole;
        this.hasRole = true;
      }
      for (const call of delta.tool_calls ?? []) isNew = this.cut(call) || number > 0;
    }
    return isNew;
  }

  private cut(call: Schemas["ToolCallDelta"]): boolean {
    const text = call.function.arguments;
    const known = this.calls.get(call.index);
    const begin = this.repeated.get(call.index) ?? 0;
    this.repeated.set(call.index, begin + text.length);
    this.calls.set(call.index, Math.max(begin + text.length, known ?? 0));
    call.function.arguments = text.slice(Math.max((known ?? 0) - begin, 0));
    return known === undefined || call.function.arguments !== "";
  }
}

/** Yield the events of a run behind the number `after`, until `run.ended`. */
export function runEvents(connection: Connection, runId: string, after = 0): AsyncGenerator<Schemas["RunEvent"]> {
  let last = String(after);
  return read(connection, {
    resumable: true,
    ended: false,
    request: () => ({ path: `/v1/runs/${encodeURIComponent(runId)}/events`, headers: { "Last-Event-ID": last } }),
    opened() {},
    decode(fields) {
      last = fields.id ?? last;
      this.ended = fields.event === "run.ended";
      return JSON.parse(fields.data ?? "");
    },
  });
}

/** Create a response in the background, and yield its events. */
export function responseEvents(
  connection: Connection,
  body: Schemas["ResponseRequest"],
  headers: Record<string, string> = {},
): AsyncGenerator<Schemas["ResponseEvent"]> {
  let id = "";
  let behind = "";
  return read(connection, {
    resumable: false,
    ended: false,
    request: () =>
      id
        ? { path: `/v1/responses/${encodeURIComponent(id)}?stream=true${behind}`, headers }
        : { path: "/v1/responses", headers, body: { ...body, stream: true, background: true } },
    opened(head) {
      id ||= (head.get("x-openclaw-run-id") ?? "").replace("chatcmpl_", "resp_");
      this.resumable = id !== "";
    },
    decode(fields) {
      const event: Schemas["ResponseEvent"] = JSON.parse(fields.data ?? "");
      behind = `&starting_after=${event.sequence_number}`;
      return event;
    },
  });
}

async function* read<Event>(connection: Connection, stream: Stream<Event>): AsyncGenerator<Event> {
  let failures = 0;
  while (!stream.ended) {
    let broken: unknown;
    try {
      for await (const fields of events(await open(connection, stream))) {
        if (fields.data === "[DONE]") {
          stream.ended = true;
          continue;
        }
        const event = stream.decode(fields);
        if (event === undefined) continue;
        failures = 0;
        yield event;
      }
    } catch (error) {
      broken = error;
    }
    if (stream.ended) return;
    failures += 1;
    const isFinal = broken instanceof GatewayError && !TEMPORARY.includes(broken.status ?? 0);
    if (isFinal || !stream.resumable || failures > ATTEMPTS) {
      throw broken ?? new Error("The stream ended before its end.");
    }
    const wanted = broken instanceof GatewayError ? broken.retryAfter : 0;
    const seconds = Math.max(PAUSE_SECONDS * 2 ** (failures - 1), Math.min(wanted, LONGEST_PAUSE_SECONDS));
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  }
}

async function open<Event>(connection: Connection, stream: Stream<Event>): Promise<ReadableStream<Uint8Array> | null> {
  const { path, headers, body } = stream.request();
  const response = await fetch(connection.baseUrl.replace(/\/+$/, "") + path, {
    method: body === undefined ? "GET" : "POST",
    headers: { Authorization: `Bearer ${connection.token}`, "Content-Type": "application/json", ...headers },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (!response.ok) {
    const { error } = await toEnvelope(response);
    throw new GatewayError(response.status, error, Number(response.headers.get("retry-after")) || 0);
  }
  if (response.status === 204) stream.ended = true;
  stream.opened(response.headers);
  return response.body;
}

/** Yield the events of a body, as their fields; one that is not complete is left out. */
async function* events(body: ReadableStream<Uint8Array> | null): AsyncGenerator<Fields> {
  const decoder = new TextDecoder();
  let text = "";
  let afterReturn = false;
  let fields: Record<string, string> = {};
  for await (const bytes of (body ?? []) as unknown as AsyncIterable<Uint8Array>) {
    let more = decoder.decode(bytes, { stream: true });
    if (more === "") continue;
    if (afterReturn && more.startsWith("\n")) more = more.slice(1);
    afterReturn = more.endsWith("\r");
    const lines = more.split(/\r\n?|\n/);
    lines[0] = text + lines[0];
    text = lines.pop() ?? "";
    for (const line of lines) {
      const [name, ...value] = line.split(":");
      if (name) fields[name] = value.join(":").replace(/^ /, "");
      else if (!value.length && fields.data !== undefined) {
        yield fields;
        fields = {};
      }
    }
  }
}
