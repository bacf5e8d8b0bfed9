/* The page of DSE: three forms that ask the API which served this page.
 *
 * Whatever comes from the API or the address is placed as text, never as markup, and no style is set from
 * here, so the page lives under `Content-Security-Policy: default-src 'self'`. */

const SEARCH_EXAMPLES = [
  "wait for several threads to finish",
  "parse a date from a string",
  "copy a file",
  "find the difference between two sequences",
  "run a command and read its output",
];

const COMPARE_EXAMPLES = [
  {
    name: "a lost password",
    query: "How do I reset my password?",
    candidates: [
      "I forgot my password and cannot sign in.",
      "Steps to change the email address of an account.",
      "Choose a strong password with at least twelve characters.",
      "To set a new password, follow the link on the sign-in page.",
      "Our offices are closed on public holidays.",
    ],
  },
  {
    name: "a man on a horse",
    query: "A man is riding a horse.",
    candidates: [
      "Someone rides an animal.",
      "A horse is riding a man.",
      "A woman is feeding a horse.",
      "A man is riding a bicycle down the street.",
      "The stock market fell on Monday.",
    ],
  },
];

const PAIR_EXAMPLES = [
  { name: "a paraphrase", first: "A man is playing a guitar.", second: "Somebody plays a string instrument." },
  { name: "a negation", first: "The flight leaves on time.", second: "The flight does not leave on time." },
  { name: "unrelated texts", first: "The cat sleeps on the sofa.", second: "Interest rates rose again this year." },
];

// ---------------------------------------------------------------- elements

const byId = (id) => document.getElementById(id);

/** A new element. Strings among the children become text nodes, which is what keeps data from being markup. */
function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function button(text, onClick, attributes = {}) {
  const node = element("button", { type: "button", class: "quiet", ...attributes }, text);
  node.addEventListener("click", onClick);
  return node;
}

/** A term and its value, for a `dl`. */
function fact(term, ...value) {
  return element("div", { class: "fact" }, element("dt", {}, term), element("dd", {}, ...value));
}

/** A bar filled to a share of its width. SVG, because a width in a style attribute would need a weaker policy. */
function bar(share, side) {
  const namespace = "http://www.w3.org/2000/svg";
  const track = document.createElementNS(namespace, "svg");
  const fill = document.createElementNS(namespace, "rect");
  track.setAttribute("class", `bar bar-${side}`);
  track.setAttribute("aria-hidden", "true"); // the number stands beside it
  fill.setAttribute("width", `${100 * Math.min(1, Math.max(0, share || 0))}%`);
  fill.setAttribute("height", "100%");
  fill.setAttribute("rx", "3");
  track.append(fill);
  return track;
}

const hiddenText = (text) => element("span", { class: "hidden-text" }, text);

function notice(text) {
  return element("p", { class: "notice", "data-notice": "" }, text);
}

// ---------------------------------------------------------------- numbers and words

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const decimals = (value, digits) => (isNumber(value) ? value.toFixed(digits).replace("-", "−") : "n/a");
const score = (value) => decimals(value, 3);
const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

function milliseconds(value) {
  if (!isNumber(value)) return "n/a";
  if (value >= 1000) return `${(value / 1000).toFixed(2)} s`;
  return `${value.toFixed(value < 10 ? 1 : 0)} ms`;
}

/** "19× faster": how the student's time relates to the teacher's. */
function speed(times) {
  if (!isNumber(times.student) || !isNumber(times.teacher) || times.student <= 0 || times.teacher <= 0) return "n/a";
  const ratio = times.teacher / times.student;
  const factor = Math.max(ratio, 1 / ratio);
  return `${factor.toFixed(factor < 10 ? 1 : 0)}× ${ratio >= 1 ? "faster" : "slower"}`;
}

function day(text) {
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) return String(text);
  return date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

const cutNotice = (what, model) =>
  notice(`${what} is longer than ${model} reads. It was cut, and the scores are about its beginning.`);

// ---------------------------------------------------------------- the API

