// Showing what came back: bars for each text, and all of it as a table.

import { Failure } from "./calls.js";
import { format } from "./csv.js";
import { $, counted, element, saveAs } from "./dom.js";
import { readTokens } from "./models.js";

const FIRST_LABELS = 5; // of a text; the others wait behind a button
const PAGE = 100; // texts that are shown at once
const TOTALS_FROM = 10; // texts of which a summary by label says more than the list

let listed = []; // of the places that are shown, in their order
let job = null;

/** Shows the first outcomes of a job, instead of those that were shown before. */
export function showAnswers(shown) {
  job = shown;
  listed = job.task.order(job.outcomes, job).filter((place) => job.outcomes[place]);
  $("answers").replaceChildren();
  $("download").hidden = listed.length === 0;
  showTotals();
  showMore();
}

export function clearAnswers() {
  job = null;
  listed = [];
  $("answers").replaceChildren();
  for (const id of ["download", "more", "totals"]) {
    $(id).hidden = true;
  }
}

/** Shows the next texts; returns the first of them. */
export function showMore() {
  const from = $("answers").childElementCount;
  const items = listed.slice(from, from + PAGE).map((place) => itemOf(place));
  $("answers").append(...items);
  const rest = listed.length - from - items.length;
  $("more").hidden = rest === 0;
  $("more").textContent = `Show ${counted(Math.min(rest, PAGE))} more of ${counted(rest)}`;
  // All are measured before the first button is added: a layout for all instead of one for each.
  const long = items.map((item) => item.querySelector(".text")).filter((text) => text.scrollHeight > text.clientHeight + 1);
  long.forEach(addUnfold);
  return items[0];
}

function itemOf(place) {
  const outcome = job.outcomes[place];
  const item = element("li");
  item.append(element("p", "text", job.texts[place]));
  if (outcome.isCut) {
    const read = outcome.hasWindows ? null : readTokens(); // with windows, more than the model reads at once
    item.classList.add("is-cut");
    item.append(element("p", "cut", `Cut: the model read only ${read ? `the first ${counted(read)} tokens` : "the beginning"}.`));
  }
  item.append(...(outcome.error ? [failed(outcome.error)] : drawn(outcome.scores, place)));
  return item;
}

function addUnfold(text) {
  const button = element("button", "link", "Show all of the text");
  button.type = "button";
  button.setAttribute("aria-expanded", "false");
  button.addEventListener("click", () => {
    const isOpen = text.classList.toggle("whole");
    button.textContent = isOpen ? "Show less of the text" : "Show all of the text";
    button.setAttribute("aria-expanded", String(isOpen));
  });
  text.after(button);
}

function failed(failure) {
  const shown = element("div", "failed");
  shown.append(element("p", "", failure.message), ...details(failure));
  return shown;
}

/** The API's own words, folded; nothing if it said none. */
export function details(failure) {
  if (!failure.detail) {
    return [];
  }
  const folded = element("details");
  folded.append(element("summary", "", "Details"), element("code", "", failure.detail));
  return [folded];
}

/** Bars in the model's order of labels, or, where those are many, the best first and the others folded. */
function drawn(scores, place) {
  const best = Math.max(...scores.map(({ score }) => score));
  const isLong = scores.length > FIRST_LABELS;
  const isBest = ({ label, score }) => (label === null ? place === listed[0] : score === best);
  const ordered = isLong ? [...scores].sort((a, b) => b.score - a.score) : scores;
  const list = element("dl", "scores");
  const rows = ordered.map((each) => rowOf(each, isBest(each), place));
  list.append(...rows);
  if (!isLong) {
    return [list];
  }
  const others = rows.slice(FIRST_LABELS);
  others.forEach((row) => { row.hidden = true; });
  const button = element("button", "link", `${others.length} more ${others.length === 1 ? "label" : "labels"}`);
  const text = button.textContent;
  button.type = "button";
  button.setAttribute("aria-expanded", "false");
  button.addEventListener("click", () => {
    const isOpen = button.getAttribute("aria-expanded") === "false";
    others.forEach((row) => { row.hidden = !isOpen; });
    button.textContent = isOpen ? "Fewer labels" : text;
    button.setAttribute("aria-expanded", String(isOpen));
  });
  return [list, button];
}

