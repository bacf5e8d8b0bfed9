/** A form, its question, its answer: what the panels of the page have in common. */

import { addressOf, visit } from "./address.js";
import { Problem } from "./api.js";
import { byId, element } from "./dom.js";
import { askForKey } from "./lock.js";
import { leadOf, retry, told } from "./problems.js";
import { server } from "./server.js";

/** @typedef {import("./address.js").Values} Values */
/** @typedef {HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement} Field */
/**
 * @typedef {object} View
 * @property {string} status what is said above the results
 * @property {Node[]} nodes the results
 * @property {(lead: string, ...told: Node[]) => View} [cutShort] of a part of the answer: what to show if the rest does not come
 */
/**
 * @typedef {object} Ways
 * @property {(values: Values, signal: AbortSignal) => AsyncIterable<View>} ask what the form says; each view replaces the last
 * @property {Values} [defaults] of fields that are not blank by default
 * @property {(problem: Problem, panel: Panel) => {lead?: string, ways?: Node[]}} [explain] what is particular about a problem
 * @property {() => void} [changed] a field has another value
 */

const PATIENCE_MS = 400; // a quicker answer is not worth announcing twice
const NUMERAL = /^-?\d*\.?\d+(e[-+]?\d+)?$/i; // a field for numbers takes no other text

/** One of the ways to use the models. The names of its fields are also the names in the address. */
export class Panel {
  #running = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #patience;
  #ways;
  /** Of the last view. @type {View["cutShort"]} */
  #cutShort;

