/** How do student and teacher stand to each other? Agreement, time, and every text in both orders. */

import { bar, button, dot, drawn, element, fact, hiddenText } from "./dom.js";
import { textWithId } from "./hits.js";
import { agreement, count, decimals, isNumber, milliseconds, score, speed } from "./words.js";

/** @typedef {import("./api.js").Comparison} Comparison */
/** @typedef {import("./api.js").Compared} Compared */
/** @typedef {import("./dom.js").Side} Side */

const LINES = 20; // more in one drawing cannot be told from each other

/** @param {Comparison} answer @returns {Node[]} */
export function comparisonOf(answer) {
  return [summaryOf(answer), ...tableOf(answer.results)];
}

/** @param {Comparison} answer */
function summaryOf(answer) {
  const same = sameOrder(answer.results);
  return element("div", { class: "summary" },
    element("dl", { class: "agreement", "aria-label": "Agreement of the two orders" },
      correlation("Spearman", answer.agreement.spearman, same),
      correlation("Kendall", answer.agreement.kendall, same),
      fact("Student", element("span", { class: "figure", "data-fact": "speed" }, speed(answer.milliseconds)),
        element("span", { class: "hint" }, "than the teacher"))),
    element("div", { class: "times", role: "group", "aria-label": "Time on the server" },
      timeRow("student", answer.student, answer.milliseconds),
      timeRow("teacher", answer.teacher, answer.milliseconds)),
    ordersOf(answer.results));
}

/** @param {Compared[]} results */
const sameOrder = (results) => results.every(({ student, teacher }) => student.rank === teacher.rank);

/** @param {string} term @param {number | null} value @param {boolean} same */
function correlation(term, value, same) {
  return fact(term,
    element("span", { class: "figure", "data-fact": term.toLowerCase() }, decimals(value, 2)),
    element("span", { class: "hint" }, agreement(value, same)));
}

/** @param {Side} side @param {string} model @param {{student: number, teacher: number}} times */
function timeRow(side, model, times) {
  const longest = Math.max(times.student, times.teacher);
  return element("div", { class: "time" },
    element("span", { class: "time-model" }, dot(side), model),
    bar(times[side] / longest, side),
    element("span", { class: "time-value", "data-fact": `milliseconds-${side}` }, milliseconds(times[side])));
}

/**
 * The student's order on the left, the teacher's on the right, a line from each text's place to its other.
 * @param {Compared[]} results
 */
function ordersOf(results) {
  const seen = results.filter(({ student, teacher }) => Math.max(student.rank, teacher.rank) <= LINES);
  const height = 100;
  const step = height / Math.min(LINES, Math.max(results.length, 1));
  const place = (/** @type {number} */ rank) => (rank - 0.5) * step;
  const lines = seen.flatMap(({ student, teacher }) => [
    drawn("line", {
      class: `order-line ${wordOf(student.rank - teacher.rank)}`,
      x1: 8, x2: 112, y1: place(student.rank), y2: place(teacher.rank),
    }),
    drawn("circle", { class: "order-student", cx: 8, cy: place(student.rank), r: Math.min(3, step / 3) }),
    drawn("circle", { class: "order-teacher", cx: 112, cy: place(teacher.rank), r: Math.min(3, step / 3) }),
  ]);
  return drawn("svg", { class: "orders", viewBox: `0 0 120 ${height}`, "aria-hidden": "true" }, ...lines);
}

/** @param {number} places by which the teacher moves a text up */
const wordOf = (places) => (places === 0 ? "same" : places > 0 ? "higher" : "lower");

/** The texts, and two buttons that choose in whose order. @param {Compared[]} results @returns {Node[]} */
function tableOf(results) {
  const body = element("tbody", { role: "rowgroup" });
  const order = orderSwitch((side) => {
    const bestFirst = [...results].sort((left, right) => left[side].rank - right[side].rank);
    body.replaceChildren(...bestFirst.map(row));
  });
  const label = "Student and teacher, text by text";
  return [order, element("table", { role: "table", class: "comparison", "aria-label": label }, head(), body)];
}

/** @param {(side: Side) => void} onChoice */
function orderSwitch(onChoice) {
  const sides = /** @type {Side[]} */ (["student", "teacher"]);
  const choices = sides.map((side) => button(side, () => choose(side), { class: "choice", "data-order": side }));
  /** @param {Side} side */
  function choose(side) {
    for (const node of choices) node.setAttribute("aria-pressed", String(node.dataset.order === side));
    onChoice(side);
  }
  choose("student");
  return element("div", { class: "order", role: "group", "aria-label": "Order of the rows" },
    element("span", { class: "hint" }, "In the order of the"), element("div", { class: "segments" }, ...choices));
}

function head() {
  const cell = (/** @type {string} */ name, /** @type {(Node | string)[]} */ ...children) =>
    element("th", { role: "columnheader", scope: "col", class: name }, ...children);
  return element("thead", { role: "rowgroup" }, element("tr", { role: "row" },
    cell("rank-cell", dot("student"), "Student"), cell("rank-cell", dot("teacher"), "Teacher"),
    cell("shift-cell", "Shift"), cell("text-cell", "Text"), cell("scores-cell", "Scores")));
}

/**
 * The roles are spelled out because on a phone the rows are laid out as cards, which would drop them.
 * @param {Compared} result
 */
function row(result) {
  const cell = (/** @type {string} */ name, /** @type {(Node | string)[]} */ ...children) =>
    element("td", { role: "cell", class: name }, ...children);
  return element("tr", { role: "row", class: "compared" },
    cell("rank-cell student-rank", String(result.student.rank)),
    cell("rank-cell teacher-rank", String(result.teacher.rank)),
    cell("shift-cell", shiftOf(result)),
    cell("text-cell", textWithId(result.id ?? `candidate ${result.index + 1}`, result.text)),
    cell("scores-cell", scoreLine("student", result.student.score), scoreLine("teacher", result.teacher.score)));
}

/** How far the teacher moves a text from the student's place: ▲ is nearer the top. @param {Compared} result */
function shiftOf({ student, teacher }) {
  const places = student.rank - teacher.rank;
  if (places === 0) return element("span", { class: "shift", "data-shift": "0" }, "=", hiddenText(" same place"));
  const word = wordOf(places);
  return element("span", { class: `shift shift-${word}`, "data-shift": String(places) },
    element("span", { "aria-hidden": "true" }, `${places > 0 ? "▲" : "▼"} ${Math.abs(places)}`),
    hiddenText(`the teacher puts it ${count(Math.abs(places), "place")} ${word}`));
}

/** @param {Side} side @param {number} value */
function scoreLine(side, value) {
  return element("div", { class: "score-line" },
    hiddenText(`${side} `), bar(value, side), element("span", { class: `number ${side}-score` }, score(value)));
}

/** "10 texts scored by both: their orders are much alike, the student 9.6× faster". @param {Comparison} answer */
export function saidOf({ results, milliseconds: times, agreement: agreed }) {
  const alike = isNumber(agreed.spearman) ? `their orders are ${agreement(agreed.spearman, sameOrder(results))}, ` : "";
  return `${count(results.length, "text")} scored by both: ${alike}the student ${speed(times)}`;
}
