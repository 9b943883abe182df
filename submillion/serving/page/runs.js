// The list: runs and studies of the folder, sorted, filtered, ticked; what is being trained is followed.

import { get, problemsOf } from "./api.js";
import { byId, el, fill, isolated, notice, remember, rowHead, table } from "./dom.js";
import { count, drawn, exact, rangeOf, typed } from "./words.js";

const MOST_SETTINGS = 3;
const MOST_FOLLOWED = 10;
const PAUSE_MS = 4000; // between two looks at what is being trained
const ticked = new Set();
let listing = null;
let order = { key: "validation", down: true };
let next = null;

// A score so that more is better; each run's is the one that it reports first.
const isLoss = (row) => row.metric === "log_loss";
const height = (row, score) => (score ? (isLoss(row) ? -score.value : score.value) : null);

const COLUMNS = [
  { key: "run", label: "Run", of: (row) => row.run },
  { key: "state", label: "State", of: (row) => row.state },
  { key: "validation", label: "Validation", of: (row) => height(row, row.validation), isScore: true },
  { key: "test", label: "Test", of: (row) => height(row, row.test), isScore: true },
  { key: "parameters", label: "Parameters", of: (row) => row.trainable_params },
  { key: "minutes", label: "Minutes", of: (row) => row.minutes },
  { key: "date", label: "Begun", of: (row) => row.date },
];

// Read the folder, and show it as the address says; null leaves what is shown.
export async function load(params = new URLSearchParams()) {
  if (params !== null) {
    byId("filter").value = params.get("filter") ?? "";
    const key = COLUMNS.some((column) => column.key === params.get("sort")) ? params.get("sort") : "validation";
    order = { key, down: params.has("up") ? false : !params.has("sort") || params.has("down") };
  }
  if (!(await read())) return;
  const names = new Set(listing.runs.map((row) => row.run));
  for (const name of ticked) if (!names.has(name)) ticked.delete(name);
  showStudies();
  show();
  follow();
}

async function read() {
  try {
    listing = await get("api/list");
    notice(byId("runs-problems"), []);
  } catch (error) {
    notice(byId("runs-problems"), problemsOf(error));
    return false;
  }
  byId("folder").textContent = listing.folder;
  return true;
}

const running = () => (listing?.runs ?? []).filter((row) => row.is_running);
export const finishedRuns = () => (listing?.runs ?? []).filter((row) => row.state === "finished");

// Curves and states of what is being trained, again and again while the list is looked at. Of the table only those
// cells are written anew, so that nothing moves under a reader's hands until a training ends.
function follow() {
  clearTimeout(next);
  const followed = running().slice(0, MOST_FOLLOWED);
  byId("live").hidden = followed.length === 0;
  if (followed.length === 0) return;
  const names = followed.map((row) => row.run);
  const steps = followed.map((row) => row.step).join(",");
  if (followed.some((row) => row.step > 0)) byId("live-curves").src = `curves.svg?runs=${names.join(",")}&steps=${steps}`;
  byId("live-curves").alt = followed.map((row) => `${row.run}: ${row.why}`).join("; ");
  next = setTimeout(async () => {
    const before = running().map((row) => row.run).join();
    if (byId("view-runs").hidden || document.hidden) return follow();
    if (!(await read())) return;
    if (running().map((row) => row.run).join() === before) {
      for (const row of running()) document.getElementById(`state-${row.run}`)?.replaceWith(state(row));
    } else {
      showStudies();
      show();
    }
    follow();
  }, PAUSE_MS);
}

export function start() {
  byId("filter").addEventListener("input", () => {
    address();
    show();
  });
  byId("reload").addEventListener("click", () => load(null));
  byId("compare-ticked").addEventListener("click", () => {
    location.href = `compare?runs=${[...ticked].map(encodeURIComponent).join(",")}`;
  });
  byId("clear-ticked").addEventListener("click", () => {
    ticked.clear();
    show();
    byId("filter").focus();
  });
}

function address() {
  const { key, down } = order;
  const isUsual = key === "validation" && down;
  remember("runs", { filter: byId("filter").value, ...(isUsual ? {} : { sort: key, [down ? "down" : "up"]: "1" }) });
}

function show() {
  if (listing === null) return; // the answer is on its way
  const rows = sorted(listing.runs.filter(matches));
  const all = listing.runs.length;
  byId("runs-count").textContent = all === 0
    ? `There are no runs in ${listing.folder}. \`submillion train --out ${typed(listing.folder)}\` makes one; then reload the list.`
    : `${rows.length === all ? "" : `${count(rows.length)} of `}${count(all)} ${all === 1 ? "run" : "runs"}`;
  const focused = document.activeElement?.closest("#runs-table") && document.activeElement.ariaLabel;
  fill(byId("runs-table"), rows.length ? runsTable(rows) : null);
  if (focused) byId("runs-table").querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus();
  showTicked();
}

