// Small helpers that every part of the page shares.

export const $ = (id) => document.getElementById(id);

/** Makes an element; its text is never read as HTML. */
export function element(name, className = "", text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

/** Makes a part that is folded; what is in it is made when it is opened for the first time. */
export function folded(summary, fill) {
  const made = element("details");
  made.append(summary);
  made.addEventListener("toggle", () => made.append(...fill()), { once: true });
  return made;
}

/** Writes a number with separators between thousands. */
export const counted = (number) => number.toLocaleString("en");

/** Lets a click be followed by the next frame before `work` keeps the page busy. */
export const nextTask = () => new Promise((done) => setTimeout(done));

/** Saves a blob as a file of the browser. */
export function saveAs(blob, name) {
  const link = element("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000); // long after the browser has begun to save it
}
