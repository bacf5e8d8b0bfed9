/** One pair of texts, scored by the student and by the teacher. */

import * as api from "./api.js";
import { bar, button, byId, dot, element, notice } from "./dom.js";
import { Panel } from "./panel.js";
import { isNumber, milliseconds, score } from "./words.js";

/** @typedef {import("./panel.js").Values} Values */
/** @typedef {import("./panel.js").View} View */
/** @typedef {import("./dom.js").Side} Side */
/** @typedef {{answer: api.Scored, took: number}} Timed */

const EXAMPLES = [
  { name: "a paraphrase", a: "A man is playing a guitar.", b: "Somebody plays a string instrument." },
  { name: "a negation", a: "The flight leaves on time.", b: "The flight does not leave on time." },
  { name: "unrelated texts", a: "The cat sleeps on the sofa.", b: "Interest rates rose again this year." },
];

/** One after the other, so that neither waits for the other’s processor and both times are fair.
 * @param {Values} values @param {AbortSignal} signal @returns {AsyncIterable<View>} */
async function* ask({ a, b }, signal) {
  const body = { pairs: [[a, b]] };
  const student = await api.timed(api.similarity("student", body, signal));
  const studentScore = student.answer.results[0].score;
  const beside = (/** @type {Node[]} */ ...told) => [cards(scored("student", student), card("teacher", ...told))];
  yield {
    status: "",
    nodes: beside(element("p", { class: "hint" }, "Reading both texts together…")),
    cutShort: (lead, ...told) => ({ status: `Student ${score(studentScore)}. ${lead}`, nodes: beside(...told) }),
  };

  try {
    const teacher = await api.timed(api.similarity("teacher", body, signal));
    const teacherScore = teacher.answer.results[0].score;
    yield {
      status: `Student ${score(studentScore)}, teacher ${score(teacherScore)}: ${score(Math.abs(studentScore - teacherScore))} apart`,
      nodes: [cards(scored("student", student), scored("teacher", teacher))],
    };
  } catch (error) {
    if (!(error instanceof api.Problem) || error.status !== 404) throw error;
    const missing = beside(element("p", {}, "No teacher is served."), element("p", { class: "hint" }, error.message));
    yield { status: `Student ${score(studentScore)}. No teacher is served.`, nodes: missing };
  }
}

/** @param {...Node} both */
const cards = (...both) => element("div", { class: "pair-cards" }, ...both);

/** @param {Side} side @param {...Node} children */
function card(side, ...children) {
  const title = side === "student" ? "Student" : "Teacher";
  return element("section", { class: "pair-card", id: `pair-${side}`, "aria-label": title },
    element("h2", {}, dot(side), title), ...children);
}

/** @param {Side} side @param {Timed} timed */
function scored(side, { answer, took }) {
  const [result] = answer.results;
  const similarity = isNumber(result.similarity) ? `similarity ${score(result.similarity)}, ` : "";
  const long = `A text is longer than ${answer.model} reads. The score is about its beginning.`;
  return card(side,
    element("p", { class: "model-name" }, answer.model),
    element("p", { class: "figure pair-score" }, score(result.score)),
    bar(result.score, side),
    element("p", { class: "hint" }, `${similarity}${milliseconds(took)} round trip`),
    ...(result.truncated ? [notice(long)] : []));
}

export const pair = new Panel("pair", { ask });

const fields = ["pair-first", "pair-second"].map((id) => /** @type {HTMLTextAreaElement} */ (byId(id)));

for (const field of fields) {
  field.addEventListener("keydown", (event) => {
    // isComposing: Enter then belongs to the input method, not to the form.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    pair.submit();
  });
}
byId("pair-swap").addEventListener("click", () => {
  const [first, second] = fields;
  [first.value, second.value] = [second.value, first.value];
  pair.changed();
  if (pair.form.checkValidity() && pair.asked) pair.submit();
});
for (const { name, ...texts } of EXAMPLES) {
  byId("pair-examples").append(button(name, () => pair.askWith(texts), { class: "example" }));
}
