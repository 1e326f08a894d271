"use strict";

const $ = (id) => document.getElementById(id);
const accounts = new URL("client/v4/accounts/", document.baseURI).href;
let newest = 0; // the list of models that was asked for last
let settled = false; // the token was accepted, so what it was entered in may go
let pressed = false; // a button is held down, and must not move from under the pointer

// --- talking to the gateway ---------------------------------------------------------------------

/** What is said of the codes of the API; a list holds what is said first of a status of its own. */
const WORDS = {
  3003: "The gateway could not read the request.",
  3006: "The texts are too long together. Send fewer or shorter ones.",
  3007: "There was no answer in time. Try again, with fewer texts if it happens once more.",
  3021: "This account has sent as many texts as it may in a minute.",
  3040: "The gateway has too much to do at the moment.",
  3050: "The models cannot be reached at the moment: the server is starting, or stopping.",
  5006: "The gateway does not accept these texts.",
  5007: "This model is not served any more. Reload the page to see those that are.",
  6003: "The gateway could not read the token. Paste it again.",
  8007: "The model could not score these texts.",
  10000: "The token is not known here. Check that all of it was pasted.",
  10013: "The gateway has failed. Its log says why.",
};
const OTHER_ACCOUNT = "The token is good for another account. Enter the account id that it was made for.";

/** What went wrong: a sentence for people, and what the API said. */
class Failure extends Error {
  constructor(sentence, detail = "") {
    super(sentence);
    this.detail = detail;
  }
}

/** Sends one request; returns the parsed body and the response, or throws a Failure. */
async function call(path, options = {}) {
  const url = accounts + encodeURIComponent($("account").value.trim()) + path;
  const headers = { Authorization: `Bearer ${$("token").value.trim()}`, ...options.headers };
  if (!/^[\x21-\x7e]+$/.test($("token").value.trim())) {
    throw new Failure("The token has a character that no token has. Paste it again.");
  }
  let response;
  try {
    response = await fetch(url, { ...options, headers, credentials: "omit", cache: "no-store" });
  } catch {
    throw new Failure("The gateway did not answer. Is it still running?");
  }
  const body = await response.json().catch(() => null);
  if (!response.ok || body === null || !body.success) {
    const wait = response.headers.get("retry-after");
    $("access").open ||= response.status === 401 || response.status === 403;
    throw explain(response.status, body?.errors?.[0], wait ? ` Try again in ${wait} s.` : "");
  }
  return { body, response };
}

/** Brings an error of the API into words; its own ones and the code stay beside them. */
function explain(status, error, advice = "") {
  if (!error) {
    return new Failure(`What answered was not the gateway.${advice}`, `HTTP ${status}`);
  }
  const most = /'\/requests' must be <= (\d+)/.exec(error.message)?.[1];
  let sentence = WORDS[error.code] ?? "The gateway refused the request.";
  if (most) {
    sentence = `At most ${most} texts go into one request. Remove some lines.`;
  } else if (status === 403) {
    sentence = OTHER_ACCOUNT;
  }
  return new Failure(sentence + advice, `${status ? `HTTP ${status}, ` : ""}code ${error.code}: ${error.message}`);
}

async function loadModels() {
  const mine = ++newest;
  if (!$("token").value.trim()) {
    return showModels([], "Enter a token to see the models");
  }
  try {
    const names = await classifiers();
    if (mine === newest) {
      showModels(names);
      showError(null);
      settled = true;
      foldAccess();
    }
  } catch (error) {
    if (mine === newest) {
      showModels([], "No models: see the message");
      showError(error);
    }
  }
}

/** Asks for page after page until one is empty. */
async function classifiers() {
  const names = [];
  for (let page = 1; ; page++) {
    const { body } = await call(`/ai/models/search?task=Text%20Classification&page=${page}`);
    if (body.result.length === 0) {
      return names;
    }
    names.push(...body.result.map((model) => model.name));
  }
}

/** Slashes of the name stay as they are, as in the documents. */
function runPath(model) {
  return `/ai/run/${model.split("/").map(encodeURIComponent).join("/").replaceAll("%40", "@")}`;
}

function payload(texts) {
  return texts.length === 1 ? { text: texts[0] } : { requests: texts.map((text) => ({ text })) };
}

async function classify() {
  if ($("classify").getAttribute("aria-disabled") === "true") {
    return;
  }
  const texts = lines();
  const trouble = missing(texts);
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
      await run(texts);
    }
  } catch (error) {
    $("answers").replaceChildren();
    $("status").textContent = "No scores.";
    showError(error);
  } finally {
    busy(false);
  }
}

async function run(texts) {
  const options = { method: "POST", body: JSON.stringify(payload(texts)) };
  const started = performance.now();
  const { body, response } = await call(runPath($("model").value), options);
  const took = performance.now() - started;
  showError(null);
  showAnswers(texts, answersOf(body.result));
  $("status").textContent = summary(texts.length, took, response);
  if ($("access").contains(document.activeElement)) {
    $("access-title").focus(); // Enter in the token's field: that field is about to go
    $("access").open = settled = false;
  }
  bringIntoView();
}

function missing(texts) {
  if (!$("token").value.trim()) {
    $("access").open = true;
    return ["Enter an API token first.", $("token")];
  }
  if (!$("account").value.trim()) {
    $("access").open = true;
    return ["Enter an account id first.", $("account")];
  }
  if (texts.length === 0) {
    return ["Write at least one line of text.", $("texts")];
  }
  return null;
}

/** Brings one text and several into one shape: a list of {scores} or {error}. */
function answersOf(result) {
  const list = result.responses ?? [{ success: true, result }];
  return list.map((answer) =>
    answer.success
      ? { scores: Array.isArray(answer.result) ? answer.result : answer.result.items }
      : { error: explain(0, answer.errors[0]) });
}

function summary(count, took, response) {
  const parts = [`${count} ${count === 1 ? "text" : "texts"} in ${took < 10 ? took.toFixed(1) : Math.round(took)} ms`];
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
  $("classify").setAttribute("aria-disabled", String(on));
  $("classify").textContent = on ? "Classifying …" : "Classify";
}

function showModels(names, instead = "No model is served") {
  const before = $("model").value;
  const shown = names.length ? names : [""];
  $("model").replaceChildren(...shown.map((name) => new Option(name || instead, name, false, name === before)));
  $("model").disabled = names.length === 0;
  $("access-state").textContent = names.length ? "– token accepted" : "";
  showSnippet();
}

function showAnswers(texts, answers) {
  $("answers").replaceChildren(...answers.map(({ scores, error }, place) => {
    const item = element("li", "");
    item.append(element("p", "text", texts[place]), error ? failed(error) : bars(scores));
    return item;
  }));
}

function failed(failure) {
  const shown = element("p", "failed", failure.message);
  shown.append(element("small", "", failure.detail));
  return shown;
}

function bars(scores) {
  const list = element("dl", "scores");
  const best = Math.max(...scores.map(({ score }) => score));
  for (const { label, score } of scores) {
    const name = score === best ? "best" : "";
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
  const texts = lines().length ? lines() : ["This pizza is great!"];
  const url = accounts + encodeURIComponent($("account").value.trim() || "ACCOUNT_ID") + runPath(model);
  $("snippet").textContent = SNIPPETS[chosen](url, payload(texts), model, texts).join("\n");
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
$("form").addEventListener("submit", (event) => { event.preventDefault(); classify(); });
$("texts").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    classify();
  }
});
$("texts").addEventListener("input", showSnippet);
$("model").addEventListener("change", showSnippet);
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
