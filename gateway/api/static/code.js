// The tabs with the same request from code.

import { accounts } from "./calls.js";
import { $, counted } from "./dom.js";
import { task } from "./models.js";
import { payload, runPath } from "./sending.js";
import { SNIPPETS } from "./snippets.js";
import { TASKS } from "./tasks.js";
import { firstTexts, textCount } from "./texts.js";

const MOST = 10; // texts in an example

export function showSnippet() {
  const chosen = $("tabs").querySelector('[aria-selected="true"]').id.slice("tab-".length);
  const model = $("model").value || "@cf/huggingface/distilbert-sst-2-int8";
  const texts = firstTexts(MOST);
  const top = $("top").value.trim();
  const given = {
    query: $("query").value,
    texts: texts.length ? texts : task().example,
    top: top && $("top").validity.valid ? Number(top) : null,
  };
  const url = accounts + encodeURIComponent($("account").value.trim() || "ACCOUNT_ID") + runPath(model);
  const isQueued = $("queue").checked;
  const request = {
    url: isQueued ? `${url}?queueRequest=true` : url,
    body: payload(task(), given, isQueued),
    model,
    ...given,
    isRanking: task() === TASKS.rerank,
    isQueued,
  };
  $("snippet").textContent = SNIPPETS[chosen](request).join("\n");
  $("code-note").hidden = textCount() <= MOST;
  $("code-note").textContent = `With the first ${MOST} of your ${counted(textCount())} ${task().several}.`;
}

export function chooseTab(tab) {
  for (const other of $("tabs").children) {
    other.setAttribute("aria-selected", String(other === tab));
    other.tabIndex = other === tab ? 0 : -1;
  }
  $("code").setAttribute("aria-labelledby", tab.id);
  showSnippet();
}

export function moveBetweenTabs(event) {
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

export async function copySnippet() {
  try {
    await navigator.clipboard.writeText($("snippet").textContent);
    $("copy").textContent = "Copied";
  } catch {
    getSelection().selectAllChildren($("snippet")); // no clipboard without HTTPS
    $("copy").textContent = "Selected: press Ctrl + C";
  }
  setTimeout(() => { $("copy").textContent = "Copy"; }, 2000);
}