/** A request that did not end in an answer. `status` is 0 when there was none to read it from. */
class Problem extends Error {
  constructor(status, message, { type = null, param = null } = {}) {
    super(message);
    Object.assign(this, { status, type, param });
  }
}

function problemOf(response, answer) {
  const error = answer?.error;
  if (error?.message) return new Problem(response.status, String(error.message), error);
  return new Problem(response.status, `The server answered ${response.status} and did not say why.`);
}

async function callApi(path, { body, signal } = {}) {
  const request = body === undefined
    ? { signal }
    : { signal, method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, request);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem(0, "The server did not answer. Check that it is running and that this device can reach it.");
  }
  let answer = null;
  try {
    answer = await response.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    if (response.ok) throw new Problem(response.status, "The server’s answer was cut short or is not JSON.");
  }
  if (!response.ok) throw problemOf(response, answer);
  return answer;
}

const post = (path, body, signal) => callApi(path, { body, signal });

/** The answer and the milliseconds it took to get it. */
async function timed(request) {
  const started = performance.now();
  const answer = await request;
  return { answer, took: performance.now() - started };
}

// ---------------------------------------------------------------- what the server runs

let generationShown = null;

function nameModel(side, name) {
  const place = byId(`${side}-name`);
  place.textContent = name;
  place.classList.add("known");
}

function showIndex(index) {
  generationShown = index.generation;
  nameModel("student", index.model);
  byId("index-summary").textContent = count(index.documents, "document");
  byId("index-summary").classList.add("known");
  byId("index-facts").replaceChildren(
    fact("Documents", index.documents.toLocaleString("en")),
    fact("Dimensions", String(index.dims)),
    fact("Recipe", index.recipe),
    fact("Generation", index.generation),
    fact("Built", day(index.created)),
    fact("Encoder digest", element("code", {}, index.encoder_digest)),
  );
}

function showNoIndex(message) {
  generationShown = null;
  byId("index-summary").textContent = `none, asked at ${new Date().toLocaleTimeString()}`; // so that asking again shows
  byId("no-index-message").textContent = message;
}

/** The header's names, before anything was asked. A server that cannot say them leaves them as they are. */
async function readModels() {
  try {
    const ready = await callApi("/readyz");
    nameModel("student", ready.model);
    nameModel("teacher", ready.teacher ?? "none");
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
  }
}

/** Ask for the index and let the page follow: no index closes the search form, nothing else does. */
async function readIndex() {
  let missing = false;
  try {
    showIndex(await callApi("/v1/index"));
  } catch (error) {
    missing = error.status === 404;
    if (missing) showNoIndex(error.message);
    else byId("index-summary").textContent = "unknown, the server did not say";
  }
  byId("index-details").hidden = generationShown === null;
  byId("no-index").hidden = !missing;
  byId("search-form").hidden = missing;
  byId("search-fields").disabled = missing;
  return !missing;
}

// ---------------------------------------------------------------- search results

function metadataList(metadata) {
  const entries = Object.entries(metadata ?? {});
  if (entries.length === 0) return [];
  const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  return [element("dl", { class: "metadata" }, ...entries.map(([name, value]) => fact(name, asText(value))))];
}

/** An id above its text. A text that opens with its own id ("os.path.join: Join two…") is not made to say it twice. */
function textWithId(id, text) {
  const named = element("span", { class: "text-id" }, id);
  const opening = `${id}: `;
  if (!text.startsWith(opening)) return element("div", {}, named, element("p", { class: "text" }, text));
  return element("p", { class: "text" }, named, hiddenText(": "), text.slice(opening.length));
}

function hitItem(hit, position, side) {
  return element("li", { class: "hit" },
    element("span", { class: "rank", "aria-hidden": "true" }, String(position + 1)),
    element("div", { class: "hit-body" }, textWithId(hit.id, hit.text), ...metadataList(hit.metadata)),
    element("div", { class: "hit-numbers" },
      element("span", { class: "number" }, hiddenText("score "), element("span", { class: "hit-score" }, score(hit.score))),
      bar(hit.score, side),
      element("span", { class: "similarity" }, "similarity ", element("span", { class: "hit-similarity" }, score(hit.similarity)))));
}

