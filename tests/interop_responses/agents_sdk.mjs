import { Agent, OpenAIResponsesModel, run, setTracingDisabled, tool } from "@openai/agents";
import OpenAI from "openai";
import { z } from "zod";

setTracingDisabled(true);
const modelOf = (behaviour) => {
  const defaultHeaders = { "x-openclaw-model": `scripted/${behaviour}` };
  const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: process.env.API_KEY, defaultHeaders });
  return new OpenAIResponsesModel(client, "openclaw");
};
const weather = tool({ name: "weather", description: "The weather.", parameters: z.object({}), execute: async () => "sunny" });
const asking = new Agent({ name: "asking", model: modelOf("tools"), tools: [weather] });
const last = new Agent({ name: "last", model: modelOf("echo") });
const first = new Agent({ name: "first", model: modelOf("tools"), handoffs: [last] });

const said = { loop: (await run(asking, "what is it like")).finalOutput };
said.handedTo = (await run(first, "pass me on")).lastAgent.name;
const stream = await run(asking, "what is it like", { stream: true });
said.streamed = "";
for await (const piece of stream.toTextStream()) said.streamed += piece;
await stream.completed;
console.log(JSON.stringify(said));
