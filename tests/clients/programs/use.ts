// What a TypeScript program does with the client: called with a gateway's address, it prints a line for each.
import { randomUUID } from "node:crypto";
import {
  type Schemas,
  chatStream,
  createGatewayClient,
  responseEvents,
  runEvents,
} from "openclaw-client";

const SLOW = { "x-openclaw-model": "scripted/slow" };
const TOOLS = { "x-openclaw-model": "scripted/tools" };
const connection = { baseUrl: process.argv[2], token: process.env.OPENCLAW_GATEWAY_TOKEN ?? "" };
const client = createGatewayClient(connection.baseUrl, connection.token);

function ask(text: string): Schemas["ChatCompletionRequest"] {
  return { model: "openclaw", messages: [{ role: "user", content: text }] };
}

async function complete(
  body: Schemas["ChatCompletionRequest"],
  header: Record<string, string> = {},
): Promise<Schemas["ChatCompletion"]> {
  const { data, error } = await client.POST("/v1/chat/completions", { body, params: { header } });
  if (!data) throw new Error(error?.error.message);
  return data;
}

async function showChat(): Promise<void> {
  console.log("chat:", (await complete(ask("hi"))).choices[0].message.content);
}

async function showStream(): Promise<void> {
  let text = "";
  for await (const chunk of chatStream(connection, ask("hi"), SLOW)) text += chunk.choices[0]?.delta.content ?? "";
  console.log("stream:", text);
}

async function showTool(): Promise<void> {
  const tools: Schemas["Tool"][] = [{ type: "function", function: { name: "weather" } }];
  const question: Schemas["UserMessage"] = { role: "user", content: "how is it outside?" };
  const { message } = (await complete({ messages: [question], tools }, TOOLS)).choices[0];
  const call = message.tool_calls?.[0];
  if (!call) throw new Error("no call");
  const result: Schemas["ToolMessage"] = { role: "tool", tool_call_id: call.id, content: "sunny" };
  const answer = await complete({ messages: [question, message, result], tools }, TOOLS);
  console.log("tool:", call.function.name, answer.choices[0].message.content);
}

async function showRun(): Promise<void> {
  const { data: run } = await client.POST("/v1/runs", { body: { input: "hi", model: "scripted/slow" } });
  let text = "";
  for await (const event of runEvents(connection, run?.id ?? "")) {
    if (event.type === "text.delta") text += event.text;
    else if (event.type === "run.ended") console.log("run:", text, event.type, event.state);
  }
}

async function showResponse(): Promise<void> {
  let text = "";
  for await (const event of responseEvents(connection, { model: "openclaw", input: "hi" }, SLOW)) {
    if (event.type === "response.output_text.delta") text += event.delta;
    else if (event.type === "response.completed") console.log("response:", text, event.type);
  }
}

async function showSession(): Promise<void> {
  const key = `client-${randomUUID()}`;
  const session = { "x-openclaw-session-key": key };
  await complete(ask("one"), session);
  await complete(ask("two"), session);
  const params = { path: { key } };
  const { data } = await client.GET("/v1/sessions/{key}", { params });
  const { data: fork } = await client.POST("/v1/sessions/{key}/fork", { params, body: {} });
  console.log("session:", data?.message_count, fork?.message_count);
}

async function showError(): Promise<void> {
  const { error, response } = await client.POST("/v1/chat/completions", { body: { ...ask("hi"), model: "gpt-4o" } });
  console.log("error:", response.status, error?.error.code, error?.error.param);
}

async function showRetry(): Promise<void> {
  const key = { "Idempotency-Key": randomUUID() };
  const same = (await complete(ask("hi"), key)).id === (await complete(ask("hi"), key)).id;
  console.log("retry:", same ? "True" : "False");
}

for (const show of [showChat, showStream, showTool, showRun, showResponse, showSession, showError, showRetry]) {
  await show();
}