async function* askSearch(form, signal) {
  if (form.teacher) {
    yield* askComparison({ query: form.query, candidates: null, k: form.k }, signal);
    return;
  }
  const body = { query: form.query, k: form.k, depth: form.depth, rerank: form.rerank };
  const { answer, took } = await timed(post("/v1/search", body, signal));
  nameModel("student", answer.model);
  if (answer.generation !== generationShown) readIndex(); // the index was replaced since the page was opened
  const side = form.rerank === "teacher" ? "teacher" : "student";
  const hits = answer.hits.map((hit, position) => hitItem(hit, position, side));
  yield {
    status: `${count(hits.length, "result")}, ${milliseconds(took)} round trip`,
    nodes: [
      ...(answer.truncated ? [cutNotice("The query", answer.model)] : []),
      hits.length ? element("ol", { class: "hits" }, ...hits) : notice("The index holds nothing to answer with."),
    ],
  };
}

// ---------------------------------------------------------------- comparison of student and teacher

function agreementFact(term, value) {
  const told = element("span", { class: "figure", "data-fact": term.toLowerCase() }, decimals(value, 2));
  return fact(term, told, ...(isNumber(value) ? [] : [element("span", { class: "hint" }, " too few different scores")]));
}

function timeRow(side, model, times) {
  const longest = Math.max(times.student, times.teacher);
  return element("div", { class: "time" },
    element("span", { class: "time-model" }, element("span", { class: `dot dot-${side}`, "aria-hidden": "true" }), model),
    bar(times[side] / longest, side),
    element("span", { class: "time-value", "data-fact": `milliseconds-${side}` }, milliseconds(times[side])));
}

function summaryOf(answer) {
  const times = answer.milliseconds;
  return element("div", { class: "summary" },
    element("dl", { class: "agreement", "aria-label": "Agreement of the two orders" },
      agreementFact("Spearman", answer.agreement.spearman),
      agreementFact("Kendall", answer.agreement.kendall),
      fact("Student", element("span", { class: "figure", "data-fact": "speed" }, speed(times)))),
    element("div", { class: "times", role: "group", "aria-label": "Time on the server" },
      timeRow("student", answer.student, times),
      timeRow("teacher", answer.teacher, times)));
}

/** How far the teacher moves a text from the student's place: ▲ is nearer the top. */
function shiftOf(result) {
  const places = result.student.rank - result.teacher.rank;
  if (places === 0) return element("span", { class: "shift", "data-shift": "0" }, "=", hiddenText(" same place"));
  const [arrow, word] = places > 0 ? ["▲", "higher"] : ["▼", "lower"];
  return element("span", { class: `shift shift-${word}`, "data-shift": String(places) },
    element("span", { "aria-hidden": "true" }, `${arrow} ${Math.abs(places)}`),
    hiddenText(`the teacher puts it ${count(Math.abs(places), "place")} ${word}`));
}

function scoreLine(side, value) {
  return element("div", { class: "score-line" },
    hiddenText(`${side} `), bar(value, side), element("span", { class: `number ${side}-score` }, score(value)));
}

/** The roles are spelled out because on a phone the rows are laid out as cards, which would drop them. */
function comparisonRow(result) {
  const cell = (name, ...children) => element("td", { role: "cell", class: name }, ...children);
  return element("tr", { role: "row", class: "compared" },
    cell("rank-cell student-rank", String(result.student.rank)),
    cell("rank-cell teacher-rank", String(result.teacher.rank)),
    cell("shift-cell", shiftOf(result)),
    cell("text-cell", textWithId(result.id ?? `candidate ${result.index + 1}`, result.text)),
    cell("scores-cell", scoreLine("student", result.student.score), scoreLine("teacher", result.teacher.score)));
}

