// The form: what is entered, what is sent, and where the reader is taken.

import { Failure } from "./calls.js";
import { $, counted, nextTask } from "./dom.js";
import { learnModel, listAge, loadModels, mostInputs, showCard, task } from "./models.js";
import { saveReport } from "./report.js";
import { clearAnswers, details, download, showAnswers, showMore } from "./results.js";
import { send } from "./sending.js";
import { chooseTab, copySnippet, moveBetweenTabs, showSnippet } from "./code.js";
import { closeFile, given, openFile, renameColumns, showCount, textCount } from "./texts.js";
import { TASKS } from "./tasks.js";

const STALE_MS = 30_000; // a list of models this old is read again when the page is looked at

let job = null; // what was sent last
let stop = null; // stops it
let settled = false; // the token was accepted, so what it was entered in may go
let pressed = false; // a button is held down, and must not move from under the pointer

// --- models ---------------------------------------------------------------------------------------

/** Reads the list of models and what the chosen one is for; shows what is wrong. Returns whether the list was read. */
async function readModels({ isEntered = false } = {}) {
  const fold = isEntered || !$("model").value;
  let isRead = false;
  try {
    if (!await loadModels()) {
      return false;
    }
    isRead = true;
    settled = fold;
    foldAccess();
    await learnModel(); // the others can be chosen even if this one's task cannot be found out
    showError(null);
  } catch (error) {
    showError(error);
  } finally {
    showTask();
  }
  return isRead;
}

async function refresh() {
  if (!await readModels()) {
    $("model-note").textContent = "";
    return;
  }
  const count = $("model").disabled ? 0 : $("model").options.length;
  $("model-note").textContent = `${count} ${count === 1 ? "model is" : "models are"} served.`;
}

/** Folds the fields of the token away, once for each that was accepted. */
function foldAccess() {
  if (!settled || pressed) {
    return;
  }
  settled = false;
  if ($("access").contains(document.activeElement)) {
    $("access-title").focus(); // the field is about to go
  }
  $("access").open = false;
}

/** Shows what is known of the chosen model, and the fields and words of its task. */
function showTask() {
  if (pressed) {
    return; // until it is released: the button below would move
  }
  showCard();
  $("ranking").hidden = task() !== TASKS.rerank;
  const separated = $("lines").checked ? "one on each line" : "a blank line between two";
  $("texts-label").textContent = `${task() === TASKS.rerank ? "Contexts" : "Texts"}, ${separated}`;
  if ($("ask").getAttribute("aria-disabled") !== "true") {
    $("ask").textContent = task().verb;
  }
  showSnippet();
}

// --- sending --------------------------------------------------------------------------------------

function missing() {
  for (const [id, name] of [["token", "an API token"], ["account", "an account id"]]) {
    if (!$(id).value.trim()) {
      $("access").open = true;
      return [`Enter ${name} first.`, $(id)];
    }
  }
  if (task() === TASKS.rerank && !$("query").value) {
    return ["Write a query.", $("query")];
  }
  if (task() === TASKS.rerank && !$("top").validity.valid) {
    return ["How many of the best: enter a whole number from 1, or nothing.", $("top")];
  }
  if (textCount() === 0) {
    return ["Write at least one text.", $("texts")];
  }
  return null;
}

function newJob() {
  const source = given();
  const top = $("top").value.trim();
  return {
    source,
    model: $("model").value,
    task: task(),
    query: $("query").value,
    texts: source.texts,
    top: top ? Number(top) : null,
    most: mostInputs(),
    isQueued: $("queue").checked,
    outcomes: Array.from(source.texts, () => undefined),
    known: 0,
    neurons: 0,
    isCut: false,
    took: 0,
  };
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
      await readModels(); // Enter in the token's field sends the form before the list is there
    }
    if ($("model").value) {
      await learnModel(); // the list has the first model, whose task may not be known yet
      showTask();
      job = newJob();
      clearAnswers();
      await run();
    }
  } catch (error) {
    showError(error);
  } finally {
    busy(false);
  }
}

/** Goes on with a job of which some texts have no outcome. */
async function goOn() {
  busy(true);
  await run();
  busy(false);
}

async function run() {
  stop = new AbortController();
  job.signal = stop.signal;
  const started = performance.now();
  let isShown = job.known > 0;
  const hooks = {
    answered() {
      if (!isShown) {
        showAnswers(job);
        bringIntoView();
        isShown = true;
      }
      showProgress();
    },
    waits(words) {
      $("status").textContent = words;
      $("progress-text").textContent = "";
      $("progress").hidden = false;
    },
  };
  $("go-on").hidden = true;
  showError(null);
  let failure = null;
  try {
    await nextTask();
    showProgress();
    await send(job, hooks);
  } catch (error) {
    failure = error;
  }
  job.took += performance.now() - started;
  $("progress").hidden = true;
  await finish(failure);
}

/** Shows what there is, after all was answered, a failure or a stop. */
async function finish(failure) {
  const { known } = job;
  const isStopped = stop.signal.aborted;
  const left = job.texts.length - known;
  if (known) {
    showAnswers(job);
  }
  $("go-on").hidden = !known || !left;
  $("go-on").textContent = `Go on with the other ${counted(left)}`;
  $("status").textContent = left ? unfinished(known, isStopped) : summary();
  if (failure && !isStopped) {
    if (failure.code === 5007) {
      await readModels();
    }
    showError(failure);
  } else {
    bringIntoView();
  }
}

