/** What does somebody read, and what can they do, when a question has no answer? */

import { button, element } from "./dom.js";
import { count } from "./words.js";

/** @typedef {import("./api.js").Problem} Problem */

const LEADS = /** @type {Record<number, string>} */ ({
  0: "No answer.",
  401: "A key is needed.",
  403: "This key may not do that.",
  404: "That is not here.",
  413: "This is too large.",
  422: "The service cannot use this.",
  429: "The service is busy.",
  503: "The service is not ready.",
  504: "It took too long.",
});

/** @param {Problem} problem */
export const leadOf = ({ status }) => LEADS[status] ?? (status < 500 ? "The service refused this." : "The service failed.");

/** Whether the same question may be answered another time. @param {Problem} problem */
const mayPass = ({ status }) => status < 400 || status === 408 || status === 429 || status >= 500;

/**
 * What went wrong, for a region that is read out when it changes.
 * @param {Problem} problem
 * @param {string} lead
 */
export function told(problem, lead) {
  const details = [problem.status && `HTTP ${problem.status}`, problem.type, problem.param].filter(Boolean);
  return element("div", { class: "problem" },
    element("p", {}, element("strong", {}, lead), " ", problem.message),
    ...(details.length ? [element("p", { class: "hint" }, details.join(" · "))] : []));
}

/**
 * The way out that always fits: ask again, as soon as the service wants to be asked again.
 * @param {Problem} problem
 * @param {() => void} again
 * @returns {HTMLButtonElement[]}
 */
export function retry(problem, again) {
  if (!mayPass(problem)) return [];
  const node = button("Try again", again, { "data-retry": "" });
  if (problem.retryAfter) countDown(node, problem.retryAfter);
  return [node];
}

/** @param {HTMLButtonElement} node @param {number} seconds */
function countDown(node, seconds) {
  node.disabled = seconds > 0;
  node.textContent = seconds > 0 ? `Try again in ${count(seconds, "second")}` : "Try again";
  if (seconds > 0) setTimeout(() => countDown(node, seconds - 1), 1000);
}
