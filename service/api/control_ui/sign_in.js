// @ts-check
/** Signing in: the token, the password or an API key is tried, and kept for this tab only. */

import { ApiError, getJson, keepSecret } from "./api.js";
import { redraw } from "./draw.js";
import { html, nothing } from "./vendor/lit-html.js";
import { errorNote } from "./parts.js";

export const signIn = {
  /** @type {Error|null} */ error: null,
  isBusy: false,
  /** Whether the caller that is known has the scope "read". */ mayRead: false,
  /** Called when the caller is known. */ done: async () => {},
};

/** Try what is kept, or nothing: a gateway may need no secret. @returns {Promise<boolean>} whether the caller is known */
export async function isKnown() {
  signIn.mayRead = false;
  try {
    await getJson("/v1/sessions", { limit: 1 });
  } catch (error) {
    if (error instanceof ApiError && error.code === "missing_scope") return true;
    if (error instanceof ApiError && error.status === 401) keepSecret("");
    if (!(error instanceof ApiError && error.code === "missing_credentials")) signIn.error = /** @type {Error} */ (error);
    return false;
  }
  signIn.mayRead = true;
  return true;
}

/** @param {SubmitEvent} event */
async function submit(event) {
  event.preventDefault();
  const field = /** @type {HTMLInputElement} */ (/** @type {HTMLFormElement} */ (event.target).elements.namedItem("secret"));
  keepSecret(field.value.trim());
  Object.assign(signIn, { error: null, isBusy: true });
  redraw();
  if (await isKnown()) await signIn.done();
  else field.select();
  signIn.isBusy = false;
  redraw();
}

export const signInView = () => html`<main class="sign-in"><form @submit=${submit}>
  <h1>OpenClaw Gateway</h1>
  <label for="secret">Token, password or API key</label>
  <input id="secret" name="secret" type="password" autocomplete="current-password" required
    aria-describedby="secret-help" ?readonly=${signIn.isBusy}>
  <p id="secret-help" class="faint">It is kept in this tab until you close it. The operator finds the token with
    <code>openclaw config get gateway.auth.token</code> and makes keys with <code>openclaw keys create</code>.</p>
  ${signIn.error ? errorNote(signIn.error) : nothing}
  <button class="main" ?disabled=${signIn.isBusy}>Sign in</button>
</form></main>`;
