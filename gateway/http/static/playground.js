"use strict";

const PLACEHOLDER = "YOUR_TOKEN";
const $ = (id) => document.getElementById(id);
const accounts = new URL("client/v4/accounts/", document.baseURI).href;
let newest = 0; // the list of models that was asked for last

// --- talking to the gateway ---------------------------------------------------------------------

/** Sends one request; returns the parsed body and the response, or throws an Error fit to be shown. */
async function call(path, options = {}) {
  const url = accounts + encodeURIComponent($("account").value.trim()) + path;
  const headers = { Authorization: `Bearer ${$("token").value.trim()}`, ...options.headers };
  let response;
  try {
    response = await fetch(url, { ...options, headers, credentials: "omit", cache: "no-store" });
  } catch {
    throw new Error("The gateway did not answer. Is it still running, and is the token plain ASCII?");
  }
  const body = await response.json().catch(() => null);
  if (!response.ok || body === null || !body.success) {
    throw new Error(explain(response, body));
  }
  return { body, response };
}

function explain(response, body) {
  const entry = body?.errors?.[0];
  const said = entry ? `${entry.message} (code ${entry.code})` : response.statusText;
  const wait = response.headers.get("retry-after");
  return `HTTP ${response.status}: ${said}${wait ? `. Try again in ${wait} s.` : ""}`;
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
      showError("");
    }
  } catch (error) {
    if (mine === newest) {
      showModels([], "No models: see the message");
      showError(error.message);
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
    showError(trouble[0]);
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
    showError(error.message);
  } finally {
    busy(false);
  }
}

async function run(texts) {
  const options = { method: "POST", body: JSON.stringify(payload(texts)) };
  const started = performance.now();
  const { body, response } = await call(runPath($("model").value), options);
  const took = performance.now() - started;
  showError("");
  showAnswers(texts, answersOf(body.result));
  $("status").textContent = summary(texts.length, took, response);
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
      : { error: answer.errors[0].message });
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

function showError(message) {
  $("error").textContent = message;
  $("error").hidden = !message;
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
    item.append(element("p", "text", texts[place]), error ? element("p", "failed", error) : bars(scores));
    return item;
  }));
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

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

const SNIPPETS = {
  curl: (url, body) => [
    `curl ${quoted(url)} \\`,
    `  -H "Authorization: Bearer ${PLACEHOLDER}" \\`,
    `  -d ${quoted(JSON.stringify(body))}`,
  ],
  python: (url, body) => [
    "import requests",
    "",
    "answer = requests.post(",
    `    ${JSON.stringify(url)},`,
    `    headers={"Authorization": "Bearer ${PLACEHOLDER}"},`,
    `    json=${JSON.stringify(body)},`,
    ")",
    'print(answer.json()["result"])',
  ],
  javascript: (url, body) => [
    `const answer = await fetch(${JSON.stringify(url)}, {`,
    '  method: "POST",',
    `  headers: { Authorization: "Bearer ${PLACEHOLDER}" },`,
    `  body: JSON.stringify(${JSON.stringify(body)}),`,
    "});",
    "console.log((await answer.json()).result);",
  ],
  worker: (url, body, model, texts) => [
    "// wrangler.toml: [ai] binding = \"AI\"",
    "export default {",
    "  async fetch(request, env) {",
    `    const texts = ${JSON.stringify(texts)};`,
    "    const scores = await Promise.all(",
    `      texts.map((text) => env.AI.run(${JSON.stringify(model)}, { text })),`,
    "    );",
    "    return Response.json(scores);",
    "  },",
    "};",
  ],
};

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
