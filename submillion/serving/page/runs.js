// The list: runs and studies of the folder, sorted, filtered, ticked.

import { get, problemsOf } from "./api.js";
import { byId, el, fill, notice, rowHead, table } from "./dom.js";
import { count, drawn, inPercent, rangeOf, typed } from "./words.js";

const MOST_SETTINGS = 6;
const ticked = new Set();
let listing = null;
let order = { key: "validation", down: true };

const COLUMNS = [
  { key: "run", label: "Run", of: (row) => row.run },
  { key: "state", label: "State", of: (row) => row.state },
  { key: "validation", label: "Validation accuracy", of: (row) => row.validation_accuracy?.value },
  { key: "test", label: "Test accuracy", of: (row) => row.test_accuracy?.value },
  { key: "parameters", label: "Parameters", of: (row) => row.trainable_params },
  { key: "minutes", label: "Minutes", of: (row) => row.minutes },
  { key: "date", label: "Begun", of: (row) => row.date },
];

export async function load() {
  try {
    listing = await get("api/list");
    notice(byId("runs-problems"), []);
  } catch (error) {
    notice(byId("runs-problems"), problemsOf(error));
    return listing;
  }
  byId("folder").textContent = listing.folder;
  const names = new Set(listing.runs.map((row) => row.run));
  for (const name of ticked) if (!names.has(name)) ticked.delete(name);
  showStudies();
  show();
  return listing;
}

export const finishedRuns = () => (listing?.runs ?? []).filter((row) => row.state === "finished");

export function start(compare) {
  byId("filter").addEventListener("input", show);
  byId("reload").addEventListener("click", load);
  byId("compare-ticked").addEventListener("click", () => compare([...ticked]));
  byId("clear-ticked").addEventListener("click", () => {
    ticked.clear();
    show();
    byId("filter").focus();
  });
}

function show() {
  if (listing === null) return; // the answer is on its way
  const rows = sorted(listing.runs.filter(matches));
  const all = listing.runs.length;
  byId("runs-count").textContent = all === 0
    ? `There are no runs in ${listing.folder}. \`submillion train --out ${typed(listing.folder)}\` makes one; then reload the list.`
    : `${rows.length === all ? "" : `${count(rows.length)} of `}${count(all)} ${all === 1 ? "run" : "runs"}`;
  fill(byId("runs-table"), rows.length ? runsTable(rows) : null);
  showTicked();
}

