/** How does data become part of the page? As text, never as markup, and without a style set from here:
 * so the page lives under `Content-Security-Policy: default-src 'self'`. */

/** @typedef {"student" | "teacher"} Side */

/**
 * The element of an id, which the page must have.
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @returns {T}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element #${id}`);
  return /** @type {T} */ (found);
}

/**
 * A new element. Strings among the children become text nodes, which is what keeps data from being markup.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, string>} [attributes]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/**
 * @param {string} text
 * @param {() => void} onClick
 * @param {Record<string, string>} [attributes]
 */
export function button(text, onClick, attributes = {}) {
  const node = element("button", { type: "button", class: "quiet", ...attributes }, text);
  node.addEventListener("click", onClick);
  return node;
}

/**
 * A term and its value, for a `dl`.
 * @param {string} term
 * @param {...(Node | string)} value
 */
export function fact(term, ...value) {
  return element("div", { class: "fact" }, element("dt", {}, term), element("dd", {}, ...value));
}

/** @param {string} text */
export const notice = (text) => element("p", { class: "notice", "data-notice": "" }, text);

/** What a screen reader says and the eye does not need. @param {string} text */
export const hiddenText = (text) => element("span", { class: "hidden-text" }, text);

/** The coloured mark of a model. @param {Side} side */
export const dot = (side) => element("span", { class: `dot dot-${side}`, "aria-hidden": "true" });

/**
 * An SVG element: what has a length here has it in an attribute, since a style would need a weaker policy.
 * @template {keyof SVGElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, string | number>} attributes
 * @param {...Node} children
 * @returns {SVGElementTagNameMap[T]}
 */
export function drawn(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  node.append(...children);
  return node;
}

/**
 * A bar filled to a share of its width; the number stands beside it.
 * @param {number} share
 * @param {Side} side
 */
export function bar(share, side) {
  const filled = Number.isFinite(share) ? 100 * Math.min(1, Math.max(0, share)) : 0;
  return drawn("svg", { class: `bar bar-${side}`, "aria-hidden": "true" },
    drawn("rect", { width: `${filled}%`, height: "100%", rx: 3 }));
}
