// @ts-check
/** Numbers, times and texts as people read them. */

const COUNT = new Intl.NumberFormat("en");
const COMPACT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const TIME = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const AGO = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
const UNITS = /** @type {const} */ ([["day", 86400], ["hour", 3600], ["minute", 60]]);
/** Blanks that are seen as such. */
const BLANKS = /[^\S\ufeff\u2028\u2029]+/g;

/**
 * Characters that are not seen, or that change the order of those around them, in runs; ends of lines, tabs, and what
 * chooses the look of a picture sign, are left to the text.
 */
const HIDDEN =
  /\p{Extended_Pictographic}[\ufe0e\ufe0f]|((?:(?![\n\t]|\r\n)[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}])+)/gu;

/** Texts that were split lately, as the page is drawn again and again. @type {Map<string, string[]>} */
const split = new Map();
const MOST_SPLIT = 200;

/** @param {number} value */
export const count = (value) => COUNT.format(value);

/** @param {number} value */
export const compact = (value) => COMPACT.format(value);

/** @param {string} iso */
export const time = (iso) => TIME.format(new Date(iso));

/** Format US dollars, small amounts with four decimals. @param {number|null} dollars */
export function money(dollars) {
  if (dollars === null) return "unknown";
  if (dollars > 0 && dollars < 0.0001) return "< $0.0001";
  const digits = dollars === 0 || dollars >= 1 ? 2 : 4;
  return `$${dollars.toFixed(digits)}`;
}

/** Format how long ago a time was. @param {string} iso */
export function ago(iso) {
  const seconds = (Date.parse(iso) - Date.now()) / 1000;
  for (const [unit, size] of UNITS) if (Math.abs(seconds) >= size) return AGO.format(Math.round(seconds / size), unit);
  return "just now";
}

/** @param {number|null} ms */
export function duration(ms) {
  if (ms === null) return "";
  if (ms < 1000) return `${ms} ms`;
  return ms < 60_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}

/** Return the beginning of a text, on one line. @param {string} text @param {number} length */
export function shorten(text, length) {
  const line = text.replace(BLANKS, " ").replace(/^ | $/g, "");
  return line.length > length ? `${line.slice(0, length - 1).replace(/[\ud800-\udbff]$/, "")}…` : line;
}

/**
 * Split a text at its hidden characters. Every second piece, from the second one, is a run of them, as escapes.
 * @param {string} text
 */
export function atHidden(text) {
  const known = split.get(text);
  if (known) return known;
  const pieces = [];
  let from = 0;
  for (const { 0: all, 1: hidden, index } of text.matchAll(HIDDEN)) {
    if (!hidden) continue;
    pieces.push(text.slice(from, index), Array.from(hidden, toEscape).join(""));
    from = index + all.length;
  }
  pieces.push(text.slice(from));
  if (split.size === MOST_SPLIT) split.clear();
  split.set(text, pieces);
  return pieces;
}

/** @param {string} character */
function toEscape(character) {
  const number = /** @type {number} */ (character.codePointAt(0)).toString(16);
  return number.length > 4 ? `\\u{${number}}` : `\\u${number.padStart(4, "0")}`;
}

/** Format JSON with indentation; other text is returned as it is. @param {string} text */
export function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
