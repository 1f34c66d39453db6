import { createOpenAI } from "@ai-sdk/openai";
import { generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const model = createOpenAI({ baseURL: process.env.BASE_URL, apiKey: process.env.API_KEY })("openclaw");
const weather = tool({ description: "The weather.", inputSchema: z.object({}), execute: async () => "sunny" });
const asking = {
  model,
  prompt: "what is it like",
  tools: { weather },
  stopWhen: stepCountIs(3),
  headers: { "x-openclaw-model": "scripted/tools" },
};
const read = async (stream) => {
  let text = "";
  for await (const piece of stream.textStream) text += piece;
  return text;
};

const whole = await generateText({ model, prompt: "hello there" });
const stream = streamText({ model, prompt: "hello there" });
const loop = await generateText(asking);
console.log(
  JSON.stringify({
    generated: [whole.text, whole.finishReason, whole.usage.totalTokens],
    streamed: [await read(stream), await stream.finishReason],
    loop: [loop.text, loop.steps.length],
    streamedLoop: await read(streamText(asking)),
  }),
);
