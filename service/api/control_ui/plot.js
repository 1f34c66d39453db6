// @ts-check
/** Bars: upright ones for days, lying ones for names. */

import { redraw } from "./draw.js";
import { compact } from "./format.js";
import { html, svg } from "./vendor/lit-html.js";

const WIDE = 720;
const HEIGHT = 180;
const LEFT = 44;
const BOTTOM = 22;
/** The least room of a label below a bar. */
const LABEL = 56;
/** The room beside a plot on a phone. */
const MARGIN = 32;

addEventListener("resize", redraw);

/** The width of an upright plot: on a phone that of the window, so that its text is not made smaller. */
const plotWidth = () => Math.min(WIDE, Math.max(240, document.documentElement.clientWidth - MARGIN));

/** @typedef {{label: string, value: number, text: string}} Bar */

/** @param {string} title @param {Bar[]} bars */
export function uprightBars(title, bars) {
  const most = niceMost(Math.max(...bars.map(({ value }) => value), 0));
  const width = plotWidth();
  const step = (width - LEFT) / Math.max(bars.length, 1);
  const every = Math.max(Math.ceil(bars.length / 8), Math.ceil(LABEL / step));
  return html`<svg class="plot" viewBox="0 0 ${width} ${HEIGHT + BOTTOM}" role="img" aria-label=${title}>
    ${[0, 0.5, 1].map((part) => gridLine(part, most, width))}
    ${bars.map((bar, place) => uprightBar(bar, LEFT + place * step, step, most, place % every === 0))}
  </svg>`;
}

/** @param {number} part @param {number} most @param {number} width */
function gridLine(part, most, width) {
  const y = 8 + (HEIGHT - 8) * (1 - part);
  return svg`<line class="grid" x1=${LEFT} x2=${width} y1=${y} y2=${y}></line>
    <text x=${LEFT - 8} y=${y + 4} text-anchor="end">${compact(most * part)}</text>`;
}

/** @param {Bar} bar @param {number} x @param {number} step @param {number} most @param {boolean} hasLabel */
function uprightBar({ label, value, text }, x, step, most, hasLabel) {
  const height = ((HEIGHT - 8) * value) / most;
  const width = Math.max(2, Math.min(step * 0.7, 40));
  return svg`<g><title>${text}</title>
    <rect class="hit" x=${x} y="8" width=${step} height=${HEIGHT - 8}></rect>
    <rect class="bar" x=${x + (step - width) / 2} y=${HEIGHT - height} width=${width} height=${height} rx="2"></rect>
    ${hasLabel ? svg`<text x=${x + step / 2} y=${HEIGHT + 16} text-anchor="middle">${label}</text>` : ""}</g>`;
}

/** Return the next of 1, 2, 5, 10, 20 ... @param {number} value */
function niceMost(value) {
  const unit = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].map((times) => times * unit).find((most) => most >= value) ?? unit;
}

/** @param {string} title @param {Bar[]} bars */
export function lyingBars(title, bars) {
  const most = Math.max(...bars.map(({ value }) => value), 1);
  return html`<ul class="bars" aria-label=${title}>
    ${bars.map(({ label, value, text }) => html`<li title=${text}><span class="name">${label}</span>
      <svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">${svg`<rect class="bar" width=${(100 * value) / most} height="8"></rect>`}</svg>
      <span class="number">${compact(value)}</span></li>`)}
  </ul>`;
}
