/** How is a ranked list of texts shown? */

import { bar, button, element, fact, hiddenText } from "./dom.js";
import { count, inFull, score } from "./words.js";

/** @typedef {import("./dom.js").Side} Side */
/**
 * @typedef {object} Ranked
 * @property {string} id
 * @property {string} text
 * @property {number} score
 * @property {number | null} similarity
 * @property {Record<string, unknown>} [metadata]
 */
/** @typedef {(name: string, value: unknown) => void} Narrow called with a fact of a document that somebody chose */

// What a list shows of each text at first: one as long as a book would hide the others.
const CHARACTERS = 1200;
const LINES = 15;

/**
 * An id above its text. A text that opens with its own id ("os.path.join: Join two…") is not made to say it twice.
 * @param {string} id
 * @param {string} text
 */
export function textWithId(id, text) {
  const named = element("span", { class: "text-id" }, id);
  const opening = `${id}: `;
  if (!text.startsWith(opening)) return element("div", {}, named, ...folded(text));
  return element("div", {}, ...folded(text.slice(opening.length), named, hiddenText(": ")));
}

/**
 * A text; of a long one its beginning, and a button for all of it.
 * @param {string} text
 * @param {...Node} before
 */
function folded(text, ...before) {
  const beginning = beginningOf(text);
  const words = document.createTextNode(text);
  const shown = element("p", { class: "text" }, ...before, words);
  if (beginning === text) return [shown];
  const turn = button("", () => show(words.data !== text), { class: "plain" });
  /** @param {boolean} all */
  function show(all) {
    words.data = all ? text : `${beginning}…`;
    turn.textContent = all ? "Show less" : `Show all ${count(text.length, "character")}`;
    turn.setAttribute("aria-expanded", String(all));
    if (!all) turn.scrollIntoView({ block: "nearest" }); // it was at the end of all
  }
  show(false);
  return [shown, turn];
}

/** Up to the end of a word, if one ends nearby, and never half of a character. @param {string} text */
function beginningOf(text) {
  const lines = text.slice(0, CHARACTERS).split("\n", LINES).join("\n");
  return lines.length === text.length ? text : lines.replace(/(\s+\S{0,30}|[\uD800-\uDBFF])$/, "");
}

/**
 * Best first.
 * @param {Ranked[]} hits
 * @param {Side} side whose scores they are
 * @param {Narrow} [narrow]
 */
export function rankedList(hits, side, narrow) {
  return element("ol", { class: "hits" }, ...hits.map((hit, position) => item(hit, position, side, narrow)));
}

/** @param {Ranked} hit @param {number} position @param {Side} side @param {Narrow} [narrow] */
function item(hit, position, side, narrow) {
  return element("li", { class: "hit" },
    element("span", { class: "rank", "aria-hidden": "true" }, String(position + 1)),
    element("div", { class: "hit-body" }, textWithId(hit.id, hit.text), ...metadataList(hit.metadata ?? {}, narrow)),
    element("div", { class: "hit-numbers" },
      element("span", { class: "number" },
        hiddenText("score "), element("span", { class: "hit-score" }, score(hit.score))),
      bar(hit.score, side),
      ...similarityOf(hit)));
}

/** @param {Ranked} hit */
function similarityOf({ similarity }) {
  if (similarity === null) return [];
  return [element("span", { class: "similarity" },
    "similarity ", element("span", { class: "hit-similarity" }, score(similarity)))];
}

/** @param {Record<string, unknown>} metadata @param {Narrow} [narrow] */
function metadataList(metadata, narrow) {
  const entries = Object.entries(metadata);
  if (entries.length === 0) return [];
  const shown = entries.map(([name, value]) => fact(name, ...valuesOf(name, value, narrow)));
  return [element("dl", { class: "metadata" }, ...shown)];
}

/** @param {string} name @param {unknown} value @param {Narrow} [narrow] @returns {(Node | string)[]} */
function valuesOf(name, value, narrow) {
  if (Array.isArray(value) && value.every((each) => !isContainer(each))) {
    return value.flatMap((each) => valuesOf(name, each, narrow));
  }
  const text = worded(value);
  const usable = inFull(value) && !isContainer(value) && !name.startsWith("$");
  if (!narrow || !usable) return [element("span", { class: "value" }, text)];
  const node = element("button", { type: "button", class: "value", title: `Only where ${name} is ${text}` }, text);
  node.addEventListener("click", () => narrow(name, value));
  return [node];
}

/** As text that can be seen: a blank string is in quotes. @param {unknown} value */
function worded(value) {
  if (!inFull(value)) return `≈ ${value}`;
  return typeof value === "string" && value.trim() ? value : JSON.stringify(value);
}

/** @param {unknown} value */
const isContainer = (value) => typeof value === "object" && value !== null;