function comparisonHead() {
  const head = (name, ...children) => element("th", { role: "columnheader", scope: "col", class: name }, ...children);
  const dot = (side) => element("span", { class: `dot dot-${side}`, "aria-hidden": "true" });
  return element("thead", { role: "rowgroup" }, element("tr", { role: "row" },
    head("rank-cell", dot("student"), "Student"), head("rank-cell", dot("teacher"), "Teacher"),
    head("shift-cell", "Shift"), head("text-cell", "Text"), head("scores-cell", "Scores")));
}

/** Two buttons that choose whose order the rows stand in; the student's at first. */
function orderSwitch(onChoice) {
  const choices = ["student", "teacher"].map((side) =>
    button(side, () => choose(side), { class: "choice", "data-order": side }));
  const choose = (side) => {
    for (const node of choices) node.setAttribute("aria-pressed", String(node.dataset.order === side));
    onChoice(side);
  };
  choose("student");
  return element("div", { class: "order", role: "group", "aria-label": "Order of the rows" },
    element("span", { class: "hint" }, "Order of the"), ...choices);
}

function comparisonTable(results) {
  const body = element("tbody", { role: "rowgroup" });
  const order = orderSwitch((side) => {
    const bestFirst = [...results].sort((a, b) => a[side].rank - b[side].rank);
    body.replaceChildren(...bestFirst.map(comparisonRow));
  });
  const table = element("table", { role: "table", class: "comparison", "aria-label": "Student and teacher, text by text" },
    comparisonHead(), body);
  return [order, table];
}

async function* askComparison(body, signal) {
  const answer = await post("/v1/compare", body, signal);
  nameModel("student", answer.student);
  nameModel("teacher", answer.teacher);
  const missing = (body.candidates?.length ?? answer.results.length) - answer.results.length;
  yield {
    status: `${count(answer.results.length, "text")} scored by both, the student ${speed(answer.milliseconds)}`,
    nodes: [
      ...(answer.truncated ? [cutNotice("A text", "one of the models")] : []),
      ...(missing > 0 ? [notice(`The server left out ${count(missing, "candidate")}.`)] : []),
      summaryOf(answer),
      ...comparisonTable(answer.results),
    ],
  };
}

const linesOf = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

async function* askCompareOwn(form, signal) {
  yield* askComparison({ query: form.query, candidates: linesOf(form.candidates) }, signal);
}

// ---------------------------------------------------------------- score of one pair

function pairCard(side, title, ...children) {
  return element("section", { class: `pair-card pair-card-${side}`, id: `pair-${side}`, "aria-label": title },
    element("h2", {}, element("span", { class: `dot dot-${side}`, "aria-hidden": "true" }), title), ...children);
}

function pairScore(side, title, { answer, took }) {
  const [result] = answer.results;
  const similarity = isNumber(result.similarity) ? `similarity ${score(result.similarity)}, ` : "";
  return pairCard(side, title,
    element("p", { class: "model-name" }, answer.model),
    element("p", { class: "figure pair-score" }, score(result.score)),
    bar(result.score, side),
    element("p", { class: "hint" }, `${similarity}${milliseconds(took)} round trip`),
    ...(result.truncated ? [cutNotice("A text", answer.model)] : []));
}

/** One after the other, so that neither waits for the other's processor and both times are fair. */
async function* askPair(form, signal) {
  const body = { pairs: [[form.first, form.second]] };
  const student = await timed(post("/v1/similarity", body, signal));
  nameModel("student", student.answer.model);
  const studentCard = pairScore("student", "Student", student);
  const cards = (teacherCard) => [element("div", { class: "pair-cards" }, studentCard, teacherCard)];
  yield { status: "", nodes: cards(pairCard("teacher", "Teacher", element("p", { class: "hint" }, "Reading both texts together…"))) };

  const studentScore = student.answer.results[0].score;
  try {
    const teacher = await timed(post("/v1/teacher/similarity", body, signal));
    nameModel("teacher", teacher.answer.model);
    const apart = Math.abs(studentScore - teacher.answer.results[0].score);
    yield {
      status: `Student ${score(studentScore)}, teacher ${score(teacher.answer.results[0].score)}: ${score(apart)} apart`,
      nodes: cards(pairScore("teacher", "Teacher", teacher)),
    };
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    const missing = error.status === 404;
    if (missing) nameModel("teacher", "not served");
    const lead = missing ? "This server has no teacher." : "The teacher did not answer.";
    const card = pairCard("teacher", "Teacher", element("p", {}, lead), element("p", { class: "hint" }, error.message));
    yield { status: `Student ${score(studentScore)}. ${lead}`, nodes: cards(card) };
  }
}

