/** What does a filter say, and is it one? The language of docs/index.md, read as the service reads it.
 *
 * The service is the judge: what is found here is said while somebody writes, and nothing is held back for it
 * but text that is not JSON. */

import { inFull } from "./words.js";

/** @typedef {{place: string, problem: string}} Fault what is wrong, and where: `$or.1.year.$gt`, or "" for the whole */
/** @typedef {Record<string, any>} Filter */

const ORDERS = /** @type {Record<string, string>} */ ({ $gt: ">", $gte: "≥", $lt: "<", $lte: "≤" });
const LEAVES = ["$eq", "$ne", "$in", "$nin", ...Object.keys(ORDERS), "$exists", "$not"];
const JOINS = ["$and", "$or", "$not"];
const MAX_LEVELS = 16;

class FilterFault extends Error {
  /** @param {string[]} place @param {string} problem */
  constructor(place, problem) {
    super(problem);
    this.fault = { place: place.join("."), problem };
  }
}

/** @param {unknown} value @returns {value is Filter} */
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** @param {unknown} value */
function kind(value) {
  if (value === null) return "null";
  if (Array.isArray(value)) return "a list";
  return typeof value === "object" ? "an object" : `a ${typeof value}`;
}

/**
 * Read what somebody wrote; blank is no filter.
 * @param {string} text
 * @returns {{filter: Filter | null, fault: Fault | null, isJson: boolean}}
 */
export function read(text) {
  if (text.trim() === "") return { filter: null, fault: null, isJson: true };
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return { filter: null, fault: { place: "", problem: notJson(text, /** @type {Error} */ (error)) }, isJson: false };
  }
  const fault = faultOf(value);
  return { filter: fault ? null : value, fault, isJson: true };
}

/** The habits of other languages are named; else what the browser says. @param {string} text @param {Error} error */
function notJson(text, error) {
  const bare = text.replace(/"(?:[^"\\]|\\.)*"/g, '""'); // without what is inside strings
  if (/[“”„]/.test(bare)) return "these are curly quotes; JSON takes straight ones: \"";
  if (bare.includes("'")) return "JSON takes double quotes: \"lang\", not 'lang'";
  if (!bare.trimStart().startsWith("{")) return 'a filter is an object such as {"lang": "en"}';
  const opened = (bare.match(/[{[]/g) ?? []).length - (bare.match(/[}\]]/g) ?? []).length;
  if (opened > 0) return `${opened === 1 ? "a bracket is" : `${opened} brackets are`} still open`;
  if (/,\s*[}\]]/.test(bare)) return "take away the comma before the closing bracket";
  if (/[{,]\s*[\w$]+\s*:/.test(bare)) return 'names are in double quotes: {"lang": "en"}';
  if (/\b(True|False|None)\b/.test(bare)) return "JSON writes true, false and null in small letters";
  return `this is not JSON: ${error.message}`;
}

/**
 * What is wrong with a filter, if anything.
 * @param {unknown} value
 * @returns {Fault | null}
 */
export function faultOf(value) {
  try {
    conditions(value, [], 1);
    return null;
  } catch (error) {
    if (error instanceof FilterFault) return error.fault;
    throw error;
  }
}

/** @param {unknown} value @param {string[]} place @param {number} level */
function conditions(value, place, level) {
  if (level > MAX_LEVELS) throw new FilterFault(place, `nested more than ${MAX_LEVELS} levels deep`);
  if (!isObject(value)) throw new FilterFault(place, `is ${kind(value)}; give an object such as {"lang": "en"}`);
  for (const [name, operand] of Object.entries(value)) {
    const here = [...place, name];
    if (JOINS.includes(name)) join(name, operand, here, level);
    else if (!name.startsWith("$")) field(operand, here, level);
    else if (LEAVES.includes(name)) throw new FilterFault(here, "write it below a field");
    else throw new FilterFault(here, `no operator that joins conditions; there are ${JOINS.join(", ")}`);
  }
}

/** @param {string} name @param {unknown} operand @param {string[]} place @param {number} level */
function join(name, operand, place, level) {
  if (name === "$not") {
    conditions(operand, place, level + 1);
    return;
  }
  if (!Array.isArray(operand) || operand.length === 0) {
    throw new FilterFault(place, "give a list of at least one condition");
  }
  operand.forEach((part, number) => conditions(part, [...place, String(number)], level + 1));
}

/** @param {unknown} value @param {string[]} place @param {number} level */
function field(value, place, level) {
  if (!isObject(value)) {
    scalar(value, place);
    return;
  }
  if (level > MAX_LEVELS) throw new FilterFault(place, `nested more than ${MAX_LEVELS} levels deep`);
  if (Object.keys(value).length === 0) {
    throw new FilterFault(place, 'is an empty object; give a value, or an operator such as {"$exists": true}');
  }
  for (const [name, operand] of Object.entries(value)) leaf(name, operand, [...place, name], level);
}

