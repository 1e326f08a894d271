"use strict";

// The exporter's report of the chosen model, where the gateway has one.

const reports = new Map(); // name of a model: where its report is, below the account

/** Remembers which models of a list have a report. */
function noteReports(models) {
  for (const { name, properties } of models) {
    const found = properties.find((each) => each.property_id === "report");
    if (found) {
      reports.set(name, `/ai/${found.value}`);
    } else {
      reports.delete(name);
    }
  }
}

function showReport() {
  $("report").hidden = !reports.has($("model").value);
}

/** Saves it as a file: a link cannot send the token, and a page opened from here would have this page's policy. */
async function saveReport() {
  const model = $("model").value;
  const url = accounts + encodeURIComponent($("account").value.trim()) + reports.get(model);
  const headers = { Authorization: `Bearer ${$("token").value.trim()}` };
  try {
    const response = await fetch(url, { headers, credentials: "omit", cache: "no-store" });
    if (!response.ok) {
      throw explain(response.status, (await response.json()).errors[0]);
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await response.blob());
    link.download = `report-${model.replace(/^@/, "").replaceAll("/", "-")}.html`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href)); // after the browser has begun to save it
    showError(null);
  } catch (error) {
    showError(error instanceof Failure ? error : new Failure("The report could not be read. Try again."));
  }
}

$("report").addEventListener("click", saveReport);
