/** What does the service say? Its routes as functions; whatever goes wrong is a Problem. */

/** @typedef {{id: string, text: string, score: number, similarity: number, metadata: Record<string, unknown>}} Hit */
/** @typedef {{hits: Hit[], truncated: boolean, model: string, generation: string}} Found */
/** @typedef {{score: number, rank: number}} Standing */
/** @typedef {{index: number, id: string | null, text: string, student: Standing, teacher: Standing}} Compared */
/**
 * @typedef {object} Comparison
 * @property {string} student
 * @property {string} teacher
 * @property {Compared[]} results
 * @property {{spearman: number | null, kendall: number | null}} agreement
 * @property {{student: number, teacher: number}} milliseconds
 * @property {boolean} truncated
 */
/** @typedef {{index: number, score: number, similarity: number | null, truncated: boolean}} PairScore */
/** @typedef {{model: string, results: PairScore[]}} Scored */
/** @typedef {{status: string, model: string, teacher: string | null, generation: string | null}} Ready */
/**
 * @typedef {object} IndexFacts
 * @property {string} generation
 * @property {number} documents
 * @property {number} dims
 * @property {string} recipe
 * @property {string} model
 * @property {string} encoder_digest
 * @property {string | null} created
 * @property {{target: number, k: number, recall: number, lower_bound: number, queries: number} | null} recall
 * @property {number} changes_pending
 * @property {boolean} read_only
 * @property {string | null} stays_because
 */

/** A request that did not end in an answer. */
export class Problem extends Error {
  /**
   * @param {number} status 0 where there was no answer to read it from
   * @param {string} message
   * @param {{type?: string | null, param?: string | null, retryAfter?: number | null}} [details]
   */
  constructor(status, message, { type = null, param = null, retryAfter = null } = {}) {
    super(message);
    this.status = status;
    this.type = type;
    /** What of the request it is about, as the service names it: `filter.year.$gte`. */
    this.param = param;
    /** Seconds after which the service asks to be asked again. */
    this.retryAfter = retryAfter;
  }
}

const KEY = "dse-key";

/** @type {string | null} where the browser keeps nothing for a page, as long as the page is open */
let held = null;

/** What this tab keeps, if the browser lets it keep anything. @param {(storage: Storage) => string | null | void} use */
function inThisTab(use) {
  try {
    return use(sessionStorage) ?? null;
  } catch {
    return null;
  }
}

/** The key that requests carry. It is kept as long as this tab is open, and in this tab only. */
export const key = {
  get: () => held ?? inThisTab((storage) => storage.getItem(KEY)),
  /** @param {string} value */
  set(value) {
    held = value;
    inThisTab((storage) => storage.setItem(KEY, value));
  },
  forget() {
    held = null;
    inThisTab((storage) => storage.removeItem(KEY));
  },
};

/**
 * @param {string} path
 * @param {{body?: string, signal?: AbortSignal}} [request]
 * @returns {Promise<any>}
 */
async function call(path, { body, signal } = {}) {
  const headers = new Headers();
  const known = key.get();
  if (known) headers.set("Authorization", `Bearer ${known}`);
  if (body !== undefined) headers.set("Content-Type", "application/json");
  let response;
  try {
    response = await fetch(path, { method: body === undefined ? "GET" : "POST", headers, body, signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem(0, "The service did not answer. Check that it is running and that this device can reach it.");
  }
  let answer = null;
  try {
    answer = await response.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    if (response.ok) throw new Problem(response.status, "The service’s answer was cut short, or is not JSON.");
  }
  if (!response.ok) throw problemOf(response, answer);
  return answer;
}

/** @param {Response} response @param {any} answer */
function problemOf(response, answer) {
  const error = answer?.error;
  const seconds = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  const retryAfter = Number.isNaN(seconds) ? null : Math.max(0, seconds);
  if (!error?.message) {
    const message = `The service answered ${response.status} and did not say why.`;
    return new Problem(response.status, message, { retryAfter });
  }
  return new Problem(response.status, String(error.message), { type: error.type, param: error.param, retryAfter });
}

/**
 * A body with a filter in it as it was written: a number that JavaScript would round arrives whole.
 * @param {object} body
 * @param {string} filter JSON, or blank for none
 */
function withFilter(body, filter) {
  const written = JSON.stringify(body);
  return filter.trim() === "" ? written : `${written.slice(0, -1)},"filter":${filter}}`;
}

/** @param {object} body @param {string} filter @param {AbortSignal} signal @returns {Promise<Found>} */
export const search = (body, filter, signal) => call("/v1/search", { body: withFilter(body, filter), signal });

/** @param {object} body @param {string} filter @param {AbortSignal} signal @returns {Promise<Comparison>} */
export const compare = (body, filter, signal) => call("/v1/compare", { body: withFilter(body, filter), signal });

/**
 * @param {"student" | "teacher"} side
 * @param {object} body
 * @param {AbortSignal} signal
 * @returns {Promise<Scored>}
 */
export function similarity(side, body, signal) {
  const path = side === "student" ? "/v1/similarity" : "/v1/teacher/similarity";
  return call(path, { body: JSON.stringify(body), signal });
}

/** @returns {Promise<Ready>} */
export const ready = () => call("/readyz");

/** @returns {Promise<IndexFacts>} */
export const index = () => call("/v1/index");

/** The names of the models that are served. @returns {Promise<string[]>} */
export const models = async () => (await call("/v1/models")).data.map((/** @type {{id: string}} */ model) => model.id);

/**
 * The answer and the milliseconds it took to get it.
 * @template T
 * @param {Promise<T>} request
 * @returns {Promise<{answer: T, took: number}>}
 */
export async function timed(request) {
  const started = performance.now();
  const answer = await request;
  return { answer, took: performance.now() - started };
}
