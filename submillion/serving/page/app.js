// Which part of the page is shown, and what is set there: the address after # says both, so that the back button and
// bookmarks work. #view/argument?key=value

import { byId } from "./dom.js";
import * as planner from "./planner.js";
import * as playground from "./playground.js";
import * as runs from "./runs.js";

const VIEWS = ["runs", "planner", "playground"];

async function show() {
  const [path, query = ""] = location.hash.slice(1).split("?", 2);
  const [asked, argument = ""] = path.split("/", 2);
  const view = VIEWS.includes(asked) ? asked : "runs";
  const params = new URLSearchParams(query);
  for (const name of VIEWS) byId(`view-${name}`).hidden = name !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${byId(`${view}-title`).textContent} · Submillion`;
  if (view === "runs") await runs.load(params);
  if (view === "planner") await planner.show(params);
  if (view === "playground") {
    await runs.load(null);
    playground.show(runs.finishedRuns(), decoded(argument) || null);
  }
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

runs.start();
planner.start();
playground.start();
window.addEventListener("hashchange", async () => {
  await show();
  const title = document.querySelector("section:not([hidden]) h1");
  if (document.activeElement === document.body || document.activeElement?.closest("nav, [hidden]")) title.focus();
});
show();
