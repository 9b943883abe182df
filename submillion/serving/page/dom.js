// Elements without markup: whatever users wrote becomes a text node, never HTML.

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("--")) made.style.setProperty(name, value);
    else if (name === "onclick") made.addEventListener("click", value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

// Text of users in a sentence of ours, so that letters read from right to left do not turn the sentence round.
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;
export const isolated = (text) => (RIGHT_TO_LEFT.test(text) ? `\u2068${text}\u2069` : text);

// What is set in a view goes into the address; empty values are left out.
export function remember(view, values) {
  const params = new URLSearchParams(Object.entries(values).filter(([, value]) => value !== "" && value !== null));
  history.replaceState(null, "", params.size ? `#${view}?${params}` : `#${view}`);
}

export const byId = (id) => document.getElementById(id);

export function fill(box, ...children) {
  box.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
}

// A table whose cells know their column, so that narrow screens can show a row as a card.
export function table(caption, heads, rows, kind = "") {
  const labels = heads.map((head) => (typeof head === "string" ? head : head.label));
  const head = el("tr", { role: "row" }, heads.map((each) => (typeof each === "string" ? th(each) : each.cell)));
  const body = rows.map((cells) =>
    el("tr", { role: "row" }, cells.map((cell, i) => {
      const shown = cell instanceof HTMLTableCellElement ? cell : el("td", {}, cell);
      shown.setAttribute("role", shown.tagName === "TH" ? "rowheader" : "cell");
      shown.dataset.label = labels[i];
      return shown;
    })));
  return el("div", { class: `scrolls ${kind}`, tabindex: "0", role: "group", "aria-label": `Table: ${caption}` },
    el("table", { role: "table" }, el("caption", {}, caption),
      el("thead", { role: "rowgroup" }, head), el("tbody", { role: "rowgroup" }, body)));
}

export const th = (text) => el("th", { scope: "col", role: "columnheader" }, text);
export const rowHead = (...children) => el("th", { scope: "row" }, ...children);

// Problems as sentences; none hides the box.
export function notice(box, problems) {
  box.hidden = problems.length === 0;
  fill(box, problems.map((problem) => el("p", {}, problem)));
}
