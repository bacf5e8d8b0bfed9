/** The page of DSE: its tabs, its address, and what begins when it is opened. */

import { readAddress, visit } from "./address.js";
import { Problem } from "./api.js";
import { candidates } from "./candidates.js";
import { byId } from "./dom.js";
import { askForKey } from "./lock.js";
import { pair } from "./pair.js";
import { search } from "./search.js";
import { server } from "./server.js";
import "./service.js";

/** @typedef {import("./panel.js").Panel} Panel */
/** @typedef {{name: string, tab: HTMLElement, section: HTMLElement, address: string}} Tabbed */

/** The last one asks nothing of the models, so it is no Panel. @type {Tabbed[]} */
const tabbed = [
  search,
  candidates,
  pair,
  { name: "service", tab: byId("tab-service"), section: byId("panel-service"), address: "#service" },
];
const panels = /** @type {Record<string, Panel>} */ ({ search, candidates, pair });

/** @param {Tabbed} chosen */
function open(chosen) {
  for (const each of tabbed) {
    each.tab.setAttribute("aria-selected", String(each === chosen));
    each.tab.tabIndex = each === chosen ? 0 : -1;
    each.section.hidden = each !== chosen;
  }
  document.title = `${chosen.tab.textContent?.trim()} · DSE`;
}

/** @param {Tabbed} chosen */
function choose(chosen) {
  open(chosen);
  visit(chosen.address);
}

/** @param {string} name */
const named = (name) => tabbed.find((each) => each.name === name) ?? search;

/**
 * Show what the address asks for; a complete question is asked at once.
 * @param {{drafts: boolean}} stay whether what somebody writes stays as it is
 */
function followAddress({ drafts }) {
  const hash = location.hash;
  const { panel: name, asked } = readAddress(hash);
  const chosen = named(name);
  open(chosen);
  const panel = panels[chosen.name];
  const address = hash.length > 1 ? hash : chosen.address;
  if (!panel || address === panel.address) return; // already there, and perhaps with a draft in the form
  panel.address = address;
  if (drafts && panel.draft) return;
  panel.fill(asked);
  panel.clear();
  const answerable = panel !== search || server.index !== null;
  if (answerable && panel.form.checkValidity()) panel.run();
}

/** @param {KeyboardEvent} event */
function moveBetweenTabs(event) {
  const here = tabbed.findIndex((each) => each.tab === event.target);
  const places = /** @type {Record<string, number>} */ ({
    ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: tabbed.length - 1,
  });
  if (here < 0 || !(event.key in places)) return;
  event.preventDefault();
  const chosen = tabbed[(places[event.key] + tabbed.length) % tabbed.length];
  choose(chosen);
  chosen.tab.focus();
}

/** @param {KeyboardEvent} event */
function focusSearch(event) {
  const typing = event.target instanceof Element && event.target.closest("input:not([type=radio]), textarea, select");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  choose(search);
  const field = /** @type {HTMLInputElement} */ (byId("search-query"));
  field.focus();
  field.select();
}

/** First what is served, so that a link to a search does not ask a service that has nothing to search. Whoever did
 * not wait for that keeps what they wrote. */
async function start() {
  try {
    await server.refresh();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.status === 401) {
      askForKey(start);
      return;
    }
  }
  followAddress({ drafts: true });
}

for (const each of tabbed) {
  each.tab.addEventListener("click", () => choose(each));
  each.tab.addEventListener("keydown", moveBetweenTabs);
}
byId("skip-link").addEventListener("click", (event) => {
  event.preventDefault(); // its address would be taken for a question
  tabbed.find((each) => !each.section.hidden)?.tab.focus();
});
document.addEventListener("keydown", focusSearch);
window.addEventListener("hashchange", () => followAddress({ drafts: false }));
open(named(readAddress(location.hash).panel));
start();
