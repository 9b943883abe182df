// A plan as pictures and tables: where the budget goes, layers × sites, reasons, alternatives, the command.

import { el, rowHead, table, th } from "./dom.js";
import { count, percent } from "./words.js";

export function pictures(found, take, groups) {
  return [
    el("p", { class: "small" }, `${found.encoder_words}; ${found.wish_words}`),
    stack(found),
    partsTable(found),
    found.targets.length ? grid(found) : null,
    el("h2", {}, "Why"),
    el("ul", { id: "plan-reasons" }, found.reasons.map((reason) => el("li", {}, reason))),
    found.alternatives.length ? el("h2", {}, `What else ${count(found.budget)} would buy`) : null,
    found.alternatives.length ? alternatives(found, take, groups) : null,
    el("h2", {}, "The same on the command line"),
    el("pre", { tabindex: "0" }, el("code", { id: "plan-command" }, found.command)),
  ];
}

// What is no site of an adapter is of the head, in the other colour; without adapters all is of one colour.
const isHead = (found, part) => found.targets.length > 0 && !found.targets.some((target) => target.site === part.name);
const tones = (found) => found.per_site.map((part, i) => `tone-${isHead(found, part) ? "head" : "site"}-${i % 6}`);

// One bar as long as the budget, or as what is wished, if that is more.
function stack(found) {
  const whole = Math.max(found.total, found.budget ?? 0);
  const classes = tones(found);
  const parts = found.per_site.map((part, i) =>
    el("span", { class: classes[i], "--share": `${(100 * part.params) / whole}%` }));
  const limit = found.overrun ? el("span", { class: "limit", "--share": `${(100 * found.budget) / whole}%` }) : null;
  const said = found.per_site.map((part) => `${part.name} ${percent(part.params / whole)}`).join(", ");
  const left = found.slack > 0 ? `, unused ${percent(found.slack / whole)}` : "";
  return el("figure", { class: "wide" },
    el("div", { class: "stack", role: "img", "aria-label": `Where the budget goes: ${said}${left}` }, parts, limit),
    el("figcaption", {}, found.overrun ? "Where it would go; the line is the budget." : "Where the budget goes; what is blank is unused."));
}

function partsTable(found) {
  const cell = (value) => (value === null ? "" : count(value));
  const classes = tones(found);
  const rows = found.per_site.map((part, i) => [
    rowHead(el("span", { class: `swatch ${classes[i]}`, "aria-hidden": "true" }), part.name),
    cell(part.rank), cell(part.alpha), cell(part.n_layers), count(part.params), percent(part.params / found.total),
  ]);
  rows.push([rowHead(el("strong", {}, "total")), "", "", "", el("strong", { id: "plan-total" }, count(found.total)), ""]);
  return table("Where each parameter goes", ["Site", "Rank", "Alpha", "Layers", "Parameters", "Share"], rows, "parts-table");
}

// Sites × layers: the rank, or a mark where the method has none; the stronger the colour, the more parameters.
function grid(found) {
  const sites = [...new Set(found.targets.map((target) => target.site))];
  const layers = [...Array(found.architecture.n_layers).keys()];
  const cost = (target) => (target.rank || 1) * (target.rank ? target.d_in + target.d_out : target.d_out);
  const most = Math.max(...found.targets.map(cost));
  const rows = sites.map((site) => [rowHead(site), ...layers.map((layer) => {
    const target = found.targets.find((each) => each.site === site && each.layer === layer);
    if (!target) return el("td", { class: "free" }, "·");
    return el("td", { class: "taken", "--share": `${(55 * cost(target)) / most}%` }, String(target.rank || "×"));
  })]);
  return table("Ranks, sites by layers; layer 0 is the lowest", [th("Site"), ...layers.map((layer) => th(String(layer)))].map(
    (head) => ({ label: head.textContent, cell: head })), rows, "grid");
}

function alternatives(found, take, groups) {
  const heads = [...new Set(found.alternatives.map((row) => row.head))];
  const lines = [...new Set(found.alternatives.map((row) => `${row.sites}\n${row.layers}`))];
  const rows = lines.map((line) => {
    const [sites, layers] = line.split("\n");
    return [rowHead(sites), layers, ...heads.map((head) => {
      const row = found.alternatives.find((each) => each.sites === sites && each.layers === layers && each.head === head);
      if (!row?.fits) return "–";
      const text = row.rank === null ? count(row.total) : `r${row.rank} ${count(row.total)}`;
      if (row.n_changes === 0) return el("strong", {}, text);
      const spelt = sites.split("+").flatMap((site) => groups[site] ?? [site]);
      const use = () => take({ sites: spelt, layers: layers === "all" ? null : layers, head });
      return el("button", { type: "button", class: "plain", onclick: use, "aria-label": `${text}: take sites ${sites}, layers ${layers}, head ${head}` }, text);
    })];
  });
  return table("The largest rank and its total; press one to use it", ["Sites", "Layers", ...heads.map((head) => `head ${head}`)], rows, "alternatives");
}
