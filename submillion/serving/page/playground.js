// The playground: a text, its classes, the words that mattered, the same text changed.

import { lastOnly, post, problemsOf } from "./api.js";
import { byId, el, fill, isolated, notice } from "./dom.js";
import { changedTexts, classes, predicted, wordEffects } from "./play_view.js";

const READ = {
  cut: (n) => `the first ${n} tokens are read`,
  "head-tail": (n) => `the first and the last tokens are read, ${n} in all`,
  windows: (n) => `texts are read in windows of ${n} tokens`,
};
const latest = lastOnly();
const latestModel = lastOnly();
let facts = null; // of the loaded run

export function start() {
  byId("play-form").addEventListener("submit", (event) => {
    event.preventDefault();
    classify();
  });
  for (const box of [byId("play-text"), byId("play-pair")]) {
    box.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        classify();
      }
    });
  }
  byId("play-run").addEventListener("change", () => {
    location.hash = `playground/${encodeURIComponent(byId("play-run").value)}`;
  });
  byId("play-strength").addEventListener("change", () => byId("played").childElementCount && classify());
}

export function show(runs, wanted) {
  const names = runs.map((row) => row.run);
  const asked = wanted && !names.includes(wanted) ? [wanted] : [];
  const first = el("option", { value: "" }, names.length ? "choose a finished run" : "no finished run here");
  fill(byId("play-run"), first, [...asked, ...names].map((name) => el("option", { value: name }, name)));
  byId("play-run").value = wanted ?? "";
  if (wanted && facts?.run !== wanted) load(wanted);
  if (!wanted) forget();
}

function forget() {
  facts = null;
  byId("play-go").disabled = true;
  byId("play-model").textContent = "";
  byId("play-status").textContent = "";
  byId("play-second").hidden = true;
  notice(byId("play-problems"), []);
  fill(byId("played"));
}

async function load(name) {
  forget();
  byId("play-model").textContent = `loading ${name} … the first run takes a few seconds`;
  try {
    const found = await latestModel(post(`api/runs/${encodeURIComponent(name)}/load`));
    if (found === undefined) return;
    facts = found;
    byId("play-go").disabled = false;
    byId("play-second").hidden = facts.text_pair === null;
    byId("play-text-label").textContent = `Text (${facts.text.join(" ")})`;
    byId("play-pair-label").textContent = `Second text (${facts.text_pair ?? ""})`;
    byId("play-model").textContent = `ready: ${facts.labels.length} ${facts.has_several_labels ? "labels" : "classes"} (${facts.labels.slice(0, 8).map(isolated).join(", ")}` +
      `${facts.labels.length > 8 ? ", …" : ""}), ${READ[facts.long_texts](facts.max_length)}; ${facts.precision} on ${facts.device}`;
  } catch (error) {
    byId("play-model").textContent = "";
    notice(byId("play-problems"), problemsOf(error));
  }
}

function asked() {
  const body = { text: byId("play-text").value, strength: byId("play-strength").value };
  if (facts.text_pair !== null) body.text_pair = byId("play-pair").value;
  return body;
}

async function classify() {
  if (facts === null) return notice(byId("play-problems"), ["no run is loaded: choose a finished one, or wait until it is ready"]);
  const body = asked();
  const problems = [["text", body.text], ["second text", body.text_pair]].flatMap(([name, text]) =>
    text === undefined ? [] : text.length > facts.max_characters
      ? [`the ${name} has ${text.length.toLocaleString("en-GB")} characters: at most ${facts.max_characters.toLocaleString("en-GB")} are allowed here; shorten it, or use \`submillion predict\``]
      : text.trim() === "" ? [`the ${name} is empty: type at least one word`] : []);
  notice(byId("play-problems"), problems);
  if (problems.length) {
    byId("play-status").textContent = "";
    return fill(byId("played"));
  }
  try {
    await answers(`api/runs/${encodeURIComponent(facts.run)}`, body);
  } catch (error) {
    byId("play-status").textContent = "";
    notice(byId("play-problems"), problemsOf(error));
  }
}

// Three answers, each shown when it is there: classes at once, words and changes after them.
async function answers(path, body) {
  const boxes = ["classes", "words", "changes"].map((name) => el("div", { id: `played-${name}` }));
  fill(byId("played"), boxes);
  byId("play-status").textContent = `computing the ${facts.has_several_labels ? "labels" : "classes"} …`;
  const found = await latest(post(`${path}/predict`, body));
  if (found === undefined) return;
  fill(boxes[0], classes(found));
  byId("play-status").textContent = "computing the words' effects …";
  const words = await latest(post(`${path}/words`, body));
  if (words === undefined) return;
  fill(boxes[1], wordEffects(words));
  byId("play-status").textContent = "computing the changed texts …";
  const changed = await latest(post(`${path}/variants`, body));
  if (changed === undefined) return;
  fill(boxes[2], changedTexts(changed.variants));
  const best = found.classes[0].prob.toFixed(4);
  byId("play-status").textContent = facts.has_several_labels ? `predicted: ${predicted(found.classes)}` : `${predicted(found.classes)}, probability ${best}`;
}
