// The list of models, and what is known of the one that is chosen.

import { call } from "./calls.js";
import { $, counted, element } from "./dom.js";
import { TASKS, taskOf } from "./tasks.js";

const PROPERTY_NAMES = { max_input_tokens: "Reads up to", precision: "Precision", info: "Checkpoint", version: "Version" };
const MOST_LABELS = 40; // that the card lists
const records = new Map(); // what the list says of each model
const schemas = new Map(); // of the models that were chosen so far
let newest = 0; // the list that was asked for last
let loadedAt = 0;

export const task = () => TASKS[schemas.has($("model").value) ? taskOf(schemas.get($("model").value)) : "classification"];

/** Inputs that one request to the chosen model may have. */
export const mostInputs = () => task().most(schemas.get($("model").value)?.input);

/** Tokens that the chosen model reads of one text, or null. */
export const readTokens = () => Number(propertiesOf($("model").value).max_input_tokens) || null;

/** Where the exporter's report of a model is, relative to `…/ai/`; undefined if it has none. */
export const reportOf = (name) => propertiesOf(name).report;

/** Milliseconds since the list was read. */
export const listAge = () => performance.now() - loadedAt;

/** Reads the list again; returns whether it is the newest one, so that its outcome may be shown. */
export async function loadModels() {
  const mine = ++newest;
  if (!$("token").value.trim()) {
    showModels([], "Enter a token to see the models");
    return false;
  }
  let found;
  try {
    found = await listModels();
  } catch (error) {
    if (mine !== newest) {
      return false;
    }
    showModels([], "No models: see the message");
    throw error;
  }
  if (mine !== newest) {
    return false;
  }
  loadedAt = performance.now();
  records.clear();
  schemas.clear(); // a new version may have other labels
  found.forEach((record) => records.set(record.name, record));
  showModels([...records.keys()]);
  return true;
}

/** Asks for page after page until one is empty. */
async function listModels() {
  const found = [];
  for (let page = 1; ; page++) {
    const { body } = await call(`/ai/models/search?task=Text%20Classification&page=${page}`);
    if (body.result.length === 0) {
      return found;
    }
    found.push(...body.result);
  }
}

/** Finds out what the chosen model is for. */
export async function learnModel() {
  const model = $("model").value;
  if (model && !schemas.has(model)) {
    const { body } = await call(`/ai/models/schema?model=${encodeURIComponent(model)}`);
    schemas.set(model, body.result);
  }
}

function showModels(names, instead = "No model is served") {
  const before = $("model").value;
  const shown = names.length ? names : [""];
  $("model").replaceChildren(...shown.map((name) => new Option(name || instead, name, false, name === before)));
  $("model").disabled = names.length === 0;
  $("access-state").textContent = names.length ? "– token accepted" : "";
}

function propertiesOf(name) {
  const list = records.get(name)?.properties ?? [];
  return Object.fromEntries(list.map(({ property_id, value }) => [property_id, value]));
}

/** Shows what the list and the schema say of the chosen model. */
export function showCard() {
  const record = records.get($("model").value);
  $("card").hidden = !record;
  if (!record) {
    return;
  }
  $("report").hidden = !reportOf(record.name);
  $("description").textContent = record.description ?? "";
  const labels = schemas.get(record.name)?.output.items?.properties?.label?.enum ?? [];
  const facts = Object.entries(propertiesOf(record.name))
    .filter(([id, value]) => id !== "report" && typeof value !== "object")
    .map(([id, value]) => [
      PROPERTY_NAMES[id] ?? id.replaceAll("_", " "),
      id === "max_input_tokens" ? `${counted(Number(value))} tokens of a text` : value,
    ]);
  if (labels.length) {
    const rest = labels.length > MOST_LABELS ? ` and ${counted(labels.length - MOST_LABELS)} more` : "";
    facts.unshift([`${counted(labels.length)} labels`, labels.slice(0, MOST_LABELS).join(", ") + rest]);
  }
  if (record.created_at) {
    facts.push(["Published", record.created_at.replace(/\.\d+$/, "")]);
  }
  $("facts").replaceChildren(...facts.map(([name, value]) => {
    const row = element("div");
    row.append(element("dt", "", name), element("dd", "", value));
    return row;
  }));
}