// ---------------------------------------------------------------- panels: a form, its request, its answer

/** Reading and writing a form go by the names of its fields, which are also the names in the address. */
const panels = {
  search: { ask: askSearch, defaults: { k: "10", depth: "", rerank: "head", teacher: "" } },
  compare: { ask: askCompareOwn, defaults: {} },
  pair: { ask: askPair, defaults: {} },
};

for (const [name, panel] of Object.entries(panels)) {
  Object.assign(panel, {
    name,
    tab: byId(`tab-${name}`),
    section: byId(`panel-${name}`),
    form: byId(`${name}-form`),
    status: byId(`${name}-status`),
    problem: byId(`${name}-problem`),
    results: byId(`${name}-results`),
    address: `#${name}`, // of what the panel shows
    running: new AbortController(),
  });
}

const fieldsOf = (panel) => [...panel.form.elements].filter((field) => field.name && field.type !== "submit");

/** The field's text as the address keeps it: a box is "1" or empty. */
const textOf = (field) => (field.type === "checkbox" ? (field.checked ? "1" : "") : field.value);

function fill(panel, values) {
  for (const field of fieldsOf(panel)) {
    const text = values.get(field.name) ?? panel.defaults[field.name] ?? "";
    if (field.type === "checkbox") field.checked = text === "1";
    else field.value = text;
    if (field.tagName === "SELECT" && field.selectedIndex < 0) field.value = panel.defaults[field.name];
  }
  formChanged();
}

/** What the form holds, in the API's terms. */
function read(panel) {
  const values = Object.fromEntries(fieldsOf(panel).map((field) => [field.name, textOf(field).trim()]));
  if (panel.name !== "search") return values;
  const whole = (text) => (text === "" ? null : Number(text));
  return { ...values, k: whole(values.k) ?? 10, depth: whole(values.depth), teacher: values.teacher === "1" };
}

const ADDRESS_KEYS = { query: "q" }; // shorter in the address than in the form

/** The address of the question in the form, without what is at its default. */
function addressOf(panel) {
  const values = new URLSearchParams();
  for (const field of fieldsOf(panel)) {
    const text = textOf(field).trim();
    const key = ADDRESS_KEYS[field.name] ?? field.name;
    if (text !== (panel.defaults[field.name] ?? "")) values.set(key, text);
  }
  const asked = values.toString();
  return asked ? `#${panel.name}?${asked}` : `#${panel.name}`;
}

function valuesIn(asked) {
  const values = new URLSearchParams(asked);
  for (const [field, key] of Object.entries(ADDRESS_KEYS)) if (values.has(key)) values.set(field, values.get(key));
  return values;
}

// ---------------------------------------------------------------- running a request

const PATIENCE_MS = 400; // a quicker answer is not worth announcing twice

function setBusy(panel, busy) {
  panel.section.classList.toggle("busy", busy);
  panel.results.setAttribute("aria-busy", String(busy));
  clearTimeout(panel.patience);
  const say = () => (panel.status.textContent = "Waiting for the answer…");
  if (busy) panel.patience = setTimeout(say, PATIENCE_MS);
}

function clearProblem(panel) {
  panel.problem.replaceChildren();
  for (const field of fieldsOf(panel)) field.removeAttribute("aria-invalid");
}

function clear(panel) {
  panel.running.abort();
  setBusy(panel, false);
  clearProblem(panel);
  panel.status.textContent = "";
  panel.results.replaceChildren();
}

function show(panel, view) {
  panel.status.textContent = view.status;
  panel.results.replaceChildren(...view.nodes);
}

