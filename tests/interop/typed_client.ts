import createClient from "openapi-fetch";
import type { components, paths } from "./gateway.js";

type Schemas = components["schemas"];

const client = createClient<paths>({
  baseUrl: process.argv[2],
  headers: { Authorization: `Bearer ${process.env.OPENCLAW_GATEWAY_TOKEN}` },
});
const messages = [{ role: "user" as const, content: "hi" }];

const whole = await client.POST("/v1/chat/completions", { body: { messages } });
const text: string | null | undefined = whole.data?.choices[0].message.content;
console.log(text);

const streamed = await client.POST("/v1/chat/completions#stream", {
  body: { messages, stream: true },
  parseAs: "text",
});
let pieces = "";
for (const line of (streamed.data ?? "").split("\n")) {
  if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
  const event: Schemas["ChatCompletionChunk"] | Schemas["ErrorEnvelope"] = JSON.parse(line.slice("data: ".length));
  if ("error" in event) throw new Error(event.error.message);
  pieces += event.choices[0]?.delta.content ?? "";
}
console.log(pieces);

const refused = await client.POST("/v1/chat/completions", { body: { messages, model: "openclaw:nobody" } });
const code: Schemas["ErrorCode"] | undefined = refused.error?.error.code;
console.log(code);
