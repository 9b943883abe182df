// What the playground shows: classes as bars, words with their effects, changed texts with their classes.

import { el, isolated, rowHead, table } from "./dom.js";
import { signed } from "./words.js";

const MOST_CLASSES = 20;
const NAMES = {
  typos: "typing mistakes", lower: "lower case", upper: "upper case", punctuation: "punctuation deleted",
  truncation: "cut at the end", synonyms: "synonyms", insertion: "words inserted", swap: "words swapped", deletion: "words deleted",
};

// Of several labels each has its threshold: those that reach it are predicted.
const isPredicted = ({ prob, threshold }) => prob >= threshold;
const hasSeveral = (classes) => classes[0].threshold !== undefined;

// What is predicted, in words: the most probable class, or the labels that reach their thresholds.
export function predicted(classes) {
  if (!hasSeveral(classes)) return isolated(classes[0].label);
  return classes.filter(isPredicted).map(({ label }) => isolated(label)).join(", ") || "no label";
}

export function classes(found) {
  const several = hasSeveral(found.classes);
  const rows = found.classes.slice(0, MOST_CLASSES).map((each) => (several ? labelRow(each) : classRow(each)));
  const more = found.classes.length - rows.length;
  const left = (what) => (more > 0 ? `; ${more} less probable ${what} are not shown` : "");
  return [
    el("h2", {}, several ? "Labels" : "Classes"),
    several
      ? table(`Probabilities of each label by itself; the mark is its threshold${left("labels")}`,
        ["Label", "Probability", "", "Threshold", "Predicted"], rows, "classes")
      : table(`Probabilities${left("classes")}`, ["Class", "Probability", ""], rows, "classes"),
    found.is_blank ? el("p", { class: "small" }, "The encoder knows no token of this text: all such texts look the same to it.") : null,
    found.n_unread_words && !found.is_blank ? el("p", { class: "small" }, `The text is longer than the run reads: ${words(found.n_unread_words)} not read.`) : null,
  ];
}

const bar = ({ prob, threshold }) => el("td", { class: threshold === undefined || prob >= threshold ? "bar" : "bar below" },
  el("span", { "aria-hidden": "true", "--share": `${100 * prob}%` }),
  threshold === undefined ? null : el("i", { "aria-hidden": "true", "--at": `${100 * threshold}%` }));

const classRow = (each) => [rowHead(el("bdi", {}, each.label)), each.prob.toFixed(4), bar(each)];

const labelRow = (each) => [
  rowHead(el("bdi", {}, each.label)), each.prob.toFixed(4), bar(each), each.threshold.toFixed(3), isPredicted(each) ? el("strong", {}, "yes") : "no",
];

const words = (n) => (n === 1 ? "1 word was" : `${n} words were`);

export function wordEffects(found) {
  const all = found.texts.flat();
  const most = Math.max(...all.map((each) => Math.abs(each.effect ?? 0)), 1e-9);
  const untried = all.filter((each) => each.effect === null).length;
  return [
    el("h2", {}, "Words that mattered"),
    el("p", {}, `Occlusion: the number under a word is how much lower the probability of ${isolated(found.label)} (${found.prob.toFixed(4)}) ` +
      "would be without it. Blue with +: the word supports it; orange with −, dashed: it counts against it. Effects do not add up."),
    found.texts.map((each) => el("p", { class: "words", dir: "auto" }, each.map((one) => word(one, most)))),
    untried ? el("p", { class: "small" }, `${words(untried)} not tried: unknown to the encoder, beyond what the run reads, or after the ${found.n_tried} that were.`) : null,
  ];
}

function word({ word: text, effect }, most) {
  if (effect === null) return el("span", { class: "untried" }, text, " ");
  const side = Math.abs(effect) < 0.0005 ? "none" : effect > 0 ? "for" : "against";
  return el("span", { class: side, "--share": `${(55 * Math.abs(effect)) / most}%` },
    el("span", {}, text), el("span", { class: "effect", dir: "ltr" }, signed(effect, 3)), " ");
}

const sorted = (classes) => classes.filter(isPredicted).map(({ label }) => label).sort().join("\n");
const isSame = (some, others) =>
  (hasSeveral(some) ? sorted(some) === sorted(others) : some[0].label === others[0].label);

export function changedTexts(variants) {
  const [typed, ...changed] = variants;
  const usual = typed.classes[0].label;
  const said = predicted(typed.classes);
  const prob = (variant) => variant.classes.find(({ label }) => label === usual).prob;
  const rows = changed.map((variant) => [
    rowHead(NAMES[variant.kind] ?? variant.kind),
    el("td", { class: "text", dir: "auto" }, variant.is_changed ? variant.texts.filter((text) => text !== null).join(" ⏐ ") : "nothing to change"),
    variant.is_changed ? prob(variant).toFixed(4) : "–",
    variant.is_changed ? signed(prob(variant) - prob(typed)) : "–",
    !variant.is_changed ? "–" : isSame(variant.classes, typed.classes) ? "stays" : el("strong", {}, `becomes ${predicted(variant.classes)}`),
  ]);
  return [
    el("h2", {}, "The same text, changed"),
    table(`As typed: ${said}${hasSeveral(typed.classes) ? "" : `, ${prob(typed).toFixed(4)}`}`,
      ["Change", "Text", `Probability of ${isolated(usual)}`, "Difference", hasSeveral(typed.classes) ? "Labels" : "Class"], rows, "cards"),
  ];
}