/** The field an error is about; the API may say `query`, `body.query` or `candidates[3]`. */
function fieldNamed(panel, param) {
  const words = String(param ?? "").split(/[^a-z_]+/);
  return fieldsOf(panel).find((field) => words.includes(field.name));
}

/** With an index in place, the teacher is the one thing a question that needs it can find missing. */
function noTeacher(panel, error) {
  const form = read(panel);
  const asked = panel.name === "compare" || form.teacher || form.rerank === "teacher";
  return asked && error.status === 404;
}

function searchWithoutTeacher() {
  byId("search-teacher").checked = false;
  byId("search-rerank").value = panels.search.defaults.rerank;
  formChanged();
  submit(panels.search);
}

function wayOut(panel, error) {
  if (noTeacher(panel, error) && panel.name === "search") {
    return [button("Show the student’s results", searchWithoutTeacher, { id: "search-without-teacher" })];
  }
  const mayPass = error.status < 400 || error.status === 429 || error.status >= 500;
  return mayPass ? [button("Try again", () => run(panel), { "data-retry": "" })] : [];
}

function leadOf(panel, error) {
  if (noTeacher(panel, error)) return "This server has no teacher.";
  if (error.status < 400) return "No usable answer.";
  return error.status < 500 ? "The server refused this." : "The server failed.";
}

function showProblem(panel, error) {
  const details = [error.status && `HTTP ${error.status}`, error.type, error.param].filter(Boolean).join(" · ");
  fieldNamed(panel, error.param)?.setAttribute("aria-invalid", "true");
  if (noTeacher(panel, error)) nameModel("teacher", "not served");
  panel.status.textContent = "";
  panel.results.replaceChildren();
  panel.problem.replaceChildren(element("div", { class: "problem" },
    element("p", {}, element("strong", {}, leadOf(panel, error)), " ", error.message),
    ...(details ? [element("p", { class: "hint" }, details)] : []),
    ...wayOut(panel, error)));
}

/** A search answered 404 may mean that the index went away: look before blaming the teacher. */
async function lostIndex(panel, error) {
  return panel.name === "search" && error.status === 404 && !(await readIndex());
}

async function fail(panel, error, signal) {
  const known = error instanceof Problem ? error : new Problem(0, "The page did not understand what the server sent.");
  if (known !== error) console.error(error);
  const lost = await lostIndex(panel, known);
  if (signal.aborted) return;
  if (lost) clear(panel);
  else showProblem(panel, known);
}

/** Ask what the form says. A request still under way is dropped: only the last question deserves an answer. */
async function run(panel) {
  panel.running.abort();
  panel.running = new AbortController();
  const { signal } = panel.running;
  clearProblem(panel);
  setBusy(panel, true);
  try {
    for await (const view of panel.ask(read(panel), signal)) {
      if (signal.aborted) return;
      show(panel, view);
    }
  } catch (error) {
    if (!signal.aborted) await fail(panel, error, signal);
  } finally {
    if (!signal.aborted) setBusy(panel, false);
  }
}

function submit(panel) {
  if (!panel.form.reportValidity()) return;
  panel.address = addressOf(panel);
  if (location.hash !== panel.address) history.pushState(null, "", panel.address);
  run(panel);
}

// ---------------------------------------------------------------- tabs and the address

function openTab(panel) {
  for (const each of Object.values(panels)) {
    const chosen = each === panel;
    each.tab.setAttribute("aria-selected", String(chosen));
    each.tab.tabIndex = chosen ? 0 : -1;
    each.section.hidden = !chosen;
  }
  document.title = `DSE: ${panel.tab.textContent.trim()}`;
}

function chooseTab(panel) {
  openTab(panel);
  if (location.hash !== panel.address) history.pushState(null, "", panel.address);
}

function panelIn(hash) {
  return panels[hash.slice(1).split("?", 1)[0]] ?? panels.search;
}

/** Show what the address asks for; a complete question is asked at once. */
function followAddress() {
  const hash = location.hash;
  const panel = panelIn(hash);
  openTab(panel);
  const address = hash.length > 1 ? hash : panel.address;
  if (address === panel.address) return; // already there, and perhaps with a draft in the form
  panel.address = address;
  fill(panel, valuesIn(address.split("?").slice(1).join("?")));
  clear(panel);
  const open = !(panel.name === "search" && byId("search-fields").disabled);
  if (open && panel.form.checkValidity()) run(panel);
}

