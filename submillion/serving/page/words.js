// Numbers as people read them, words as they are typed into a shell, and the picture of an interval.

import { el } from "./dom.js";

export const count = (n) => n.toLocaleString("en-GB");
export const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)} %`;
export const exact = (s) => `${s.value.toFixed(4)} [${s.low.toFixed(4)}, ${s.high.toFixed(4)}]`;
export const signed = (value, digits = 4) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);

// A path with blanks or quotes in it is one word, as Python's shlex.quote makes it.
export const typed = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`);

// The range that all intervals of a list are drawn in. It ends six interval widths below the best: one failed run shall
// not press the others together; what lies below is drawn at the edge, as an open circle.
export function rangeOf(scores) {
  const widths = scores.map((s) => s.high - s.low).sort((a, b) => a - b);
  const high = Math.max(...scores.map((s) => s.high));
  const low = Math.max(Math.min(...scores.map((s) => s.low)), high - 6 * widths[widths.length >> 1]);
  return { low, span: Math.max(high - low, 1e-9) };
}

export function drawn(score, range) {
  const place = (value) => `${Math.max(0, (100 * (value - range.low)) / range.span)}%`;
  return el("span", {
    class: score.value < range.low ? "drawn outside" : "drawn", "aria-hidden": "true",
    "--low": place(score.low), "--high": place(score.high), "--value": place(score.value),
  });
}
