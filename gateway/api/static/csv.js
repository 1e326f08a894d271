// Tables as text: RFC 4180 with what spreadsheets make of it.

import { Failure } from "./calls.js";

const DELIMITERS = [",", ";", "\t", "|"];
const SAMPLE = 64 * 1024; // characters that are looked at to find the delimiter
const PART = 1_000_000; // characters of a file that are written together, at least
const NUMBER = /^[+-]?(\d+([.,]\d+)*|\d*[.,]\d+)([eE][+-]?\d+)?(\s?%)?$/;

/** Decodes a file: UTF-16 by its mark, else UTF-8, else Windows' Latin 1. Returns {text, encoding}. */
export function decode(bytes) {
  const marks = { "255,254": "utf-16le", "254,255": "utf-16be" };
  const marked = marks[`${bytes[0]},${bytes[1]}`];
  if (marked) {
    return { text: new TextDecoder(marked).decode(bytes), encoding: "UTF-16" };
  }
  try {
    return { text: new TextDecoder("utf-8", { fatal: true }).decode(bytes), encoding: "UTF-8" };
  } catch {
    return { text: new TextDecoder("windows-1252").decode(bytes), encoding: "Windows-1252" };
  }
}

/** Finds the delimiter which splits the most rows into the same number of cells. */
export function delimiterOf(text) {
  const sample = text.slice(0, SAMPLE);
  const grade = (delimiter) => {
    const rows = [...rowsOf(sample, delimiter)].slice(0, text.length > SAMPLE ? -1 : undefined);
    const widths = new Map();
    for (const row of rows) {
      widths.set(row.length, (widths.get(row.length) ?? 0) + 1);
    }
    const [width, rowsOfIt] = [...widths].sort((a, b) => b[1] - a[1])[0] ?? [1, 0];
    return width > 1 ? rowsOfIt / rows.length : 0;
  };
  const grades = DELIMITERS.map((delimiter) => [grade(delimiter), delimiter]);
  return grades.reduce((best, each) => (each[0] > best[0] ? each : best))[1];
}

/** Parses all of a file into rows of cells, or throws a Failure. */
export function parse(text, delimiter) {
  const rows = [];
  for (const row of rowsOf(text, delimiter)) {
    if (row.isOpen) {
      throw new Failure(`The quotation mark that opens a cell of row ${rows.length + 1} has no end.`);
    }
    rows.push(row);
  }
  return rows;
}

/** Yields one row after the other; a last one whose quotation mark has no end has `isOpen`. */
function* rowsOf(text, delimiter) {
  const special = new RegExp(`${delimiter === "|" ? "\\|" : delimiter}|\\r\\n|\\r|\\n`, "g");
  let row = [];
  let place = text.charCodeAt(0) === 0xfeff ? 1 : 0;
  while (place < text.length) {
    let cell = "";
    if (text[place] === '"') {
      let end = place + 1;
      for (;;) {
        const quote = text.indexOf('"', end);
        if (quote < 0) {
          row.push(cell + text.slice(end));
          row.isOpen = true;
          yield row;
          return;
        }
        cell += text.slice(end, quote);
        end = quote + 1;
        if (text[end] !== '"') {
          break;
        }
        cell += '"';
        end += 1;
      }
      place = end;
    }
    special.lastIndex = place;
    const found = special.exec(text);
    row.push(cell + text.slice(place, found?.index ?? text.length)); // what follows a closing mark stays
    place = found ? special.lastIndex : text.length;
    if (found?.[0] !== delimiter) {
      yield row;
      row = [];
    } else if (place === text.length) {
      row.push("");
    }
  }
  if (row.length > 0) {
    yield row;
  }
}

/**
 * Writes rows as CSV for spreadsheets: a mark of UTF-8 in front, CRLF, quotation marks where needed.
 *
 * Yields the file in parts, of many rows each: a large one is longer than a string may be.
 */
export function* format(rows) {
  const cellOf = (value) => {
    const cell = typeof value === "number" ? String(value) : harmless(String(value ?? ""));
    return /[",;\t\r\n]|^\s|\s$/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
  };
  // One empty cell alone would be an empty line, which many readers skip.
  const lineOf = (row) => (row.length === 1 && row[0] === "" ? '""' : row.map(cellOf).join(","));
  let part = "\ufeff";
  for (const row of rows) {
    part += `${lineOf(row)}\r\n`;
    if (part.length > PART) {
      yield part;
      part = "";
    }
  }
  yield part;
}

/** Keeps a spreadsheet from running a cell as a formula: an apostrophe in front, except before numbers. */
export function harmless(cell) {
  return /^[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/.test(cell) && !NUMBER.test(cell) ? `'${cell}` : cell;
}