  /** @param {string} name @param {Ways} ways */
  constructor(name, ways) {
    this.name = name;
    this.#ways = ways;
    this.defaults = ways.defaults ?? {};
    this.tab = /** @type {HTMLButtonElement} */ (byId(`tab-${name}`));
    this.section = byId(`panel-${name}`);
    this.form = /** @type {HTMLFormElement} */ (byId(`${name}-form`));
    this.status = byId(`${name}-status`);
    this.problem = byId(`${name}-problem`);
    this.waysOut = byId(`${name}-ways`);
    this.results = byId(`${name}-results`);
    this.examples = byId(`${name}-examples`);
    /** Of what the panel shows. */
    this.address = `#${name}`;
    /** Whether somebody wrote into the form since it was filled or asked. */
    this.draft = false;
    this.form.addEventListener("input", () => {
      this.draft = true;
      this.changed();
    });
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    // Of the document: somebody who waits may have the focus nowhere. isComposing: Escape then belongs to the input method.
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || event.isComposing || this.section.hidden || !this.busy) return;
      event.preventDefault(); // in a search field, it would also take the question away
      this.#stop();
    });
    this.fill(new URLSearchParams());
  }

  get busy() {
    return this.section.classList.contains("busy");
  }

  /** Whether a question stands: one that waits, was answered, or has a problem. */
  get asked() {
    return this.busy || this.results.hasChildNodes() || this.problem.hasChildNodes();
  }

  /** @returns {Field[]} */
  get fields() {
    return /** @type {Field[]} */ ([...this.form.elements]).filter((field) => field.name && field.type !== "submit");
  }

  /** What the form holds, by the names of its fields. @returns {Values} */
  get values() {
    const chosen = this.fields.filter((field) => field.type !== "radio" || /** @type {HTMLInputElement} */ (field).checked);
    return Object.fromEntries(chosen.map((field) => [field.name, field.value.trim()]));
  }

  /** Put values into the form; what is not among them is at its default. @param {URLSearchParams} values */
  fill(values) {
    for (const field of this.fields) {
      const usual = this.defaults[field.name] ?? "";
      const value = values.get(field.name) ?? usual;
      if (field instanceof HTMLInputElement && field.type === "radio") field.checked = field.value === value;
      else field.value = field.type === "number" && !NUMERAL.test(value) ? usual : value;
    }
    for (const field of this.fields) this.#keepUsable(field);
    this.draft = false;
    this.changed();
  }

  /** Put one value into the form and ask. @param {Values} values */
  askWith(values) {
    for (const [name, value] of Object.entries(values)) {
      for (const field of this.fields.filter((each) => each.name === name)) {
        if (field instanceof HTMLInputElement && field.type === "radio") field.checked = field.value === value;
        else field.value = value;
      }
    }
    this.changed();
    this.submit();
  }

  /** What depends on the fields: blank is no answer. */
  changed() {
    for (const field of this.fields) {
      if (field.required) field.setCustomValidity(field.value.trim() ? "" : "Please write something here.");
    }
    this.#ways.changed?.();
  }

  /** The question becomes the address, and is asked, if the form can be used as it is. */
  submit() {
    if (!this.form.reportValidity()) return;
    this.address = addressOf(this.name, this.values, this.defaults);
    visit(this.address);
    this.draft = false;
    this.run();
  }

  /** Ask what the form says. A request still under way is dropped: only the last question deserves an answer. */
  async run() {
    this.#running.abort();
    const { signal } = (this.#running = new AbortController());
    if (this.examples.contains(document.activeElement)) this.#focusResults(); // examples give way to an answer
    this.#clearProblem();
    this.#cutShort = undefined;
    this.#setBusy(true);
    try {
      for await (const view of this.#ways.ask(this.values, signal)) this.show(view);
      if (server.health !== "ready") server.refresh().catch(() => {}); // it answers again
    } catch (error) {
      if (!signal.aborted) this.#fail(error);
    } finally {
      if (!signal.aborted) this.#setBusy(false);
    }
  }

  /** @param {View} view */
  show(view) {
    this.status.textContent = view.status;
    this.#replace(this.results, ...view.nodes);
    this.#cutShort = view.cutShort;
  }

  /** Forget the last question and its answer. */
  clear() {
    this.#running.abort();
    this.#setBusy(false);
    this.#clearProblem();
    this.show({ status: "", nodes: [] });
  }

  /** What had the focus may go with what is replaced: then the results have it, not the top of the page.
   * @param {HTMLElement} region @param {...Node} nodes */
  #replace(region, ...nodes) {
    const focused = region.contains(document.activeElement);
    region.replaceChildren(...nodes);
    if (focused) this.#focusResults();
  }

  #focusResults() {
    this.results.focus({ preventScroll: true });
  }

  /** What is shown goes, since it answers the question before, unless it is a part of this answer. */
  #stop() {
    const cutShort = this.#cutShort;
    this.clear();
    const lead = "Stopped.";
    this.show(cutShort?.(lead, element("p", {}, lead)) ?? { status: lead, nodes: [] });
  }

  /** @param {boolean} busy */
  #setBusy(busy) {
    clearTimeout(this.#patience);
    this.section.classList.toggle("busy", busy);
    this.results.setAttribute("aria-busy", String(busy));
    const say = () => (this.status.textContent = "Waiting for the answer… Esc stops.");
    if (busy) this.#patience = setTimeout(say, PATIENCE_MS);
  }

  #clearProblem() {
    this.problem.replaceChildren();
    this.#replace(this.waysOut);
    for (const field of this.fields) field.removeAttribute("aria-invalid");
  }

  /** @param {unknown} error */
  #fail(error) {
    const problem = error instanceof Problem ? error : new Problem(0, "The page does not understand this answer.");
    if (problem !== error) console.error(error);
    if ([0, 404, 503].includes(problem.status)) server.refresh().catch(() => {}); // what is shown of it may be old
    const { lead = leadOf(problem), ways = [] } = this.#ways.explain?.(problem, this) ?? {};
    ways.push(...retry(problem, () => this.run()));
    if (this.#cutShort) {
      this.show(this.#cutShort(lead, told(problem, lead), ...ways));
    } else {
      this.show({ status: "", nodes: [] });
      this.problem.replaceChildren(told(problem, lead));
      this.waysOut.replaceChildren(...ways);
    }
    this.#fieldOf(problem)?.setAttribute("aria-invalid", "true");
    if (problem.status === 401) askForKey(() => this.run()); // last, since it takes the focus
  }

  /** The field a problem is about: the service says `query`, `filter.year` or `candidates.3`. @param {Problem} problem */
  #fieldOf({ param }) {
    return this.fields.find((field) => field.dataset.param && param?.split(".")[0] === field.dataset.param);
  }

  /** An address may name a choice that there is not, or a number that cannot be asked for. @param {Field} field */
  #keepUsable(field) {
    if (!(field instanceof HTMLInputElement)) return;
    const usual = this.defaults[field.name] ?? "";
    if (field.type === "radio" && !this.values[field.name]) field.checked = field.value === usual;
    if (field.type !== "number") return;
    field.setCustomValidity(""); // that was said of the value before
    if (!field.validity.valid) field.value = usual;
  }
}
