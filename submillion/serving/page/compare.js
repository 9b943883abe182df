// What `submillion compare` says of the ticked runs.

import { lastOnly, post, problemsOf } from "./api.js";
import { byId, el, fill, notice, rowHead, table } from "./dom.js";
import { count, drawn, exact, pValue, rangeOf, signed } from "./words.js";

const latest = lastOnly();
let names = [];

export function start() {
  byId("split").addEventListener("change", () => names.length && compare());
}

export function show(wanted) {
  byId("split").querySelector("[value=validation]").checked = true; // test is never read unasked
  names = wanted;
  if (names.length) return compare();
  fill(byId("compared"));
  notice(byId("compare-problems"), []);
  byId("compare-status").textContent = "Tick at least two finished runs in the list, and compare them.";
}

async function compare() {
  const split = byId("split").querySelector(":checked").value;
  fill(byId("compared"));
  notice(byId("compare-problems"), []);
  byId("compare-status").textContent = `comparing ${names.length} runs …`;
  try {
    const found = await latest(post("api/compare", { runs: names, split }));
    if (found === undefined) return;
    byId("compare-status").textContent = `${found.split} split, ${count(found.n_rows)} rows; 95 % intervals`;
    fill(byId("compared"), answer(found), settingsTable(found), found.against_best.length ? pairsTable(found) : null);
  } catch (error) {
    byId("compare-status").textContent = "";
    notice(byId("compare-problems"), problemsOf(error));
  }
}

function answer(found) {
  return el("div", { class: "answer" }, found.sentences.map((line) => el("p", {}, line)),
    el("ul", {}, found.notes.map((note) => el("li", {}, note))));
}

function settingsTable(found) {
  const range = rangeOf(found.settings.map((setting) => setting.scores.accuracy));
  const rows = found.settings.map((setting, i) => [
    rowHead(String(i + 1)),
    el("td", { class: "settings" }, setting.setting.split(", ").map((part) => el("code", {}, `${part} `)),
      setting.setting === setting.runs[0] ? null : el("span", { class: "small" }, setting.runs.join(", "))),
    el("td", { class: "score" }, exact(setting.scores.accuracy), drawn(setting.scores.accuracy, range),
      setting.after_selection ? el("span", { class: "small" }, "after selection") : null),
    String(setting.n_seeds),
    count(setting.n_params),
    setting.training_s.toFixed(1),
    verdict(found, setting.setting, i),
  ]);
  const heads = ["", "Setting", "Accuracy", "Seeds", "Parameters", "Training s", "Verdict"];
  return table("Settings, the best accuracy first", heads, rows, "cards");
}

function verdict(found, name, place) {
  if (!found.against_best.length) return "–";
  const tied = place === 0 ? "the best seen" : found.tie_group.includes(name) ? "cannot be told from 1" : "worse than 1";
  return name === found.recommended ? el("strong", {}, `take this: ${tied}`) : tied;
}

function pairsTable(found) {
  const rows = found.against_best.flatMap((pair, i) =>
    Object.entries(pair.differences).map(([metric, each], j) => [
      rowHead(j === 0 ? `${i + 2} minus 1` : ""),
      metric.replaceAll("_", " "),
      `${signed(each.value)} [${signed(each.low)}, ${signed(each.high)}]`,
      pValue(each.p),
      pValue(each.p_holm),
      j === 0 ? (pair.is_tied ? "tie" : "worse") : "",
    ]));
  return table("Tests against the best; p corrected by Holm over all pairs", ["", "Metric", "Difference", "p", "p (Holm)", ""], rows);
}
