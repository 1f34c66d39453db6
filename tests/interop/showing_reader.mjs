// Reads a stream of the gateway with the library that is the argument, and prints its text and calls as JSON.
const baseURL = process.env.BASE_URL;
const apiKey = process.env.OPENCLAW_GATEWAY_TOKEN;
const headers = { "x-openclaw-events": process.env.EVENTS };
const messages = [{ role: "user", content: "How is the weather?" }];
const parameters = {
  type: "object",
  properties: { city: { type: "string" }, days: { type: "array", items: { type: "integer" } } },
};
const tools = [{ type: "function", function: { name: "weather", parameters } }];

const readers = {
  async openai() {
    const { default: OpenAI } = await import("openai");
    const client = new OpenAI({ baseURL, apiKey, defaultHeaders: headers });
    const stream = client.chat.completions.stream({ model: "openclaw", messages, tools });
    const { message } = (await stream.finalChatCompletion()).choices[0];
    const calls = message.tool_calls.map((call) => [call.function.name, JSON.parse(call.function.arguments)]);
    return { text: message.content, calls };
  },

  async "ai-sdk"() {
    const { createOpenAICompatible } = await import("@ai-sdk/openai-compatible");
    const { jsonSchema, streamText, tool } = await import("ai");
    const provider = createOpenAICompatible({ name: "openclaw", baseURL, apiKey, headers });
    const weather = tool({ inputSchema: jsonSchema(parameters) });
    const result = streamText({
      model: provider("openclaw"),
      messages,
      tools: { weather },
      onError: ({ error }) => {
        throw error;
      },
    });
    await result.consumeStream();
    const calls = (await result.toolCalls).map((call) => [call.toolName, call.input]);
    return { text: await result.text, calls };
  },

  async langchain() {
    const { ChatOpenAI } = await import("@langchain/openai");
    const model = new ChatOpenAI({ model: "openclaw", apiKey, configuration: { baseURL, defaultHeaders: headers } });
    let whole;
    for await (const chunk of await model.bindTools(tools).stream(messages)) {
      whole = whole === undefined ? chunk : whole.concat(chunk);
    }
    return { text: whole.content, calls: whole.tool_calls.map((call) => [call.name, call.args]) };
  },
};

process.stdout.write(JSON.stringify(await readers[process.argv[2]]()));
