// A typed client of a gateway: every operation of its contract, and streams that resume.
import createClient, { type Client } from "openapi-fetch";
import { toEnvelope } from "./envelopes.js";
import type { components, paths } from "./gateway.js";

export type { components, paths } from "./gateway.js";
export * from "./streams.js";

/** The types of the contract, by name. */
export type Schemas = components["schemas"];

/** Return a client of all operations: `client.POST("/v1/chat/completions", { body })`. */
export function createGatewayClient(baseUrl: string, token: string): Client<paths> {
  const client = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${token}` } });
  client.use({
    async onResponse({ response }) {
      if (response.ok) return undefined;
      const headers = new Headers(response.headers);
      headers.delete("Content-Length");
      return Response.json(await toEnvelope(response), { status: response.status, headers });
    },
  });
  return client;
}
