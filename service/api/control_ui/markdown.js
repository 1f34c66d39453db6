// @ts-check
/**
 * Markdown from models and tools, which nobody vouches for: marked parses it, DOMPurify lets a short list of elements
 * pass. While an answer is streamed, only its last blocks are parsed again.
 */

import { getDefaults, Lexer, Parser, Renderer } from "./vendor/marked.esm.js";
import "./vendor/purify.min.js";

const TAGS = [
  ..."a b blockquote br code del details em h1 h2 h3 h4 h5 h6 hr i img kbd li mark ol p pre s span strong sub summary sup".split(" "),
  ..."table tbody td th thead tr ul".split(" "),
];
const ATTRIBUTES = ["href", "src", "alt", "title", "start", "align", "colspan", "rowspan"];
const OPTIONS = {
  ALLOWED_TAGS: TAGS,
  ALLOWED_ATTR: ATTRIBUTES,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};
const PICTURE = /^data:image\/(?:png|jpeg|gif|webp);/i;
const LINK = /^(?:https?:|mailto:)/i;
/** Where markup begins that does not pass. Names of elements are small letters: `List<S>` is a text. */
const FOREIGN = new RegExp(`<(?!/?(?:${TAGS.join("|")})(?![\\w-]))`);
/** Blocks at the end that what follows may still change. */
const OPEN_BLOCKS = 3;
/** Characters of a block in which marks are looked for: the time grows with their square. */
const MAX_INLINE = 10_000;

/** @type {any} */
const purify = /** @type {any} */ (globalThis).DOMPurify;
purify.addHook("afterSanitizeAttributes", tame);

/** Let links leave the page by themselves only, and show pictures only if they are in the text. @param {Element} node */
function tame(node) {
  if (node.tagName === "A") {
    if (!LINK.test(node.getAttribute("href") ?? "")) node.removeAttribute("href");
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer nofollow");
  } else if (node.tagName === "IMG" && !PICTURE.test(node.getAttribute("src") ?? "")) {
    const words = document.createElement("span");
    words.className = "blocked";
    words.textContent = `[picture not loaded: ${node.getAttribute("alt") || node.getAttribute("src") || "no name"}]`;
    node.replaceWith(words);
  }
}

/** Shows markup that does not pass as it is written, so that nothing of `List<String>` or `<your name>` gets lost, and boxes of tasks as signs. */
class Written extends Renderer {
  /** @param {any} token */
  checkbox({ checked }) {
    return checked ? "☑ " : "☐ ";
  }

  /** @param {any} token */
  html({ text, block }) {
    if (!FOREIGN.test(text)) return text;
    const written = text.trimEnd().replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
    return block ? `<p>${written.replaceAll("\n", "<br>")}</p>` : written;
  }
}

/** Leaves the text of blocks as it is written that are so long that marks in them could keep the page busy for seconds. */
class BoundedLexer extends Lexer {
  /** @param {string} source @param {any[]} tokens */
  inlineTokens(source, tokens = []) {
    if (source.length <= MAX_INLINE) return super.inlineTokens(source, tokens);
    tokens.push({ type: "text", raw: source, text: source, escaped: false });
    return tokens;
  }
}

const PARSING = { ...getDefaults(), renderer: new Written() };

/** An element that shows Markdown. */
export class MarkdownView {
  constructor() {
    this.element = document.createElement("div");
    this.element.className = "markdown";
    this.text = "";
    /** The blocks shown: their Markdown, and their nodes. @type {{raw: string, nodes: ChildNode[]}[]} */
    this.blocks = [];
  }

  /** Show `text`; blocks that have not changed stay as they are. @param {string} source @param {boolean} isComplete */
  show(source, isComplete) {
    const text = source.replace(/\r\n?/g, "\n");
    if (text === this.text && isComplete === this.isComplete) return;
    const settled = isComplete || !text.startsWith(this.text) ? 0 : Math.max(0, this.blocks.length - OPEN_BLOCKS);
    this.text = text;
    this.isComplete = isComplete;
    const start = this.blocks.slice(0, settled).reduce((length, { raw }) => length + raw.length, 0);
    try {
      this.replace(settled, new BoundedLexer({ gfm: true, breaks: true }).lex(text.slice(start)));
    } catch {
      this.showAsWritten(text); // thousands of levels of quotes or lists are more than the stack holds
    }
  }

  /** @param {string} text */
  showAsWritten(text) {
    const written = Object.assign(document.createElement("p"), { className: "written", textContent: text, dir: "auto" });
    this.element.replaceChildren(written);
    this.blocks = [{ raw: text, nodes: [written] }];
  }

  /** @param {number} from @param {any} tokens */
  replace(from, tokens) {
    let place = from;
    for (const token of tokens) {
      if (this.blocks[place]?.raw !== token.raw || isReference(tokens)) this.set(place, token, tokens.links);
      place++;
    }
    for (const { nodes } of this.blocks.splice(place)) for (const node of nodes) node.remove();
  }

  /** @param {number} place @param {any} token @param {any} links */
  set(place, token, links) {
    const html = Parser.parse(Object.assign([token], { links }), PARSING);
    const fragment = purify.sanitize(html, OPTIONS);
    for (const pre of fragment.querySelectorAll("pre, table")) pre.tabIndex = 0;
    for (const block of fragment.children) if (block.tagName !== "PRE") block.setAttribute("dir", "auto");
    const nodes = [...fragment.childNodes];
    const before = this.blocks.slice(place + 1).flatMap((block) => block.nodes)[0] ?? null;
    for (const node of this.blocks[place]?.nodes ?? []) node.remove();
    this.element.insertBefore(fragment, before);
    this.blocks[place] = { raw: token.raw, nodes };
  }
}

/** @param {any} tokens */
const isReference = (tokens) => Object.keys(tokens.links ?? {}).length > 0;

/** @type {WeakMap<object, MarkdownView>} */
const views = new WeakMap();

/** Return the element that shows `text` of `owner`, always the same. @param {object} owner @param {string} text @param {boolean} isComplete */
export function markdown(owner, text, isComplete = true) {
  let view = views.get(owner);
  if (view === undefined) views.set(owner, (view = new MarkdownView()));
  view.show(text, isComplete);
  return view.element;
}
