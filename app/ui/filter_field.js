/** How does somebody who does not know the language write a filter? By being told, while writing, what it says. */

import { button, byId, element } from "./dom.js";
import { inWords, narrowed, read } from "./filter.js";

const PAUSE_MS = 350; // somebody who is still typing needs no correction

const EXAMPLES = [
  '{"lang": "en"}',
  '{"year": {"$gte": 2020, "$lt": 2024}}',
  '{"tags": {"$in": ["news", "sport"]}}',
  '{"source": {"$ne": "draft"}}',
  '{"author.name": {"$exists": true}}',
  '{"$or": [{"lang": "en"}, {"year": 2024}]}',
];

const field = /** @type {HTMLTextAreaElement} */ (byId("search-filter"));
const box = /** @type {HTMLDetailsElement} */ (byId("filter-box"));
const told = byId("filter-told");
const mark = byId("filter-mark");

/** @type {ReturnType<typeof setTimeout> | undefined} */
let pause;

/** Say what the filter lets through, or what is wrong with it. */
function tell() {
  clearTimeout(pause);
  const { filter, fault, isJson } = read(field.value);
  const words = fault ? [fault.place, fault.problem].filter(Boolean).join(": ") : filter && `Finds: ${inWords(filter)}`;
  told.textContent = words ?? "";
  told.dataset.kind = fault ? "fault" : "words";
  // Only what is no JSON cannot be sent; the rest of the language is for the service to judge.
  field.setCustomValidity(isJson ? "" : `Filter: ${words}`);
  mark.hidden = field.value.trim() === "";
  if (fault) field.setAttribute("aria-invalid", "true");
  else field.removeAttribute("aria-invalid");
}

/** The field changed: look at once whether it can be sent, and tell after a pause. */
export function filterChanged() {
  clearTimeout(pause);
  mark.hidden = field.value.trim() === "";
  const { fault, isJson } = read(field.value);
  field.setCustomValidity(isJson ? "" : `Filter: ${fault?.problem}`);
  if (fault) pause = setTimeout(tell, PAUSE_MS);
  else tell();
}

/** Show the field, and what is in it. */
export function openFilter() {
  box.open = true;
  tell();
}

/** What the service has against the filter. @param {string} message */
export function filterRefused(message) {
  openFilter();
  told.textContent = message.replace(/^filter: /, "");
  told.dataset.kind = "fault";
}

/**
 * The filter that also asks for a value, or null where what is written cannot be added to.
 * @param {string} name
 * @param {unknown} value
 */
export function filterWith(name, value) {
  if (!read(field.value).fault) return narrowed(field.value, name, value);
  openFilter();
  field.focus();
  return null;
}

/** @param {() => void} changed called when an example was put into the field */
export function offerFilters(changed) {
  const put = (/** @type {string} */ text) => {
    field.value = text;
    changed();
    field.focus();
  };
  const row = (/** @type {string} */ text) => element("li", {},
    button(text, () => put(text), { class: "example-filter" }),
    element("span", { class: "hint" }, inWords(JSON.parse(text))));
  byId("filter-examples").replaceChildren(...EXAMPLES.map(row));
  field.addEventListener("blur", tell);
  field.addEventListener("invalid", openFilter); // what is folded away cannot be pointed at
}