function matches(row) {
  const settings = Object.entries(row.settings).map(([key, value]) => `${key}=${value}`);
  const text = [row.run, row.model, row.state, row.why, ...row.studies, ...settings].join(" ").toLowerCase();
  return byId("filter").value.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

// Rows without a value stand last, whichever the direction.
function sorted(rows) {
  const { of } = COLUMNS.find((column) => column.key === order.key);
  const known = (row) => of(row) !== null && of(row) !== undefined;
  const compare = (a, b) => {
    if (known(a) !== known(b)) return known(a) ? -1 : 1;
    if (!known(a) || of(a) === of(b)) return a.run < b.run ? -1 : 1;
    return of(a) < of(b) === order.down ? 1 : -1;
  };
  return [...rows].sort(compare);
}

function runsTable(rows) {
  const shown = COLUMNS.filter((column) => column.key !== "test" || listing.runs.some((row) => row.test_accuracy));
  const scores = rows.flatMap((row) => [row.validation_accuracy, row.test_accuracy]).filter(Boolean);
  const range = scores.length ? rangeOf(scores) : null;
  const heads = [{ label: "Tick", cell: tickAll(rows) }, ...shown.map(sortHead), "Settings", "Look"];
  const shared = sharedSettings(rows);
  const caption = "Accuracies with 95 % intervals. Settings: what is not the default, without what all shown runs share";
  return table(caption, heads, rows.map((row) => [tick(row), ...shown.map((column) => cell(column.key, row, range)),
    settings(row, shared), links(row)]), "cards runs");
}

function sortHead({ key, label }) {
  const mine = order.key === key;
  const sort = () => {
    order = { key, down: mine ? !order.down : key !== "run" && key !== "state" };
    show();
    document.querySelector(`button[data-sort="${key}"]`).focus();
  };
  const sign = el("span", { "aria-hidden": "true" }, mine ? (order.down ? " ↓" : " ↑") : "");
  return { label, cell: el("th", {
    scope: "col", role: "columnheader", "aria-sort": mine ? (order.down ? "descending" : "ascending") : "none",
  }, el("button", { type: "button", class: "plain", "data-sort": key, onclick: sort }, label, sign)) };
}

function tickAll(rows) {
  const finished = rows.filter((row) => row.state === "finished");
  const box = el("input", { type: "checkbox", "aria-label": "Tick all shown", disabled: finished.length === 0 });
  box.checked = finished.length > 0 && finished.every((row) => ticked.has(row.run));
  box.addEventListener("change", () => {
    for (const row of finished) box.checked ? ticked.add(row.run) : ticked.delete(row.run);
    show();
    document.querySelector("input[aria-label='Tick all shown']").focus();
  });
  return el("th", { scope: "col", role: "columnheader" }, box);
}

function tick(row) {
  const box = el("input", { type: "checkbox", "aria-label": `Compare ${row.run}`, disabled: row.state !== "finished" });
  box.checked = ticked.has(row.run);
  box.addEventListener("change", () => {
    box.checked ? ticked.add(row.run) : ticked.delete(row.run);
    showTicked();
  });
  return el("td", {}, box);
}

function showTicked() {
  byId("ticked").hidden = ticked.size === 0;
  byId("ticked-count").textContent = ticked.size === 1 ? "1 run ticked: tick one more" : `${ticked.size} runs ticked`;
  byId("compare-ticked").disabled = ticked.size < 2;
}

function cell(key, row, range) {
  const score = (found) => (found ? el("td", { class: "score" }, inPercent(found), drawn(found, range)) : "–");
  switch (key) {
    case "run": return rowHead(el("span", { class: "name" }, row.run), el("span", { class: "small" }, row.model ?? ""));
    case "state": return el("td", { class: "state" }, el("span", { class: row.state }, row.state),
      row.why ? el("span", { class: "small" }, row.why) : null);
    case "validation": return score(row.validation_accuracy);
    case "test": return score(row.test_accuracy);
    case "parameters": return row.trainable_params === null ? "–" : count(row.trainable_params);
    case "minutes": return row.minutes === null ? "–" : row.minutes.toFixed(1);
    default: return (row.date ?? "").slice(0, 16).replace("T", " ");
  }
}

function sharedSettings(rows) {
  if (rows.length < 2) return {};
  const [first, ...others] = rows.map((row) => row.settings);
  return Object.fromEntries(Object.entries(first).filter(([key, value]) => others.every((each) => each[key] === value)));
}

function settings(row, shared) {
  const found = Object.entries(row.settings).filter(([key]) => key !== "model.name" && !(key in shared));
  const [first, rest] = [found.slice(0, MOST_SETTINGS), found.slice(MOST_SETTINGS)].map((some) =>
    some.map(([key, value]) => el("code", {}, `${key}=${value} `)));
  const more = rest.length ? el("details", {}, el("summary", {}, `${rest.length} more`), rest) : null;
  return el("td", { class: "settings" }, first.length ? first : "–", more);
}

function links(row) {
  const name = encodeURIComponent(row.run);
  const link = (href, text, what) => el("a", { href, "aria-label": `${what} of ${row.run}` }, text);
  return el("td", { class: "links" },
    row.has_report ? link(`runs/${name}/report`, "report", "Report") : null,
    link(`runs/${name}/config`, "config", "Config"),
    row.state === "finished" ? link(`#playground/${name}`, "try it", "Playground") : null);
}

function showStudies() {
  const rows = listing.studies.map((study) => {
    const name = encodeURIComponent(study.name);
    const filter = () => {
      byId("filter").value = study.name;
      show();
      byId("filter").focus();
    };
    return [
      rowHead(el("span", { class: "name" }, study.name), el("span", { class: "small" }, study.kind ?? "")),
      el("td", { class: "state" }, el("span", { class: study.state }, study.state),
        study.why ? el("span", { class: "small" }, study.why) : null),
      study.n_trials === null ? "–" : `${study.n_done} of ${study.n_trials}`,
      study.recommended ?? "–",
      study.accuracy ? `${inPercent(study.accuracy)} ${study.accuracy.split}` : "–",
      el("td", { class: "links" },
        study.has_report ? el("a", { href: `studies/${name}/report`, "aria-label": `Report of ${study.name}` }, "report") : null,
        study.has_summary ? el("a", { href: `studies/${name}/summary`, "aria-label": `Summary of ${study.name}` }, "summary") : null,
        study.runs.length ? el("button", { type: "button", class: "plain", onclick: filter, "aria-label": `Show the runs of ${study.name}` }, "its runs") : null),
    ];
  });
  const heads = ["Study", "State", "Trials done", "Recommended run", "Its accuracy", "Look"];
  fill(byId("studies"), rows.length ? table("Studies; a recommended run's validation accuracy is after selection", heads, rows, "cards") : null);
}
