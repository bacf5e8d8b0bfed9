/** What is behind this page? The models, the index, and how the service is. */

import { key, Problem } from "./api.js";
import { byId, element, fact, notice } from "./dom.js";
import { server } from "./server.js";
import { count, day, score } from "./words.js";

const again = /** @type {HTMLButtonElement} */ (byId("service-refresh"));
const said = byId("service-status");

/** @param {string} title @param {...Node} facts */
function block(title, ...facts) {
  return element("section", { class: "facts-card" }, element("h2", {}, title), element("dl", {}, ...facts));
}

/** @param {string} text */
const code = (text) => element("code", {}, text);

function modelFacts() {
  const { student, teacher, models } = server;
  return block("Models",
    fact("Student", student ?? "not known"),
    fact("Teacher", teacher === undefined ? "not known" : (teacher ?? "none is served")),
    ...(models.length ? [fact("Served by name", code(models.join(", ")))] : []));
}

/** @param {import("./api.js").IndexFacts} index */
function indexFacts(index) {
  return block("Index",
    fact("Documents", index.documents.toLocaleString("en")),
    fact("Generation", index.generation),
    fact("Changes not folded in", index.changes_pending.toLocaleString("en")),
    fact("Writes", index.read_only ? "refused: read-only" : "accepted"),
    fact("Built", day(index.created)),
    fact("Dimensions", String(index.dims)),
    fact("Built with", index.model),
    fact("Recipe", code(index.recipe)),
    fact(`Recall${index.recall ? `@${index.recall.k}` : ""}`, recall(index.recall)),
    fact("Encoder digest", code(index.encoder_digest)));
}

/** @param {import("./api.js").IndexFacts["recall"]} proven */
function recall(proven) {
  if (proven === null) return "not proven";
  const least = proven.lower_bound < proven.recall ? `, at least ${score(proven.lower_bound)}` : "";
  return `${score(proven.recall)}${least}, shown with ${count(proven.queries, "query", "queries")}`;
}

function show() {
  const { index, problem } = server;
  byId("service-docs").hidden = key.get() !== null; // a link carries no key
  byId("service-facts").replaceChildren(
    ...(problem ? [notice(problem.message), element("p", { class: "hint" }, "What follows may be old.")] : []),
    ...(index?.stays_because ? [notice(`A newer generation is not searched: ${index.stays_because}`)] : []),
    modelFacts(),
    ...(index ? [indexFacts(index)] : []),
    ...(index === null ? [block("Index", fact("Documents", "none"), fact("Because", server.noIndex))] : []),
  );
}

/** What came of asking again. Only a service that answers 404 has no index. */
function summary() {
  const { index, problem } = server;
  if (problem) return problem.message;
  const at = `asked at ${new Date().toLocaleTimeString()}`;
  return index ? `${count(index.documents, "document")}, ${at}` : `No index, ${at}`;
}

again.addEventListener("click", async () => {
  again.disabled = true;
  said.textContent = "Asking…";
  try {
    await server.refresh();
    said.textContent = summary();
  } catch (error) {
    said.textContent = error instanceof Problem ? error.message : String(error);
  } finally {
    again.disabled = false;
    again.focus();
  }
});
server.addEventListener("change", show);
