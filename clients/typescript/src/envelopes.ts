// The errors of answers.
import type { components } from "./gateway.js";

/**
 * Read the error of an answer. One that is not the gateway's, such as a proxy's page, is `internal_error` with the phrase
 * of its status.
 */
export async function toEnvelope(response: Response): Promise<components["schemas"]["ErrorEnvelope"]> {
  const envelope = await response.json().catch(() => null);
  if (envelope?.error?.code) return envelope;
  const message = `${response.status} ${response.statusText}`.trim();
  return { error: { message, type: "api_error", param: null, code: "internal_error" } };
}