function rowOf({ label, score }, isBest, place) {
  const name = isBest ? "best" : "";
  const row = element("div", name);
  const track = element("dd", `track ${name}`);
  const bar = element("div", "bar");
  bar.style.width = `${100 * score}%`;
  track.setAttribute("aria-hidden", "true");
  track.append(bar);
  const number = element("dd", `number ${name}`, `${(100 * score).toFixed(2)} %`);
  // A context has the number that the answer of the API has for it.
  row.append(element("dt", name, label ?? `context ${place}`), track, number);
  return row;
}

const labelOf = ({ scores }) => scores.reduce((best, each) => (each.score > best.score ? each : best)).label;

/** Says how many texts have which label as their best, where there are many. */
function showTotals() {
  const totals = new Map();
  for (const outcome of job.outcomes) {
    const label = outcome?.scores ? labelOf(outcome) : null;
    if (label !== null) {
      totals.set(label, (totals.get(label) ?? 0) + 1);
    }
  }
  const count = [...totals.values()].reduce((sum, each) => sum + each, 0);
  $("totals").hidden = count < TOTALS_FROM;
  const parts = [...totals].sort((a, b) => b[1] - a[1]).slice(0, FIRST_LABELS);
  $("totals").textContent = parts
    .map(([label, each]) => `${label} ${counted(each)} (${Math.round(100 * each / count)} %)`)
    .join(" · ") + (totals.size > FIRST_LABELS ? ` · ${totals.size - FIRST_LABELS} more labels` : "");
}

/** Saves the rows that the texts came from, and their outcomes, as a file of the browser, or throws a Failure. */
export function download() {
  try {
    const table = new Blob([...format(tableOf(job))], { type: "text/csv;charset=utf-8" });
    saveAs(table, `${job.source.name}-scores.csv`);
  } catch (error) {
    throw new Failure("The browser has no room for this file.", `${error.name}: ${error.message}`);
  }
}

/** Yields a header, and a row for each text in the order in which they were given; their columns first. */
export function* tableOf({ outcomes, source, task, ...rest }) {
  const { header, rows } = source;
  const found = new Set();
  for (const outcome of outcomes) {
    outcome?.scores?.forEach(({ label }) => found.add(label));
  }
  const labels = [...found];
  const isRanking = labels.includes(null);
  const ranks = new Map(task.order(outcomes, rest).map((place, rank) => [place, rank + 1]));
  const added = isRanking ? ["rank", "score"] : ["label", "score", ...labels.map((label) => `score ${label}`)];
  const taken = new Set(header);
  const names = [...added, "truncated", "error"].map((name) => {
    let free = name;
    for (let number = 2; taken.has(free); number++) {
      free = `${name} ${number}`;
    }
    taken.add(free);
    return free;
  });
  const valuesOf = (outcome, place) => {
    if (!outcome?.scores) {
      return added.map(() => "");
    }
    if (isRanking) {
      return [ranks.get(place) ?? "", outcome.scores[0].score];
    }
    const scores = new Map(outcome.scores.map(({ label, score }) => [label, score]));
    const label = labelOf(outcome);
    return [label, scores.get(label), ...labels.map((each) => scores.get(each) ?? "")];
  };
  const problemOf = (outcome) => outcome === undefined ? "not sent" : outcome?.error?.message ?? "";
  yield [...header, ...names];
  for (const [place, row] of rows.entries()) {
    const outcome = outcomes[place];
    const cells = header.map((_, column) => row[column] ?? "");
    yield [...cells, ...valuesOf(outcome, place), outcome?.scores ? String(Boolean(outcome.isCut)) : "", problemOf(outcome)];
  }
}
