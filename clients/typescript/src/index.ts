// A typed client of a gateway: every operation of its contract, and streams that resume.
import createClient, { type Client } from "openapi-fetch";
import type { components, paths } from "./gateway.js";

export type { components, paths } from "./gateway.js";
export * from "./streams.js";

/** The types of the contract, by name. */
export type Schemas = components["schemas"];

/** Return a client of all operations: `client.POST("/v1/chat/completions", { body })`. */
export function createGatewayClient(baseUrl: string, token: string): Client<paths> {
  return createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${token}` } });
}
