/** Which key opens the service? Asked for when it answers 401, and kept in this tab alone. */

import { key, models, Problem } from "./api.js";
import { byId } from "./dom.js";

const card = byId("lock");
const form = /** @type {HTMLFormElement} */ (byId("lock-form"));
const input = /** @type {HTMLInputElement} */ (byId("lock-key"));
const said = byId("lock-said");
const forget = byId("lock-forget");

/** @type {(() => void) | null} what to do once the key fits; of two questions, the last */
let waiting = null;

/** What had the focus when the key was asked for. @type {Element | null} */
let before = null;

/** Show the form, if it is not there already. @param {() => void} then */
export function askForKey(then) {
  waiting = then;
  if (!card.hidden) return;
  card.hidden = false;
  said.textContent = key.get() ? "The key that was given is not known to this service." : "";
  key.forget();
  forget.hidden = true;
  before = document.activeElement;
  input.focus();
}

async function tryKey() {
  const given = input.value.trim();
  if (!/^[\x21-\x7e]+$/.test(given)) { // what a header cannot carry is nobody's key
    said.textContent = given ? "A key has only letters, digits and signs, and no spaces." : "Please enter a key.";
    input.focus();
    return;
  }
  key.set(given);
  said.textContent = "Trying the key…";
  try {
    await models();
  } catch (error) {
    key.forget();
    if (!(error instanceof Problem)) throw error;
    said.textContent = error.status === 401 ? "This key is not known to the service." : error.message;
    input.focus();
    input.select();
    return;
  }
  open();
}

function open() {
  input.value = "";
  said.textContent = "";
  giveFocusBack();
  card.hidden = true;
  forget.hidden = false;
  waiting?.();
  waiting = null;
}

/** To where it was; where that cannot take it, to the tab that is open. */
function giveFocusBack() {
  if (before instanceof HTMLElement) before.focus();
  if (!card.contains(document.activeElement)) return;
  /** @type {HTMLElement | null} */ (document.querySelector("[role=tab][aria-selected=true]"))?.focus();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  tryKey();
});
forget.addEventListener("click", () => {
  key.forget();
  location.reload();
});
forget.hidden = key.get() === null;
