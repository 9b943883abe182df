// The planner: wishes in, the plan of `submillion plan` out, at each change.

import { get, lastOnly, post, problemsOf } from "./api.js";
import { byId, el, fill, notice, remember } from "./dom.js";
import { pictures } from "./plan_view.js";
import { count } from "./words.js";

const latest = lastOnly();
const NO_RANK = ["ia3", "none"];
let choices = null;
let waiting = null;

// The slider is logarithmic: 1,000 at 0, ten times more every 100 steps, three digits, so that each step is seen.
const budgetAt = (place) => Number((10 ** (3 + place / 100)).toPrecision(3));
const placeOf = (budget) => Math.round(100 * (Math.log10(Math.max(budget, 1)) - 3));

export function start() {
  byId("plan-form").addEventListener("submit", (event) => event.preventDefault());
  byId("plan-form").addEventListener("input", changed);
}

// The form as the address says; what it leaves out is as in the beginning.
export async function show(params) {
  try {
    choices ??= await get("api/choices");
  } catch (error) {
    notice(byId("plan-problems"), problemsOf(error));
    return;
  }
  if (byId("plan-model").childElementCount === 0) offer();
  const { sites, ...usual } = { ...choices.start, n_classes: 4, layers: "", rank: "" };
  const wanted = Object.fromEntries(Object.entries(usual).map(([key, value]) => [key, params.get(key) ?? value]));
  take({ ...wanted, sites: params.get("sites")?.split(" ") ?? sites });
}

function offer() {
  const option = (value, text = value) => el("option", { value }, text);
  fill(byId("plan-model"), Object.entries(choices.models).map(([name]) => option(name, `${name} (${choices.n_layers[name]} layers)`)));
  fill(byId("plan-method"), choices.methods.map((name) => option(name, name === "none" ? "none: full fine-tuning" : name)));
  fill(byId("plan-head"), choices.heads.map((name) => option(name)));
  fill(byId("plan-site-boxes"), choices.sites.map((site) =>
    el("label", {}, el("input", { type: "checkbox", name: "site", value: site }), ` ${site}`)));
}

// Put wishes into the form: those of the address, or of an alternative.
function take({ model, n_classes, budget, method, sites, layers, rank, head }) {
  const [end, n] = (layers ?? "").split(":");
  const values = { model, classes: n_classes, budget, method, layers: end, "n-layers": n ?? "", rank: rank ?? "", head };
  for (const [name, value] of Object.entries(values)) byId(`plan-${name}`).value = value;
  for (const box of siteBoxes()) box.checked = sites.includes(box.value);
  follow();
  plan();
}

function takeAlternative(wishes) {
  take({ ...wish(), rank: null, ...wishes });
  byId("plan-status").focus({ preventScroll: true }); // the button that was pressed goes with the old table
}

const siteBoxes = () => [...byId("plan-site-boxes").querySelectorAll("input")];

function changed(event) {
  if (choices === null) return; // they are on their way
  if (event.target === byId("plan-slider")) byId("plan-budget").value = budgetAt(Number(event.target.value));
  follow();
  clearTimeout(waiting);
  waiting = setTimeout(plan, 80);
}

// Fields that follow from others.
function follow() {
  const nLayers = choices.n_layers[byId("plan-model").value];
  const budget = Number(byId("plan-budget").value);
  const method = byId("plan-method").value;
  byId("plan-slider").value = placeOf(budget);
  byId("plan-slider").setAttribute("aria-valuetext", `${count(budget)} parameters`);
  byId("plan-n-layers").disabled = byId("plan-layers").value === "";
  byId("plan-n-layers").max = nLayers;
  if (byId("plan-layers").value && !byId("plan-n-layers").value) byId("plan-n-layers").value = Math.ceil(nLayers / 2);
  byId("plan-sites").disabled = method === "none";
  byId("plan-layers").disabled = method === "none";
  byId("plan-n-layers").disabled ||= method === "none";
  byId("plan-rank").disabled = NO_RANK.includes(method);
}

function wish() {
  const method = byId("plan-method").value;
  const end = byId("plan-layers").value;
  const rank = byId("plan-rank").value;
  const sites = siteBoxes().filter((box) => box.checked).map((box) => box.value);
  return {
    model: byId("plan-model").value,
    n_classes: Number(byId("plan-classes").value),
    budget: Number(byId("plan-budget").value),
    method,
    sites: method === "none" ? choices.start.sites : sites,
    layers: end && method !== "none" ? `${end}:${byId("plan-n-layers").value}` : null,
    rank: rank && !NO_RANK.includes(method) ? Number(rank) : null,
    head: byId("plan-head").value,
  };
}

async function plan() {
  const invalid = [...byId("plan-form").elements].find((field) => field.willValidate && !field.checkValidity());
  if (invalid) return failed([`${invalid.labels[0]?.textContent ?? invalid.ariaLabel}: ${invalid.validationMessage}`]);
  const wished = wish();
  remember("planner", { ...wished, sites: wished.sites.join(" ") });
  try {
    const found = await latest(post("api/plan", wished));
    if (found === undefined) return;
    notice(byId("plan-problems"), found.overrun ? found.overrun.error.split("\n") : []);
    byId("plan-status").textContent = found.overrun
      ? `over the budget by ${count(found.overrun.excess)}: ${found.total_words}`
      : `${ranks(found)}${found.total_words}; ${found.slack_words}`;
    fill(byId("planned"), pictures(found, takeAlternative, choices.groups));
  } catch (error) {
    failed(problemsOf(error));
  }
}

function failed(problems) {
  byId("plan-status").textContent = "";
  fill(byId("planned"));
  notice(byId("plan-problems"), problems);
}

function ranks(found) {
  const different = [...new Set(Object.values(found.ranks))];
  return different.length ? `rank ${different.join(", ")}: ` : "";
}
