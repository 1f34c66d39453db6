// @ts-check
/** Drawing: whoever changes what is shown calls `redraw`; the page is drawn once before the next frame. */

let isDue = false;
let draw = () => {};

/** Set the function that draws the page. @param {() => void} fn */
export function drawWith(fn) {
  draw = fn;
}

export function redraw() {
  if (isDue) return;
  isDue = true;
  if (document.hidden) setTimeout(drawIfDue); // there are no frames, but the title is seen
  else requestAnimationFrame(drawIfDue);
}

function drawIfDue() {
  if (!isDue) return;
  isDue = false;
  draw();
}

document.addEventListener("visibilitychange", drawIfDue);
