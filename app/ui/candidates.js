/** Candidates that somebody pastes, ranked by the student, the teacher, or both side by side. */

import * as api from "./api.js";
import { comparisonOf, saidOf } from "./comparison.js";
import { button, byId, notice } from "./dom.js";
import { rankedList } from "./hits.js";
import { Panel } from "./panel.js";
import { server } from "./server.js";
import { count, milliseconds } from "./words.js";

/** @typedef {import("./panel.js").Values} Values */
/** @typedef {import("./panel.js").View} View */

const EXAMPLES = [
  {
    name: "a lost password",
    q: "How do I reset my password?",
    candidates: [
      "I forgot my password and cannot sign in.",
      "Steps to change the email address of an account.",
      "Choose a strong password with at least twelve characters.",
      "To set a new password, follow the link on the sign-in page.",
      "Our offices are closed on public holidays.",
    ],
  },
  {
    name: "a man on a horse",
    q: "A man is riding a horse.",
    candidates: [
      "Someone rides an animal.",
      "A horse is riding a man.",
      "A woman is feeding a horse.",
      "A man is riding a bicycle down the street.",
      "The stock market fell on Monday.",
    ],
  },
];

/** One a line. @param {string} text */
const linesOf = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

/** @param {Values} values @param {AbortSignal} signal @returns {AsyncIterable<View>} */
async function* ask({ q, candidates, by }, signal) {
  const body = { query: q, candidates: linesOf(candidates) };
  if (by === "both") {
    const answer = await api.compare(body, "", signal);
    yield { status: saidOf(answer), nodes: [...cut(answer.truncated), ...comparisonOf(answer)] };
    return;
  }
  const side = by === "teacher" ? "teacher" : "student";
  const { answer, took } = await api.timed(api.similarity(side, body, signal));
  const ranked = answer.results.map((result) => ({
    ...result, id: `candidate ${result.index + 1}`, text: body.candidates[result.index],
  }));
  ranked.sort((left, right) => right.score - left.score || left.index - right.index);
  yield {
    status: `${count(ranked.length, "candidate")} ranked by ${answer.model}, ${milliseconds(took)} round trip`,
    nodes: [...cut(ranked.some((each) => each.truncated)), rankedList(ranked, side)],
  };
}

/** @param {boolean} truncated */
function cut(truncated) {
  return truncated ? [notice("A text is longer than the models read. The scores are about its beginning.")] : [];
}

const list = /** @type {HTMLTextAreaElement} */ (byId("candidates-list"));

function changed() {
  byId("candidates-count").textContent = count(linesOf(list.value).length, "candidate");
}

/** @type {NonNullable<import("./panel.js").Ways["explain"]>} */
function explain(problem, panel) {
  if (problem.status !== 404) return {};
  const way = button("Show the student’s order", () => panel.askWith({ by: "student" }), { "data-student": "" });
  return { lead: "No teacher is served.", ways: [way] };
}

export const candidates = new Panel("candidates", { ask, changed, explain, defaults: { by: "both" } });

const by = /** @type {NodeListOf<HTMLInputElement>} */ (candidates.form.querySelectorAll("input[name=by]"));

for (const field of by) {
  field.addEventListener("change", () => candidates.asked && candidates.submit());
}
list.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  candidates.submit();
});
for (const { name, q, candidates: texts } of EXAMPLES) {
  const ask = () => candidates.askWith({ q, candidates: texts.join("\n") });
  byId("candidates-examples").append(button(name, ask, { class: "example" }));
}
server.addEventListener("change", () => {
  const alone = server.teacher === null;
  for (const field of by) if (field.value !== "student") field.disabled = alone;
  candidates.defaults.by = alone ? "student" : "both";
  // The choice alone: somebody may be writing in the other fields.
  if (alone && !candidates.results.hasChildNodes()) for (const field of by) field.checked = field.value === "student";
});