function moveBetweenTabs(event) {
  const all = Object.values(panels);
  const here = all.findIndex((panel) => panel.tab === event.target);
  const places = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: all.length - 1 };
  if (here < 0 || !(event.key in places)) return;
  event.preventDefault();
  const panel = all[(places[event.key] + all.length) % all.length];
  chooseTab(panel);
  panel.tab.focus();
}

// ---------------------------------------------------------------- wiring

/** What depends on the fields: blank is not an answer, and a comparison leaves depth and rerank no meaning. */
function formChanged() {
  for (const field of document.querySelectorAll("[required]")) {
    field.setCustomValidity(field.value.trim() ? "" : "Please write something here.");
  }
  const comparing = byId("search-teacher").checked;
  byId("search-depth").disabled = comparing;
  byId("search-rerank").disabled = comparing;
  byId("search-teacher-hint").hidden = !comparing;
  byId("compare-count").textContent = count(linesOf(byId("compare-candidates").value).length, "candidate");
}

function offerExamples(panel, examples) {
  for (const { name, ...values } of examples) {
    const choose = () => {
      for (const [field, text] of Object.entries(values)) panel.form.elements[field].value = text;
      formChanged();
      submit(panel);
    };
    byId(`${panel.name}-examples`).append(button(name, choose, { class: "example" }));
  }
}

function submitOnEnter(field, panel, wanted) {
  field.addEventListener("keydown", (event) => {
    // isComposing: Enter then belongs to the input method, not to the form.
    if (event.key !== "Enter" || event.isComposing || !wanted(event)) return;
    event.preventDefault();
    submit(panel);
  });
}

function focusSearch(event) {
  const typing = event.target.closest?.("input, textarea, select");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  chooseTab(panels.search);
  byId("search-query").focus();
  byId("search-query").select();
}

function swapPair() {
  const [first, second] = [byId("pair-first"), byId("pair-second")];
  [first.value, second.value] = [second.value, first.value];
  if (panels.pair.form.checkValidity() && panels.pair.results.hasChildNodes()) submit(panels.pair);
}

function wire() {
  for (const panel of Object.values(panels)) {
    panel.tab.addEventListener("click", () => chooseTab(panel));
    panel.tab.addEventListener("keydown", moveBetweenTabs);
    panel.form.addEventListener("input", formChanged);
    panel.form.addEventListener("submit", (event) => {
      event.preventDefault();
      submit(panel);
    });
  }
  byId("search-teacher").addEventListener("change", () => {
    if (panels.search.form.checkValidity()) submit(panels.search);
  });
  byId("no-index-retry").addEventListener("click", readIndex);
  byId("pair-swap").addEventListener("click", swapPair);
  byId("skip-link").addEventListener("click", (event) => {
    event.preventDefault(); // its address would be taken for a question
    document.querySelector("[role=tab][aria-selected=true]").focus();
  });
  submitOnEnter(byId("compare-candidates"), panels.compare, (event) => event.ctrlKey || event.metaKey);
  submitOnEnter(byId("pair-first"), panels.pair, (event) => !event.shiftKey);
  submitOnEnter(byId("pair-second"), panels.pair, (event) => !event.shiftKey);
  offerExamples(panels.search, SEARCH_EXAMPLES.map((query) => ({ name: query, query })));
  offerExamples(panels.compare, COMPARE_EXAMPLES.map((each) => ({ ...each, candidates: each.candidates.join("\n") })));
  offerExamples(panels.pair, PAIR_EXAMPLES);
  document.addEventListener("keydown", focusSearch);
  window.addEventListener("hashchange", followAddress);
}

wire();
formChanged();
openTab(panelIn(location.hash));
await Promise.all([readModels(), readIndex()]); // first, so that a link to a search does not ask a server that has nothing to search
followAddress();