function unfinished(known, isStopped) {
  if (!known) {
    return isStopped ? "Stopped. No scores." : "No scores.";
  }
  const counts = `${counted(known)} of ${counted(job.texts.length)} ${job.task.several} ${job.task.done}`;
  return `${isStopped ? "Stopped" : "Not finished"}: ${counts}.`;
}

function summary() {
  const { texts, took, neurons, outcomes } = job;
  const time = took < 10 ? `${took.toFixed(1)} ms` : took < 10_000 ? `${Math.round(took)} ms` : `${(took / 1000).toFixed(1)} s`;
  const parts = [`${counted(texts.length)} ${texts.length === 1 ? job.task.one : job.task.several} in ${time}`];
  parts.push(`${neurons.toFixed(2)} neurons`);
  const cut = outcomes.filter((outcome) => outcome?.isCut).length;
  if (cut || job.isCut) {
    parts.push(`${cut ? counted(cut) : "some"} cut to what the model reads`);
  }
  const failures = outcomes.filter((outcome) => outcome?.error).length;
  if (failures) {
    parts.push(`${counted(failures)} without a score`);
  }
  return parts.join(" · ");
}

// --- showing --------------------------------------------------------------------------------------

function showError(failure) {
  $("error-text").textContent = failure?.message ?? "";
  $("error-details").replaceChildren(...(failure ? details(failure) : []));
  $("error").hidden = !failure;
}

function showProgress() {
  $("progress").hidden = job.texts.length <= job.most && !job.isQueued;
  $("bar").max = job.texts.length;
  $("bar").value = job.known;
  $("progress-text").textContent = `${counted(job.known)} of ${counted(job.texts.length)} ${job.task.several}`;
}

/** Takes the reader to the scores: the focus goes to their heading, which is scrolled to if it has to be. */
function bringIntoView() {
  if ($("answers").childElementCount === 0) {
    return;
  }
  $("answers-title").focus({ preventScroll: true });
  const top = $("scores").getBoundingClientRect().top;
  const first = $("answers").firstElementChild.getBoundingClientRect();
  if (top < 0 || first.bottom > innerHeight) {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    $("scores").scrollIntoView({ behavior: calm ? "instant" : "smooth", block: "start" });
  }
}

function busy(on) {
  $("ask").setAttribute("aria-disabled", String(on));
  $("ask").textContent = on ? task().doing : task().verb;
}

// --- start ----------------------------------------------------------------------------------------

function remember() {
  sessionStorage.setItem("token", $("token").value.trim());
  sessionStorage.setItem("account", $("account").value.trim());
}

function saveTable() {
  try {
    download();
    showError(null);
  } catch (error) {
    showError(error);
  }
}

async function chooseFile([chosen]) {
  if (!chosen) {
    return;
  }
  try {
    await openFile(chosen);
    showError(null);
    $("column").focus();
  } catch (error) {
    $("file").value = "";
    showError(error);
  }
  showSnippet();
}

function listen() {
  const on = (id, kind, listener) => $(id).addEventListener(kind, listener);
  for (const id of ["token", "account"]) {
    on(id, "change", () => { remember(); readModels({ isEntered: true }); });
  }
  on("token", "paste", () => setTimeout(() => { remember(); readModels({ isEntered: true }); }));
  addEventListener("pointerdown", () => { pressed = true; });
  for (const name of ["pointerup", "pointercancel"]) {
    addEventListener(name, () => { pressed = false; setTimeout(() => { foldAccess(); showTask(); }); }); // after the click
  }
  on("form", "submit", (event) => { event.preventDefault(); ask(); });
  on("texts", "keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      ask();
    }
  });
  on("stop", "click", () => stop?.abort());
  on("go-on", "click", goOn);
  on("download", "click", saveTable);
  on("more", "click", () => {
    const first = showMore();
    first.tabIndex = -1;
    first.focus();
  });
  for (const id of ["texts", "query", "top", "queue", "lines"]) {
    on(id, "input", () => { showCount(); showTask(); });
  }
  on("model", "change", () => learnModel().then(() => showError(null), showError).then(showTask));
  on("refresh", "click", refresh);
  on("report", "click", () => saveReport().then(() => showError(null), showError));
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && !$("model").disabled && listAge() > STALE_MS) {
      readModels();
    }
  });
  on("file", "change", () => chooseFile($("file").files));
  on("close-file", "click", () => { closeFile(); showSnippet(); $("file").focus(); });
  on("header", "change", () => { renameColumns(); showSnippet(); });
  on("column", "change", showSnippet);
  on("tabs", "click", (event) => {
    const tab = event.target.closest('[role="tab"]');
    if (tab) {
      chooseTab(tab);
    }
  });
  on("tabs", "keydown", moveBetweenTabs);
  on("copy", "click", copySnippet);
}

$("token").value = sessionStorage.getItem("token") ?? "";
$("account").value = sessionStorage.getItem("account") ?? $("account").value;
listen();
showCount();
showTask();
readModels();
