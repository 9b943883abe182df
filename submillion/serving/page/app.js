// Which part of the page is shown: the address after # says it, so that the back button works.

import * as compare from "./compare.js";
import { byId } from "./dom.js";
import * as planner from "./planner.js";
import * as playground from "./playground.js";
import * as runs from "./runs.js";

const VIEWS = ["runs", "compare", "planner", "playground"];

async function show() {
  const [asked, argument = ""] = location.hash.slice(1).split("/", 2);
  const view = VIEWS.includes(asked) ? asked : "runs";
  for (const name of VIEWS) byId(`view-${name}`).hidden = name !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${byId(`${view}-title`).textContent} · Submillion`;
  const words = decoded(argument);
  if (view === "runs") await runs.load();
  if (view === "compare") compare.show(words.split(",").filter(Boolean));
  if (view === "planner") await planner.show();
  if (view === "playground") {
    await runs.load();
    playground.show(runs.finishedRuns(), words || null);
  }
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

runs.start((names) => {
  location.hash = `compare/${names.map(encodeURIComponent).join(",")}`;
});
compare.start();
planner.start();
playground.start();
window.addEventListener("hashchange", async () => {
  await show();
  const [view] = location.hash.slice(1).split("/", 1);
  if (document.activeElement === document.body || document.activeElement?.closest("nav, [hidden]")) byId(`${VIEWS.includes(view) ? view : "runs"}-title`).focus();
});
show();