function matches(row) {
  const settings = Object.entries(row.settings).map(([key, value]) => `${key}=${value}`);
  const text = [row.run, row.model, row.state, row.why, ...row.studies, ...settings].join(" ").toLowerCase();
  return byId("filter").value.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

// Rows without a value stand last, whichever the direction; scores of one name stand together.
function sorted(rows) {
  const { of, isScore } = COLUMNS.find((column) => column.key === order.key);
  const known = (row) => of(row) !== null && of(row) !== undefined;
  const compare = (a, b) => {
    if (known(a) !== known(b)) return known(a) ? -1 : 1;
    if (isScore && known(a) && a.metric !== b.metric) return a.metric < b.metric ? -1 : 1;
    if (!known(a) || of(a) === of(b)) return a.run < b.run ? -1 : 1;
    return of(a) < of(b) === order.down ? 1 : -1;
  };
  return [...rows].sort(compare);
}

function runsTable(rows) {
  const names = new Set(rows.map((row) => row.metric_name).filter(Boolean));
  const one = names.size === 1 ? [...names][0] : null; // in the heads; of several each score has its own beside it
  const shown = COLUMNS.filter((column) => column.key !== "test" || listing.runs.some((row) => row.test))
    .map((column) => (column.isScore ? { ...column, label: `${column.label} ${one ?? "score"}` } : column));
  const ranges = Object.fromEntries([...names].map((name) => {
    const some = rows.filter((row) => row.metric_name === name);
    return [name, rangeOf(some.flatMap((row) => [row.validation, row.test]).filter(Boolean), isLoss(some[0]))];
  }));
  const heads = [{ label: "Tick", cell: tickAll(rows) }, ...shown.map(sortHead), "Settings"];
  const shared = sharedSettings(rows);
  const scores = one ? `Scores are ${one}` : "Scores are each run's first (train.metric)";
  const caption = `${scores}, with 95 % intervals. Settings: those that are not the default, nor shared by all shown runs`;
  return table(caption, heads, rows.map((row) => [tick(row), ...shown.map((column) => cell(column.key, row, ranges, !one)),
    settings(row, shared)]), "cards runs");
}

function sortHead({ key, label }) {
  const mine = order.key === key;
  const sort = () => {
    order = { key, down: mine ? !order.down : key !== "run" && key !== "state" };
    address();
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

function cell(key, row, ranges, isNamed) {
  const name = isNamed && el("span", { class: "small" }, row.metric_name);
  const score = (found) => (found ? el("td", { class: "score" }, exact(found), name, drawn(found, ranges[row.metric_name])) : "–");
  switch (key) {
    case "run": return rowHead(el("span", { class: "name" }, row.run), el("span", { class: "small" }, row.model ?? ""), links(row));
    case "state": return state(row);
    case "validation": return score(row.validation);
    case "test": return score(row.test);
    case "parameters": return el("td", { class: "number" }, row.trainable_params === null ? "–" : count(row.trainable_params));
    case "minutes": return el("td", { class: "number" }, row.minutes === null ? "–" : row.minutes.toFixed(1));
    default: return el("td", { class: "date" }, (row.date ?? "").slice(0, 16).replace("T", " "));
  }
}

const state = (row) => el("td", { class: "state", id: `state-${row.run}`, role: "cell", "data-label": "State" },
  el("span", { class: row.state }, row.state), row.why ? el("span", { class: "small" }, row.why) : null);

function sharedSettings(rows) {
  if (rows.length < 2) return {};
  const [first, ...others] = rows.map((row) => row.settings);
  return Object.fromEntries(Object.entries(first).filter(([key, value]) => others.every((each) => each[key] === value)));
}

function settings(row, shared) {
  const found = Object.entries(row.settings).filter(([key]) => key !== "model.name" && !(key in shared));
  const [first, rest] = [found.slice(0, MOST_SETTINGS), found.slice(MOST_SETTINGS)].map((some) =>
    some.map(([key, value]) => el("code", {}, isolated(`${key}=${value}`), " ")));
  const more = rest.length ? el("details", {}, el("summary", {}, `${rest.length} more`), rest) : null;
  return el("td", { class: "settings" }, first.length ? first : "–", more);
}

const link = (href, text, what) => el("a", { href, "aria-label": what }, text);

function links(row) {
  const name = encodeURIComponent(row.run);
  return el("span", { class: "links" },
    row.state === "damaged" ? null : link(`runs/${name}/report.html`, row.has_report ? "report" : "training", `Report of ${row.run}`),
    link(`runs/${name}/config`, "config", `Config of ${row.run}`),
    row.state === "finished" ? link(`#playground/${name}`, "try it", `Playground of ${row.run}`) : null);
}

function showStudies() {
  const rows = listing.studies.map((study) => {
    const name = encodeURIComponent(study.name);
    return [
      rowHead(el("span", { class: "name" }, study.name), el("span", { class: "small" }, study.kind ?? ""),
        el("span", { class: "links" },
          study.has_report ? link(`runs/${name}/report.html`, "report", `Report of ${study.name}`) : null,
          study.runs.length ? link(`#runs?filter=${name}`, "its runs", `Show the runs of ${study.name}`) : null)),
      el("td", { class: "state" }, el("span", { class: study.state }, study.state),
        study.why ? el("span", { class: "small" }, study.why) : null),
      el("td", { class: "number" }, study.n_trials === null ? "–" : `${study.n_done} of ${study.n_trials}`),
      study.recommended ?? "–",
      study.score ? `${study.score.split} ${study.score.name} ${exact(study.score)}` : "–",
    ];
  });
  const heads = ["Study", "State", "Trials done", "Recommended run", "Its score"];
  fill(byId("studies"), rows.length ? table("Studies; a recommended run's validation score is after selection", heads, rows, "cards") : null);
}
