// The page at /docs: Swagger UI, with streams shown as they come and the token kept until the tab is closed.
"use strict";
(() => {
  const KEY = "openclaw.docs.authorized";
  let operation = null; // the one whose button was pressed last

  document.addEventListener("click", ({ target }) => {
    const button = target.closest?.(".execute");
    if (button) operation = button.closest(".opblock-body");
  }, true);

  // A box below an operation, for the text of its stream until the whole is there.
  function openBox(place, stop) {
    const box = document.createElement("div");
    box.className = "live-stream responses-inner";
    const button = document.createElement("button");
    button.className = "btn";
    button.textContent = "Stop reading";
    button.addEventListener("click", stop);
    const text = document.createElement("pre");
    text.className = "microlight";
    text.style.maxHeight = "24em";
    text.style.overflow = "auto";
    text.setAttribute("role", "log");
    box.append(button, text);
    place?.append(box);
    return {
      show(more) {
        const isAtEnd = text.scrollTop + text.clientHeight >= text.scrollHeight - 4;
        text.append(more);
        if (isAtEnd) text.scrollTop = text.scrollHeight;
      },
      close: () => box.remove(),
    };
  }

  // Fetch as Swagger UI does, which shows an answer once it has all of it; a stream is shown here until then.
  async function fetchShown(url, request) {
    const place = operation;
    const stopped = new AbortController();
    const response = await fetch(url, { ...request, signal: stopped.signal });
    if (!response.headers.get("content-type")?.startsWith("text/event-stream")) return response;
    const box = openBox(place, () => stopped.abort());
    const decoder = new TextDecoder();
    let whole = "";
    let problem = "";
    try {
      const reader = response.body.getReader();
      for (let read; !(read = await reader.read()).done;) {
        const more = decoder.decode(read.value, { stream: true });
        whole += more;
        box.show(more);
      }
    } catch (error) {
      if (!stopped.signal.aborted) problem = `\n: the connection broke (${error.message})\n`;
    } finally {
      box.close();
    }
    const { status, statusText, headers } = response;
    whole += decoder.decode(); // what is left of a character that was cut
    return new Response(whole + problem, { status, statusText, headers });
  }

  // sessionStorage ends with the tab; Swagger UI's own persistAuthorization would keep the token for good.
  function keep(system) {
    const authorized = system.authSelectors.authorized();
    sessionStorage.setItem(KEY, JSON.stringify(authorized?.toJS?.() ?? {}));
  }

  const keepsToken = () => ({
    statePlugins: {
      auth: {
        wrapActions: Object.fromEntries(
          ["authorize", "logout"].map((name) => [
            name,
            (original, system) => (...given) => {
              const result = original(...given);
              keep(system);
              return result;
            },
          ]),
        ),
      },
    },
  });

  const ui = SwaggerUIBundle({
    url: "/openapi-3.1.json",
    dom_id: "#page",
    deepLinking: true,
    defaultModelsExpandDepth: 0,
    validatorUrl: null,
    plugins: [keepsToken],
    requestInterceptor(request) {
      if (!request.loadSpec) request.userFetch = fetchShown;
      return request;
    },
    onComplete() {
      const kept = JSON.parse(sessionStorage.getItem(KEY) ?? "{}");
      if (Object.keys(kept).length) ui.authActions.authorize(kept);
    },
  });
})();
