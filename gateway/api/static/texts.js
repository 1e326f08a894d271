// Where the texts come from: the field, or a column of a file.

import { Failure } from "./calls.js";
import { decode, delimiterOf, parse } from "./csv.js";
import { $, counted } from "./dom.js";

const MOST_BYTES = 50 * 1024 * 1024;
const DELIMITER_NAMES = { ",": "comma", ";": "semicolon", "\t": "tab", "|": "bar" };
const USUAL_NAMES = ["text", "texts", "sentence", "review", "comment", "message", "content", "body", "context"];

let file = null; // {name, note, rows} of the file that was opened

/** The texts to send: {texts, header, rows}; row `i` is what `texts[i]` came from. Empty texts are kept. */
export function given() {
  if (file) {
    const rows = $("header").checked ? file.rows.slice(1) : file.rows;
    const column = Number($("column").value);
    return { texts: rows.map((row) => row[column] ?? ""), header: headerOf(file.rows), rows, name: file.name };
  }
  const texts = written();
  return { texts, header: ["text"], rows: texts.map((text) => [text]), name: "texts" };
}

/** Only some texts, for examples; a file of 50 MB is not walked through at every key. */
export function firstTexts(most) {
  if (!file) {
    return written().slice(0, most);
  }
  const column = Number($("column").value);
  const skipped = $("header").checked ? 1 : 0;
  return file.rows.slice(skipped, skipped + most).map((row) => row[column] ?? "").filter((text) => text.trim());
}

/** How many there are. */
export function textCount() {
  return file ? file.rows.length - ($("header").checked ? 1 : 0) : written().length;
}

function written() {
  const value = $("texts").value.replace(/\r\n?/g, "\n");
  const parts = value.split($("lines").checked ? "\n" : /\n[^\S\n]*\n/);
  return parts.map((part) => part.replace(/^\s*\n|\s+$/g, "")).filter((part) => part.trim());
}

/** Reads a file that was chosen, and shows what was found; throws a Failure that says what is wrong with it. */
export async function openFile(chosen) {
  if (chosen.size > MOST_BYTES) {
    throw new Failure("The file is larger than 50 MB. Split it, or send its texts with the API.");
  }
  const { text, encoding } = decode(new Uint8Array(await chosen.arrayBuffer()));
  const isPlain = /\.(txt|text)$/i.test(chosen.name);
  const delimiter = isPlain ? "\n" : delimiterOf(text);
  const rows = isPlain ? linesOf(text) : parse(text, delimiter);
  if (!rows.some((row) => row.some((cell) => cell.trim()))) {
    throw new Failure("The file has no text in it.");
  }
  const separated = isPlain ? "a text on each line" : `separated by ${DELIMITER_NAMES[delimiter]}`;
  file = { name: chosen.name.replace(/\.[^.]*$/, ""), rows, note: `${chosen.name}: ${separated}, ${encoding}` };
  $("header").checked = !isPlain && looksLikeHeader(rows);
  showColumns(bestColumn(rows));
  showSource();
}

export function closeFile() {
  file = null;
  $("file").value = "";
  showSource();
}

/** Names the columns anew after the choice of a header was changed. */
export function renameColumns() {
  showColumns(Number($("column").value));
  showCount();
}

function linesOf(text) {
  const lines = text.replace(/^\ufeff/, "").split(/\r\n|\r|\n/);
  if (lines.at(-1) === "") {
    lines.pop();
  }
  return lines.map((line) => [line]);
}

function headerOf(rows) {
  const width = rows.reduce((most, row) => Math.max(most, row.length), 0);
  const names = $("header").checked ? rows[0] : [];
  return Array.from({ length: width }, (_, place) => names[place]?.trim() || `column ${place + 1}`);
}

function looksLikeHeader(rows) {
  const [first] = rows;
  const isDistinct = new Set(first.map((cell) => cell.trim())).size === first.length;
  return rows.length > 1 && isDistinct && first.every((cell) => cell.trim() && cell.length <= 40 && !/^[\d.,-]+$/.test(cell));
}

/** The column with a usual name, else the one with the longest cells. */
function bestColumn(rows) {
  const names = $("header").checked ? rows[0].map((name) => name.trim().toLowerCase()) : [];
  const usual = USUAL_NAMES.map((name) => names.indexOf(name)).find((place) => place >= 0);
  if (usual !== undefined) {
    return usual;
  }
  const lengths = [];
  for (const row of rows.slice(names.length ? 1 : 0, 200)) {
    row.forEach((cell, place) => { lengths[place] = (lengths[place] ?? 0) + cell.length; });
  }
  return lengths.reduce((best, length, place) => (length > lengths[best] ? place : best), 0);
}

function showColumns(chosen) {
  $("column").replaceChildren(...headerOf(file.rows).map((name, place) => new Option(name, place, false, place === chosen)));
}

function showSource() {
  $("written").hidden = file !== null;
  $("opened").hidden = file === null;
  $("texts-help").hidden = file !== null;
  $("opened-name").textContent = file?.note ?? "";
  showCount();
}

/** Says how many texts there are. */
export function showCount() {
  const count = textCount();
  const isOneOfMany = !file && count === 1 && written()[0].includes("\n");
  const hint = isOneOfMany ? " of several lines" : "";
  $("count").textContent = `${counted(count)} ${count === 1 ? "text" : "texts"}${hint}.`;
}
