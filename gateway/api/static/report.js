// The exporter's report of the chosen model, where the gateway has one.

import { ask, explain } from "./calls.js";
import { $, saveAs } from "./dom.js";
import { reportOf } from "./models.js";

/** Saves it as a file: a link cannot send the token, and a page opened from here would have this page's policy. */
export async function saveReport() {
  const model = $("model").value;
  const response = await ask(`/ai/${reportOf(model)}`);
  if (!response.ok) {
    throw explain(response.status, (await response.json().catch(() => null))?.errors?.[0]);
  }
  saveAs(await response.blob(), `report-${model.replace(/^@/, "").replaceAll("/", "-")}.html`);
}
