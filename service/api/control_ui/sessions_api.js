// @ts-check
/** Reading whole sessions, page by page, and how their runs have ended. */

import { getJson, sessionPath } from "./api.js";
import { toEnding } from "./conversation.js";

const PAGE = 100;
const MOST_MESSAGES = 2000;

/**
 * Load a session with all messages of a branch, by default the current one; `isCut` if the first ones are left out.
 * @param {string} key @param {number} [branch]
 */
export async function loadSession(key, branch) {
  const session = await getJson(sessionPath(key), { limit: PAGE, branch });
  let messages = session.messages;
  while (messages.length && messages[0].parent !== null && messages.length < MOST_MESSAGES) {
    const earlier = await getJson(sessionPath(key), { limit: PAGE, branch: messages[0].parent });
    messages = [...earlier.messages, ...messages];
  }
  return { ...session, messages, isCut: messages.length > 0 && messages[0].parent !== null };
}

/**
 * Load a session as `loadSession` does, with `endings`: by id, those of its latest runs, null for a whole answer.
 * @param {string} key @param {number} [branch]
 */
export async function loadConversation(key, branch) {
  const listed = getJson("/v1/runs", { session_key: key, limit: PAGE }).catch(() => ({ data: [] })); // the messages count
  const [session, { data }] = await Promise.all([loadSession(key, branch), listed]);
  return { ...session, endings: new Map(data.map((run) => [run.id, toEnding(run)])) };
}
