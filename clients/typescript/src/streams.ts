// Streams of a gateway that go on where they were when a connection breaks.
//
// A connection that breaks is opened again behind the last event, up to ATTEMPTS times in a row; nothing is missed, and
// nothing comes twice. An error status, and an error inside a stream, is thrown as a GatewayError.
import type { components } from "./gateway.js";

type Schemas = components["schemas"];

export const ATTEMPTS = 5;
const PAUSE_MILLISECONDS = 200;

/** Where a gateway is, and the token for it. */
export interface Connection {
  baseUrl: string;
  token: string;
}

/** An error that the gateway has answered with; `status` is null if it came inside a stream. */
export class GatewayError extends Error {
  constructor(
    readonly status: number | null,
    readonly error: Schemas["ErrorDetails"],
  ) {
    super(error.message);
  }
}

interface Fields {
  id?: string;
  event?: string;
  data?: string;
}

/** A stream across its connections: what to request, and what an event says. */
interface Stream<Event> {
  request(): { path: string; headers?: Record<string, string>; body?: unknown };
  opened(headers: Headers): void;
  decode(fields: Fields): Event;
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
  let after = 0;
  const usage = body.stream_options?.include_usage ?? false;
  return read(connection, {
    resumable: false,
    ended: false,
    request: () =>
      runId
        ? { path: `/v1/runs/${encodeURIComponent(runId)}/chat-stream?after=${after}&include_usage=${usage}` }
        : {
            path: "/v1/chat/completions",
            headers: { "x-openclaw-on-disconnect": "continue", ...headers },
            body: { ...body, stream: true },
          },
    opened(head) {
      runId ||= head.get("x-openclaw-run-id") ?? "";
      this.resumable = runId !== "";
    },
    decode(fields) {
      const data: Schemas["ChatCompletionChunk"] | Schemas["ErrorEnvelope"] = JSON.parse(fields.data ?? "");
      if ("error" in data) throw new GatewayError(null, data.error);
      after = data.openclaw?.sequence_number ?? after;
      return data;
    },
  });
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
        ? { path: `/v1/responses/${encodeURIComponent(id)}?stream=true${behind}` }
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
        failures = 0;
        if (fields.data === "[DONE]") stream.ended = true;
        else yield stream.decode(fields);
      }
    } catch (error) {
      if (error instanceof GatewayError) throw error;
      broken = error;
    }
    if (stream.ended) return;
    failures += 1;
    if (!stream.resumable || failures > ATTEMPTS) throw broken ?? new Error("The stream ended before its end.");
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MILLISECONDS * 2 ** (failures - 1)));
  }
}

async function open<Event>(connection: Connection, stream: Stream<Event>): Promise<ReadableStream<Uint8Array>> {
  const { path, headers, body } = stream.request();
  const response = await fetch(connection.baseUrl + path, {
    method: body === undefined ? "GET" : "POST",
    headers: { Authorization: `Bearer ${connection.token}`, "Content-Type": "application/json", ...headers },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (!response.ok || !response.body) {
    const envelope: Schemas["ErrorEnvelope"] = JSON.parse(await response.text());
    throw new GatewayError(response.status, envelope.error);
  }
  stream.opened(response.headers);
  return response.body;
}

/** Yield the events of a body, as their fields; one that is not complete is left out. */
async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<Fields> {
  const decoder = new TextDecoder();
  let text = "";
  let fields: Record<string, string> = {};
  for await (const bytes of body as unknown as AsyncIterable<Uint8Array>) {
    const lines = (text + decoder.decode(bytes, { stream: true })).split("\n");
    text = lines.pop() ?? "";
    for (const line of lines) {
      const [name, ...value] = line.replace(/\r$/, "").split(":");
      if (name) fields[name] = value.join(":").replace(/^ /, "");
      else if (!value.length && fields.data !== undefined) {
        yield fields;
        fields = {};
      }
    }
  }
}
