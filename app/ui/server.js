/** What does this service run? Asked when the page opens, and again when an answer says that it changed. */

import * as api from "./api.js";
import { byId } from "./dom.js";

/** @typedef {import("./dom.js").Side} Side */
/** @typedef {"unknown" | "ready" | "unready" | "silent" | "locked"} Health */

const HEALTH = /** @type {Record<Health, string>} */ ({
  unknown: "Asking…",
  ready: "Ready",
  unready: "Not ready",
  silent: "No answer",
  locked: "Key needed",
});

/** What is known of the service. "change" is dispatched when it is something else than before. */
class Server extends EventTarget {
  /** @type {Health} */
  health = "unknown";
  /** Why not all of this is of now. @type {api.Problem | null} */
  problem = null;
  /** @type {string | null} */
  student = null;
  /** @type {string | null | undefined} null: none is served; undefined: not known */
  teacher = undefined;
  /** @type {string[]} */
  models = [];
  /** @type {api.IndexFacts | null | undefined} null: none is served; undefined: not known */
  index = undefined;
  /** Why there is no index. */
  noIndex = "";

  /** Ask for everything anew. @throws {api.Problem} 401: a key is needed to know more than the names */
  async refresh() {
    this.problem = null;
    try {
      await this.#readReady();
      if (this.health === "silent") return;
      await this.#readIndex();
      this.models = await api.models();
    } catch (error) {
      if (!(error instanceof api.Problem)) throw error;
      this.problem ??= error;
      if (error.status !== 401) return;
      this.health = "locked";
      throw error;
    } finally {
      this.dispatchEvent(new Event("change"));
    }
  }

  /** An answer came from a generation: look again if it is not the one that is known. @param {string} generation */
  answeredFrom(generation) {
    if (this.index?.generation !== generation) this.refresh().catch(() => {}); // who asks next hears what is wrong
  }

  async #readReady() {
    try {
      const facts = await api.ready();
      Object.assign(this, { health: "ready", student: facts.model, teacher: facts.teacher });
    } catch (error) {
      if (!(error instanceof api.Problem)) throw error;
      this.health = error.status === 0 ? "silent" : "unready";
      this.problem = error;
    }
  }

  async #readIndex() {
    try {
      this.index = await api.index();
    } catch (error) {
      if (!(error instanceof api.Problem) || error.status !== 404) throw error;
      this.index = null;
      this.noIndex = error.message;
    }
  }
}

export const server = new Server();

/** The line at the top of the page: is it well, who answers, over how much. */
function showFacts() {
  const health = byId("health");
  health.dataset.health = server.health;
  byId("health-word").textContent = HEALTH[server.health];
  health.title = server.problem?.message ?? "";
  byId("student-name").textContent = server.student ?? "–";
  byId("teacher-name").textContent = server.teacher === undefined ? "–" : (server.teacher ?? "none");
  byId("index-size").textContent = indexSize();
}

function indexSize() {
  if (server.index === undefined) return "–";
  return server.index ? server.index.documents.toLocaleString("en") : "no index";
}

server.addEventListener("change", showFacts);
