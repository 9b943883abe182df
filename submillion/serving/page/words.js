// Numbers as people read them, words as they are typed into a shell, and the picture of an interval.

import { el } from "./dom.js";

export const count = (n) => n.toLocaleString("en-GB");
export const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)} %`;
export const exact = (s) => `${s.value.toFixed(4)} [${s.low.toFixed(4)}, ${s.high.toFixed(4)}]`;
export const signed = (value, digits = 4) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);

// A path with blanks or quotes in it is one word, as Python's shlex.quote makes it.
export const typed = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`);

// The range that all intervals of a list are drawn in. It ends six interval widths from the best: one failed run shall
// not press the others together; what lies beyond is drawn at the edge, as an open circle.
export function rangeOf(scores, isLoss) {
  const widths = scores.map((s) => s.high - s.low).sort((a, b) => a - b);
  const most = 6 * widths[widths.length >> 1];
  const [lowest, highest] = [Math.min(...scores.map((s) => s.low)), Math.max(...scores.map((s) => s.high))];
  const low = isLoss ? lowest : Math.max(lowest, highest - most);
  const high = isLoss ? Math.min(highest, lowest + most) : highest;
  return { low, high, span: Math.max(high - low, 1e-9) };
}

export function drawn(score, range) {
  const place = (value) => `${Math.min(100, Math.max(0, (100 * (value - range.low)) / range.span))}%`;
  return el("span", {
    class: score.value < range.low || score.value > range.high ? "drawn outside" : "drawn", "aria-hidden": "true",
    "--low": place(score.low), "--high": place(score.high), "--value": place(score.value),
  });
}
