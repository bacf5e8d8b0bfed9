/** Search of the index, by the student, the teacher, or both side by side. */

import * as api from "./api.js";
import { comparisonOf, saidOf } from "./comparison.js";
import { button, byId, notice } from "./dom.js";
import { filterChanged, filterRefused, filterWith, offerFilters, openFilter } from "./filter_field.js";
import { rankedList } from "./hits.js";
import { Panel } from "./panel.js";
import { server } from "./server.js";
import { count, milliseconds } from "./words.js";

/** @typedef {import("./panel.js").Values} Values */
/** @typedef {import("./panel.js").View} View */

const EXAMPLES = [
  "wait for several threads to finish",
  "parse a date from a string",
  "copy a file",
  "run a command and read its output",
];

const HINTS = /** @type {Record<string, string>} */ ({
  head: "The index finds candidates, the student’s head scores them.",
  none: "Candidates in the index’s own order, by the cosine of two embeddings.",
  teacher: "The index finds candidates, the teacher reads each one with the query. Exact, and slow.",
  both: "Both score the student’s best results: scores, ranks, agreement and time, side by side. Depth is the service’s own.",
});

/** @param {Values} values @param {AbortSignal} signal @returns {AsyncIterable<View>} */
async function* ask(values, signal) {
  if (values.by === "both") {
    const answer = await api.compare({ query: values.q, k: Number(values.k) }, values.filter, signal);
    yield answer.results.length ? { status: saidOf(answer), nodes: [...cut(answer), ...comparisonOf(answer)] } : nothing(values);
    return;
  }
  const depth = values.depth === "" ? null : Number(values.depth);
  const body = { query: values.q, k: Number(values.k), depth, rerank: values.by };
  const { answer, took } = await api.timed(api.search(body, values.filter, signal));
  server.answeredFrom(answer.generation);
  if (answer.hits.length === 0) {
    yield nothing(values);
    return;
  }
  const side = values.by === "teacher" ? "teacher" : "student";
  yield {
    status: `${count(answer.hits.length, "result")} by ${answer.model}, ${milliseconds(took)} round trip`,
    nodes: [...cut(answer), rankedList(answer.hits, side, narrow)],
  };
}

/** @param {Values} values @returns {View} */
function nothing(values) {
  if (values.filter === "") return { status: "", nodes: [notice("The index holds no document to answer with.")] };
  const shown = notice("No document satisfies the filter. ");
  shown.append(button("Search without it", () => search.askWith({ filter: "" }), { id: "search-unfiltered" }));
  return { status: "0 results", nodes: [shown] };
}

/** @param {{truncated: boolean}} answer */
function cut({ truncated }) {
  return truncated ? [notice("A text is longer than the models read. The scores are about its beginning.")] : [];
}

/** @type {import("./hits.js").Narrow} */
function narrow(name, value) {
  const filter = filterWith(name, value);
  if (filter === null) return;
  openFilter();
  search.askWith({ filter });
}

function changed() {
  const by = /** @type {RadioNodeList} */ (form().elements.namedItem("by")).value;
  byId("search-hint").textContent = HINTS[by] ?? "";
  /** @type {HTMLInputElement} */ (byId("search-depth")).disabled = by === "both";
  filterChanged();
}

const form = () => /** @type {HTMLFormElement} */ (byId("search-form"));

/** @type {NonNullable<import("./panel.js").Ways["explain"]>} */
function explain(problem, panel) {
  if (problem.param?.startsWith("filter")) filterRefused(problem.message);
  const { by } = panel.values;
  if (problem.status !== 404 || server.index === null || (by !== "both" && by !== "teacher")) return {};
  const way = button("Show the student’s results", () => panel.askWith({ by: "head" }), { id: "search-without-teacher" });
  return { lead: "No teacher is served.", ways: [way] };
}

export const search = new Panel("search", { ask, changed, explain, defaults: { k: "10", by: "head" } });

/** What the service has decides what can be asked. */
function follow() {
  const missing = server.index === null;
  const asking = byId("no-index").contains(document.activeElement);
  byId("no-index").hidden = !missing;
  byId("no-index-message").textContent = server.noIndex;
  form().hidden = missing;
  if (asking && !missing) byId("search-query").focus(); // the button that asked is gone
  for (const field of form().querySelectorAll("input[name=by]")) {
    if (!(field instanceof HTMLInputElement) || !["both", "teacher"].includes(field.value)) continue;
    field.disabled = server.teacher === null;
  }
}

offerFilters(() => search.changed());
for (const field of form().querySelectorAll("input[name=by]")) {
  field.addEventListener("change", () => search.asked && search.submit());
}
byId("search-filter").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  search.submit();
});
byId("search-examples").append(...EXAMPLES.map((q) => button(q, () => search.askWith({ q }), { class: "example" })));
byId("no-index-retry").addEventListener("click", () => server.refresh().catch(() => {}));
server.addEventListener("change", follow);
