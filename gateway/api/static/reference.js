// The API as a page, made from /openapi.json.

import { $, element, folded } from "./dom.js";
import { fieldOf, insideOf, kindOf, resolve, withCode } from "./schema.js";

const METHODS = ["get", "put", "post", "delete", "patch"];
let entries = []; // {words, link, section} of every operation, for the filter

function show(api) {
  $("version").textContent = api.info.version;
  withCode($("about"), api.info.description);
  for (const tag of api.tags) {
    const operations = operationsOf(api).filter(({ operation }) => operation.tags?.includes(tag.name));
    if (operations.length) {
      showTag(api, tag, operations);
    }
  }
  filter();
  // The address may name an operation, which was not there when the page was opened.
  document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

function operationsOf(api) {
  return Object.entries(api.paths).flatMap(([path, item]) => METHODS.filter((method) => item[method]).map((method) => (
    { path, method, operation: item[method], parameters: [...item.parameters ?? [], ...item[method].parameters ?? []] }
  )));
}

function showTag(api, tag, operations) {
  const section = element("section", "tag");
  section.append(element("h2", "", tag.name), withCode(element("p"), tag.description));
  const list = element("ul");
  for (const each of operations) {
    const shown = operationOf(api, each);
    section.append(shown);
    const link = element("a");
    link.href = `#${shown.id}`;
    link.append(element("span", `method ${each.method}`, each.method), breakable(each.path));
    const item = element("li");
    item.append(link);
    list.append(item);
    const words = `${each.method} ${each.path} ${each.operation.summary} ${tag.name}`.toLowerCase();
    entries.push({ words, link: item, section: shown });
  }
  $("index").append(element("h2", "", tag.name), list);
  $("operations").append(section);
}

/** A path that may go on in the next line behind each slash; what most have in front is left out. */
function breakable(path) {
  const shown = element("span");
  path.replace("/client/v4/accounts/{account_id}/", "…/").split("/").forEach((part, place) => {
    shown.append(...(place ? ["/", element("wbr")] : []), part);
  });
  return shown;
}

function operationOf(api, { path, method, operation, parameters }) {
  const shown = element("article", "operation");
  shown.id = operation.operationId ?? `${method}-${path}`;
  const heading = element("h3");
  const anchor = element("a");
  anchor.href = `#${shown.id}`;
  withCode(anchor, operation.summary ?? path);
  heading.append(anchor);
  const place = element("p", "path");
  place.append(element("span", `method ${method}`, method), element("code", "", path));
  shown.append(heading, place);
  if (operation.description) {
    shown.append(withCode(element("p"), operation.description));
  }
  shown.append(withCode(element("p", "help"), securityOf(api, operation.security ?? api.security)));
  if (parameters.length) {
    const list = element("dl", "fields");
    for (const each of parameters) {
      const { value } = resolve(api, each);
      list.append(fieldOf(api, { ...value, description: `In the ${value.in}. ${value.description ?? ""}` }));
    }
    shown.append(element("h4", "", "Parameters"), list);
  }
  if (operation.requestBody) {
    const { value } = resolve(api, operation.requestBody);
    shown.append(element("h4", "", "Request body"), withCode(element("p", "help"), value.description), ...contentOf(api, value.content));
  }
  shown.append(element("h4", "", "Answers"), ...Object.entries(operation.responses).map((each) => answerOf(api, ...each)));
  return shown;
}

function securityOf(api, choices) {
  if (choices.length === 0 || choices.some((each) => Object.keys(each).length === 0)) {
    return "Needs no token.";
  }
  const headerOf = (name) => {
    const scheme = api.components.securitySchemes[name];
    return scheme.type === "http" ? "`Authorization: Bearer`" : `\`${scheme.name}\``;
  };
  return `Needs a token: ${choices.map((each) => Object.keys(each).map(headerOf).join(" with ")).join(", or ")}.`;
}

function answerOf(api, status, response) {
  const { value } = resolve(api, response);
  const summary = element("summary");
  summary.append(element("span", "status", status), " ");
  withCode(summary, value.description);
  return folded(summary, () => [...contentOf(api, value.content), ...headersOf(api, Object.entries(value.headers ?? {}))]);
}

function headersOf(api, headers) {
  const list = element("dl", "fields");
  list.append(...headers.map(([name, header]) => fieldOf(api, { ...resolve(api, header).value, name })));
  return headers.length ? [folded(element("summary", "", `${headers.length} headers`), () => [list])] : [];
}

/** Writes what a body may be: its types, the fields of its schema, and examples. */
function contentOf(api, content = {}) {
  return Object.entries(content).flatMap(([type, { schema, examples, example }]) => {
    const kind = element("p", "help");
    kind.append(element("code", "", type), `: ${kindOf(api, schema)}`);
    const given = { ...examples, ...(example === undefined ? {} : { example: { value: example } }) };
    const shown = Object.entries(given).map(([name, each]) => {
      const { value } = resolve(api, each);
      const box = element("pre", "example");
      box.append(element("code", "", typeof value.value === "string" ? value.value : JSON.stringify(value.value, null, 2)));
      return folded(element("summary", "", `Example: ${value.summary ?? name.replaceAll("_", " ")}`), () => [box]);
    });
    return [kind, ...insideOf(api, schema), ...shown];
  });
}

/** Shows the operations which have all of the words. */
function filter() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const { words: known, link, section } of entries) {
    const fits = words.every((word) => known.includes(word));
    link.hidden = section.hidden = !fits;
    count += fits ? 1 : 0;
  }
  for (const heading of $("index").querySelectorAll("h2")) {
    heading.hidden = !heading.nextElementSibling.querySelector("li:not([hidden])");
  }
  for (const tag of document.querySelectorAll(".tag")) {
    tag.hidden = !tag.querySelector(".operation:not([hidden])");
  }
  $("found").textContent = `${count} ${count === 1 ? "operation" : "operations"}`;
}

async function start() {
  const response = await fetch("openapi.json", { credentials: "omit" }).catch(() => null);
  const api = response?.ok ? await response.json().catch(() => null) : null;
  if (api) {
    show(api);
  } else {
    $("problem").textContent = "The description of the API could not be read. Reload the page.";
    $("problem").hidden = false;
  }
}

$("filter").addEventListener("input", filter);
start();