/** @param {string} name @param {unknown} operand @param {string[]} place @param {number} level */
function leaf(name, operand, place, level) {
  if (Object.hasOwn(ORDERS, name)) {
    scalar(operand, place);
    if (operand === null || typeof operand === "boolean") {
      throw new FilterFault(place, `is ${kind(operand)}; only numbers and strings have an order`);
    }
  } else if (name === "$eq" || name === "$ne") {
    scalar(operand, place);
  } else if (name === "$in" || name === "$nin") {
    if (!Array.isArray(operand)) throw new FilterFault(place, `is ${kind(operand)}; give a list of values`);
    operand.forEach((value, number) => scalar(value, [...place, String(number)]));
  } else if (name === "$exists") {
    if (typeof operand !== "boolean") throw new FilterFault(place, `is ${kind(operand)}; give true or false`);
  } else if (name === "$not") {
    if (!isObject(operand)) {
      throw new FilterFault(place, `is ${kind(operand)}; give an object of operators, or use $ne`);
    }
    field(operand, place, level + 1);
  } else if (name.startsWith("$")) {
    throw new FilterFault(place, `no such operator; there are ${LEAVES.join(", ")}`);
  } else {
    throw new FilterFault(place, 'a field inside another is written with a dot: {"author.name": "Ada"}');
  }
}

/** @param {unknown} value @param {string[]} place */
function scalar(value, place) {
  if (value === null || ["string", "boolean"].includes(typeof value) || Number.isFinite(value)) return;
  const hint = Array.isArray(value) ? "to match one of several values use $in" : "write inner fields with a dot";
  throw new FilterFault(place, `is ${kind(value)}; give a string, a number, true, false or null (${hint})`);
}

/**
 * A filter that has no fault, in words: `lang is "en" and year ≥ 2020`.
 * @param {Filter} filter
 * @returns {string}
 */
export function inWords(filter) {
  return Object.keys(filter).length === 0 ? "every document" : allOf(Object.entries(filter).map(partInWords));
}

/** @param {[string, any]} part @returns {string} */
function partInWords([name, operand]) {
  switch (name) {
    case "$and":
      return allOf(operand.map(inWords));
    case "$or":
      return operand.length === 1 ? inWords(operand[0]) : `(${operand.map(inBrackets).join(" or ")})`;
    case "$not":
      return `not (${inWords(operand)})`;
    default:
      return isObject(operand) ? leavesInWords(name, operand) : leafInWords(name, "$eq", operand);
  }
}

/** @param {string[]} parts */
const allOf = (parts) => parts.join(" and ");

/** @param {Filter} filter */
function inBrackets(filter) {
  const words = inWords(filter);
  return words.includes(" and ") ? `(${words})` : words;
}

/** @param {string} path @param {Filter} operators @returns {string} */
function leavesInWords(path, operators) {
  return allOf(Object.entries(operators).map(([name, operand]) => leafInWords(path, name, operand)));
}

/** @param {string} path @param {string} name @param {any} operand @returns {string} */
function leafInWords(path, name, operand) {
  const shown = (/** @type {unknown} */ value) => (inFull(value) ? JSON.stringify(value) : `≈ ${value}`);
  switch (name) {
    case "$eq":
      return operand === null ? `${path} is null or missing` : `${path} is ${shown(operand)}`;
    case "$ne":
      return operand === null ? `${path} is there and not null` : `${path} is not ${shown(operand)}`;
    case "$in":
      return `${path} is one of ${operand.map(shown).join(", ") || "nothing"}`;
    case "$nin":
      return `${path} is none of ${operand.map(shown).join(", ") || "nothing"}`;
    case "$exists":
      return `${path} is ${operand ? "there" : "missing"}`;
    case "$not":
      return `not (${leavesInWords(path, operand)})`;
    default:
      return `${path} ${ORDERS[name]} ${shown(operand)}`;
  }
}

/**
 * A filter that lets through only documents with this value, besides what it asked for already. That stays as it
 * was written: JavaScript would round its large numbers.
 * @param {string} text a filter without a fault, or blank for none
 * @param {string} field
 * @param {unknown} value
 */
export function narrowed(text, field, value) {
  const filter = read(text).filter ?? {};
  const condition = `${JSON.stringify(field)}: ${JSON.stringify(value)}`;
  if (Object.keys(filter).length === 0) return `{${condition}}`;
  if (asksFor(filter, field, value)) return text;
  const written = text.trim();
  if (Object.hasOwn(filter, field)) return `{"$and": [${written}, {${condition}}]}`;
  return `${written.slice(0, -1).trimEnd()}, ${condition}}`;
}

/** Whether a filter has this very condition. @param {Filter} filter @param {string} field @param {unknown} value @returns {boolean} */
function asksFor(filter, field, value) {
  if (Object.hasOwn(filter, field) && filter[field] === value) return true;
  return (filter.$and ?? []).some((/** @type {Filter} */ part) => asksFor(part, field, value));
}
