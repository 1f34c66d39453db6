// OpenClaw's published Node client against a gateway: runs an agent, hears of it, and again after a restart.
// Prints one JSON line for each thing that happens.
import { pathToFileURL } from "node:url";

const directory = pathToFileURL(`${process.env.OPENCLAW_INTEROP_DIR}/node_modules/`);
const { GatewayClient } = await import(new URL("@openclaw/gateway-client/dist/index.mjs", directory));

const say = (kind, value) => process.stdout.write(JSON.stringify({ kind, value }) + "\n");
let connections = 0;

const client = new GatewayClient({
  url: process.env.OPENCLAW_GATEWAY_URL,
  token: process.env.OPENCLAW_GATEWAY_TOKEN,
  scopes: ["operator.write"],
  caps: ["tool-events"],
  onEvent: (event) => say("event", event),
  onGap: (gap) => say("gap", gap),
  onClose: (code, reason) => say("close", { code, reason }),
  onConnectError: (error) => say("connect-error", String(error)),
  onHelloOk: async (hello) => {
    connections += 1;
    say("hello", hello);
    try {
      const params = { message: `run ${connections}`, idempotencyKey: `run-${connections}`, sessionKey: "main" };
      say("outcome", await client.request("agent", params, { expectFinal: true, timeoutMs: 60000 }));
      say("history", await client.request("chat.history", { sessionKey: "main" }));
    } catch (error) {
      say("error", String(error));
    }
    if (connections === 2) {
      client.stop();
      process.exit(0);
    }
  },
});

client.start();
