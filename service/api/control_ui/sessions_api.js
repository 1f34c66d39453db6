// @ts-check
/** Reading whole sessions, page by page. */

import { getJson, sessionPath } from "./api.js";

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
