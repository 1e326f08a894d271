"use strict";

const POLL_MS = [250, 500, 1000, 2000]; // between two questions whether a batch is done; the last one stays
const tasks = new Map(); // of the models that were chosen so far
let newest = 0; // the list of models that was asked for last
let asked = 0; // the request that was sent last
let settled = false; // the token was accepted, so what it was entered in may go
let pressed = false; // a button is held down, and must not move from under the pointer

// --- asking --------------------------------------------------------------------------------------

async function loadModels() {
  const mine = ++newest;
  if (!$("token").value.trim()) {
    return showModels([], "Enter a token to see the models");
  }
  try {
    const names = await listModels();
    if (mine !== newest) {
      return;
    }
    showModels(names);
  } catch (error) {
    if (mine === newest) {
      showModels([], "No models: see the message");
      showError(error);
    }
    return;
  }
  settled = true;
  foldAccess();
  // The others can be chosen even if this one's task cannot be found out.
  const problem = await learnTask().then(() => null, (error) => error);
  if (mine === newest) {
    showError(problem);
  }
}

/** Asks for page after page until one is empty. */
async function listModels() {
  const names = [];
  for (let page = 1; ; page++) {
    const { body } = await call(`/ai/models/search?task=Text%20Classification&page=${page}`);
    if (body.result.length === 0) {
      return names;
    }
    noteReports(body.result);
    names.push(...body.result.map((model) => model.name));
  }
}

/** Slashes of the name stay as they are, as in the documents. */
function runPath(model) {
  return `/ai/run/${model.split("/").map(encodeURIComponent).join("/").replaceAll("%40", "@")}`;
}

/** Finds out what the chosen model is for, and shows the form of its task. */
async function learnTask() {
  const model = $("model").value;
  if (model && !tasks.has(model)) {
    const { body } = await call(`/ai/models/schema?model=${encodeURIComponent(model)}`);
    tasks.set(model, taskOf(body.result));
  }
  showTask();
}

function task() {
  return TASKS[tasks.get($("model").value) ?? "classification"];
}

/** What the form asks for. */
function form() {
  const top = $("top").value.trim();
  return { query: $("query").value, texts: lines(), top: top ? Number(top) : null };
}

function payload(given) {
  const requests = task().requests(given);
  return requests.length === 1 && !$("queue").checked ? requests[0] : { requests };
}

async function ask() {
  if ($("ask").getAttribute("aria-disabled") === "true") {
    return;
  }
  const trouble = missing();
  if (trouble) {
    showError(new Failure(trouble[0]));
    trouble[1].focus();
    return;
  }
  busy(true);
  try {
    if (!$("model").value) {
      await loadModels(); // Enter in the token's field sends the form before the list is there
    }
    if ($("model").value) {
      await learnTask(); // the list has the first model, whose task may not be known yet
      await run();
    }
  } catch (error) {
    $("answers").replaceChildren();
    $("status").textContent = "No scores.";
    showError(error);
  } finally {
    busy(false);
  }
}

async function run() {
  const mine = ++asked;
  const given = form();
  const started = performance.now();
  const path = runPath($("model").value) + ($("queue").checked ? "?queueRequest=true" : "");
  let { body, response } = await call(path, { method: "POST", body: JSON.stringify(payload(given)) });
  for (let turn = 0; body.result.request_id && !body.result.responses; turn++) {
    $("status").textContent = `The batch is ${body.result.status}. It stays on the server if you leave.`;
    await new Promise((done) => setTimeout(done, POLL_MS[Math.min(turn, POLL_MS.length - 1)]));
    if (mine !== asked) {
      return;
    }
    const poll = { method: "POST", body: JSON.stringify({ request_id: body.result.request_id }) };
    ({ body, response } = await call(path, poll));
  }
  const took = performance.now() - started;
  showError(null);
  showAnswers(task().shown(answersOf(body.result), given));
  $("status").textContent = summary(given.texts.length, took, response);
  if ($("access").contains(document.activeElement)) {
    $("access-title").focus(); // Enter in the token's field: that field is about to go
    $("access").open = settled = false;
  }
  bringIntoView();
}

function missing() {
  if (!$("token").value.trim()) {
    $("access").open = true;
    return ["Enter an API token first.", $("token")];
  }
  if (!$("account").value.trim()) {
    $("access").open = true;
    return ["Enter an account id first.", $("account")];
  }
  if (task() === TASKS.rerank && !$("query").value) {
    return ["Write a query.", $("query")];
  }
  if (lines().length === 0) {
    return ["Write at least one line of text.", $("texts")];
  }
  return null;
}

/** Brings one request and several into one shape: a list of {result} or {error}. */
function answersOf(result) {
  const list = result.responses ?? [{ success: true, result }];
  return list.map((answer) => answer.success ? answer : { error: explain(0, answer.errors[0]) });
}

function summary(count, took, response) {
  const parts = [`${count} ${count === 1 ? task().one : task().several} in ${took < 10 ? took.toFixed(1) : Math.round(took)} ms`];
  const neurons = response.headers.get("cf-ai-neurons");
  if (neurons) {
    parts.push(`${neurons} neurons`);
  }
  if (response.headers.get("x-truncated")) {
    parts.push("cut to what the model reads");
  }
  return parts.join(" · ");
}

// --- showing ------------------------------------------------------------------------------------

function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function showError(failure) {
  const parts = failure ? [element("span", "", failure.message), element("small", "", failure.detail)] : [];
  $("error").replaceChildren(...parts.filter((part) => part.textContent));
  $("error").hidden = !failure;
}

