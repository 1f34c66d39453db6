// Reads streams: called with a gateway's address, a kind and a count, it prints the events of each stream as JSON.
import {
  GatewayError,
  type Schemas,
  chatStream,
  createGatewayClient,
  responseEvents,
  runEvents,
} from "openclaw-client";

const [baseUrl, kind, count] = process.argv.slice(2);
const connection = { baseUrl, token: "a-token-for-tests" };
const question: Schemas["ChatCompletionRequest"] = {
  messages: [{ role: "user", content: "hi" }],
  tools: ["weather", "time"].map((name) => ({ type: "function", function: { name } })),
  stream_options: { include_usage: true },
};

function openStream(): AsyncGenerator<unknown> {
  if (kind === "chat") return chatStream(connection, question, { "x-openclaw-events": "reasoning" });
  if (kind === "response") return responseEvents(connection, { input: "hi" });
  return runEvents(connection, "one", 7);
}

async function read(events: unknown[]): Promise<void> {
  if (kind === "operation") {
    const { error } = await createGatewayClient(baseUrl, connection.token).GET("/v1/models");
    if (error) throw new GatewayError(null, error.error);
  } else {
    for await (const event of openStream()) events.push(event);
  }
}

for (let stream = 0; stream < Number(count); stream += 1) {
  const events: unknown[] = [];
  let error = null;
  try {
    await read(events);
  } catch (failed) {
    if (!(failed instanceof GatewayError)) throw failed;
    error = { status: failed.status, ...failed.error };
  }
  console.log(JSON.stringify({ events, error }));
}
