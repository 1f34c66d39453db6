import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: process.env.API_KEY });
const said = {};

const first = await client.responses.create({ model: "openclaw", input: "hello" });
said.created = first.output_text;
const stream = client.responses.stream({ model: "openclaw", input: "two words" });
said.deltas = "";
for await (const event of stream) {
  if (event.type === "response.output_text.delta") said.deltas += event.delta;
}
said.streamed = (await stream.finalResponse()).output_text;
said.retrieved = (await client.responses.retrieve(first.id)).output_text;
said.continued = (await client.responses.create({ input: "more", previous_response_id: first.id })).usage.input_tokens;
said.items = (await client.responses.inputItems.list(first.id)).data.map((item) => item.type);
const stuck = { headers: { "x-openclaw-model": "scripted/stuck" } };
const begun = await client.responses.create({ model: "openclaw", input: "hi", background: true }, stuck);
said.cancelled = (await client.responses.cancel(begun.id)).status;
const pet = zodTextFormat(z.object({ name: z.string() }), "pet");
said.parsed = (await client.responses.parse({ model: "openclaw", input: '{"name": "Rex"}', text: { format: pet } })).output_parsed;
await client.responses.delete(first.id);
said.deleted = await client.responses.retrieve(first.id).then(() => null, (error) => error.code);
console.log(JSON.stringify(said));