/** Folds the fields of the token away, once for each that was accepted, and not while they are in use. */
function foldAccess() {
  if (settled && !pressed && !$("access").contains(document.activeElement)) {
    $("access").open = settled = false;
  }
}

/** Moves to the first answer where it is not on the screen, as below the form on a phone. */
function bringIntoView() {
  const { top, bottom } = $("answers").firstElementChild.getBoundingClientRect();
  if (top < 0 || bottom > innerHeight) {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    $("scores").scrollIntoView({ behavior: calm ? "instant" : "smooth", block: "start" });
  }
}

function busy(on) {
  $("ask").setAttribute("aria-disabled", String(on));
  $("ask").textContent = on ? task().doing : task().verb;
}

function showModels(names, instead = "No model is served") {
  const before = $("model").value;
  const shown = names.length ? names : [""];
  $("model").replaceChildren(...shown.map((name) => new Option(name || instead, name, false, name === before)));
  $("model").disabled = names.length === 0;
  $("access-state").textContent = names.length ? "– token accepted" : "";
  showTask();
}

/** Shows the fields and words of the chosen model's task. */
function showTask() {
  $("ranking").hidden = task() !== TASKS.rerank;
  $("texts-label").textContent = task().label;
  if ($("ask").getAttribute("aria-disabled") !== "true") {
    $("ask").textContent = task().verb;
  }
  showReport();
  showSnippet();
}

function showAnswers(answers) {
  $("answers").replaceChildren(...answers.map(({ text, bars, error }) => {
    const item = element("li", "");
    item.append(element("p", "text", text), error ? failed(error) : drawn(bars));
    return item;
  }));
}

function failed(failure) {
  const shown = element("p", "failed", failure.message);
  shown.append(element("small", "", failure.detail));
  return shown;
}

function drawn(bars) {
  const list = element("dl", "scores");
  for (const { label, score, best } of bars) {
    const name = best ? "best" : "";
    const row = element("div", name);
    const track = element("dd", `track ${name}`);
    const bar = element("div", "bar");
    bar.style.width = `${100 * score}%`;
    track.setAttribute("aria-hidden", "true");
    track.append(bar);
    row.append(element("dt", name, label), track, element("dd", `number ${name}`, `${(100 * score).toFixed(2)} %`));
    list.append(row);
  }
  return list;
}

// --- the same from code ---------------------------------------------------------------------------

function lines() {
  return $("texts").value.split(/\r?\n/).filter((line) => line.trim());
}

function showSnippet() {
  const chosen = $("tabs").querySelector('[aria-selected="true"]').id.slice("tab-".length);
  const model = $("model").value || "@cf/huggingface/distilbert-sst-2-int8";
  const { example } = task();
  const given = { ...form(), ...(lines().length ? {} : { texts: example }) };
  const url = accounts + encodeURIComponent($("account").value.trim() || "ACCOUNT_ID") + runPath(model);
  const body = payload(given);
  const isQueued = $("queue").checked;
  const isRanking = task() === TASKS.rerank;
  const request = { url: isQueued ? `${url}?queueRequest=true` : url, body, model, ...given, isRanking, isQueued };
  $("snippet").textContent = SNIPPETS[chosen](request).join("\n");
}

function chooseTab(tab) {
  for (const other of $("tabs").children) {
    other.setAttribute("aria-selected", String(other === tab));
    other.tabIndex = other === tab ? 0 : -1;
  }
  $("code").setAttribute("aria-labelledby", tab.id);
  showSnippet();
}

function moveBetweenTabs(event) {
  const tabs = [...$("tabs").children];
  const here = tabs.indexOf(document.activeElement);
  const places = { ArrowRight: here + 1, ArrowLeft: here - 1 + tabs.length, Home: 0, End: tabs.length - 1 };
  if (event.key in places) {
    event.preventDefault();
    const next = tabs[places[event.key] % tabs.length];
    next.focus();
    chooseTab(next);
  }
}

async function copySnippet() {
  try {
    await navigator.clipboard.writeText($("snippet").textContent);
    $("copy").textContent = "Copied";
  } catch {
    getSelection().selectAllChildren($("snippet")); // no clipboard without HTTPS
    $("copy").textContent = "Selected: press Ctrl + C";
  }
  setTimeout(() => { $("copy").textContent = "Copy"; }, 2000);
}

// --- start ----------------------------------------------------------------------------------------

function remember() {
  sessionStorage.setItem("token", $("token").value.trim());
  sessionStorage.setItem("account", $("account").value.trim());
}

$("token").value = sessionStorage.getItem("token") ?? "";
$("account").value = sessionStorage.getItem("account") ?? $("account").value;
for (const field of [$("token"), $("account")]) {
  field.addEventListener("change", () => { remember(); loadModels(); });
}
$("access").addEventListener("focusout", () => setTimeout(foldAccess));
addEventListener("pointerdown", () => { pressed = true; });
for (const name of ["pointerup", "pointercancel"]) {
  addEventListener(name, () => { pressed = false; setTimeout(foldAccess); }); // after the click
}
$("form").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
$("texts").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    ask();
  }
});
for (const id of ["texts", "query", "top", "queue"]) {
  $(id).addEventListener("input", showSnippet);
}
$("model").addEventListener("change", () => { showReport(); showSnippet(); learnTask().catch(showError); });
$("tabs").addEventListener("click", (event) => {
  const tab = event.target.closest('[role="tab"]');
  if (tab) {
    chooseTab(tab);
  }
});
$("tabs").addEventListener("keydown", moveBetweenTabs);
$("copy").addEventListener("click", copySnippet);
showSnippet();
loadModels();
