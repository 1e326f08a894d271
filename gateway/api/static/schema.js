// Writing JSON Schemas of an OpenAPI document for people.

import { counted, element, folded } from "./dom.js";

const DEEPEST = 6; // schemas in schemas; those below are in the JSON
const BOUNDS = {
  minLength: (value) => `at least ${counted(value)} ${value === 1 ? "character" : "characters"}`,
  maxLength: (value) => `at most ${counted(value)} characters`,
  minItems: (value) => `at least ${counted(value)}`,
  maxItems: (value) => (value === 0 ? "empty" : `at most ${counted(value)}`),
  minimum: (value) => `from ${value}`,
  maximum: (value) => `up to ${value}`,
  pattern: (value) => `matches ${value}`,
  default: (value) => `${JSON.stringify(value)} unless given`,
};

/** Follows references into the document; returns {value, name}, where the name is that of the last one. */
export function resolve(document, value) {
  let name = null;
  for (let hops = 0; value?.$ref && hops < 10; hops++) {
    const steps = value.$ref.split("/").slice(1).map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"));
    name = steps.at(-1);
    value = steps.reduce((place, step) => place?.[step], document);
  }
  return { value: value !== null && typeof value === "object" ? value : {}, name }; // a schema may be true or false
}

/** Adds text to an element, with what stands between backticks as code. */
export function withCode(parent, text) {
  (text ?? "").split("`").forEach((part, place) => {
    if (part) {
      parent.append(place % 2 ? element("code", "", part) : part);
    }
  });
  return parent;
}

/** Names the kind of value in a few words, as `list of Score`. */
export function kindOf(document, schema) {
  if (schema === true || schema === undefined) {
    return "any";
  }
  if (schema === false) {
    return "not allowed";
  }
  const { value, name } = resolve(document, schema);
  if ("const" in value) {
    return JSON.stringify(value.const);
  }
  if (value.enum) {
    return value.enum.map((each) => JSON.stringify(each)).join(" or ");
  }
  const choices = value.oneOf ?? value.anyOf;
  if (choices && !value.properties) {
    return [...new Set(choices.map((each) => kindOf(document, each)))].join(" or ");
  }
  const types = [value.type ?? (value.properties ? "object" : "any")].flat();
  const words = types.map((type) => type === "array" ? `list of ${kindOf(document, value.items)}` : type);
  const kind = words.join(" or ");
  return name && (kind === "object" || kind === "any") ? name : value.format ? `${kind} (${value.format})` : kind;
}

/** Writes what is inside a schema: the fields of an object, or of each object that a list or a choice has. */
export function insideOf(document, schema, above = []) {
  const { value, name } = resolve(document, schema);
  if (above.length > DEEPEST || name && above.includes(name)) {
    return [];
  }
  const path = name ? [...above, name] : [...above, ""];
  if (value.items) {
    return insideOf(document, value.items, path);
  }
  const parts = (value.allOf ?? []).flatMap((each) => insideOf(document, each, path));
  if (value.properties) {
    parts.push(fieldsOf(document, value, path));
  }
  for (const choice of value.oneOf ?? value.anyOf ?? []) {
    const { value: chosen } = resolve(document, choice);
    if (chosen.properties || chosen.items || chosen.oneOf || chosen.anyOf || chosen.allOf) {
      const about = chosen.description ? [withCode(element("p", "help"), chosen.description)] : [];
      const summary = element("summary", "", kindOf(document, choice));
      parts.push(folded(summary, () => [...about, ...insideOf(document, choice, path)]));
    }
  }
  return parts;
}

function fieldsOf(document, schema, path) {
  const list = element("dl", "fields");
  for (const [name, property] of Object.entries(schema.properties)) {
    list.append(fieldOf(document, { name, schema: property, required: schema.required?.includes(name) }, path));
  }
  return list;
}

/** Writes one field of an object, or one parameter or header: {name, schema, required, description}. */
export function fieldOf(document, { name, schema, required, description }, path = []) {
  const row = element("div");
  const term = element("dt");
  term.append(element("code", "", name), element("span", "kind", kindOf(document, schema)));
  if (required) {
    term.append(element("span", "must", "required"));
  }
  const { value } = resolve(document, schema);
  const about = element("dd");
  withCode(about, description ?? value.description);
  const bounds = Object.entries(BOUNDS).filter(([key]) => key in value).map(([key, words]) => words(value[key]));
  if (bounds.length) {
    about.append(about.textContent ? " " : "", element("span", "", `(${bounds.join(", ")})`));
  }
  about.append(...insideOf(document, schema, path));
  row.append(term, about);
  return row;
}
