// Talking to the gateway, and bringing its errors into words.

import { $ } from "./dom.js";

export const accounts = new URL("client/v4/accounts/", document.baseURI).href;

/** What is said of the codes of the API. */
const WORDS = {
  3003: "The gateway could not read the request.",
  3006: "The texts are too long together. Send fewer or shorter ones.",
  3007: "The answer took too long. Try again, or send fewer texts.",
  3021: "This account has sent as many texts as it may in a minute.",
  3040: "The gateway has too much to do at the moment.",
  3050: "The models cannot be reached at the moment: the server is starting, or stopping.",
  5006: "The gateway does not accept this request.",
  5007: "This model is not served any more. The list has been read again: choose another one.",
  6003: "The gateway could not read the token. Paste it again.",
  7002: "The gateway keeps no logs of requests.",
  8007: "The model could not score these texts.",
  10000: "The token is not known here. Check that all of it was pasted.",
  10013: "The gateway has failed. Its log says why.",
};
const OTHER_ACCOUNT = "The token is good for another account. Enter the account id that it was made for.";
const SEVERAL = { contexts: "contexts", requests: "texts" };

/** What went wrong: a sentence for people, and what the API said. */
export class Failure extends Error {
  /**
   * @param {string} sentence for people
   * @param {string} detail the API's own words
   * @param {{code?: number, status?: number, retryAfter?: number}} more `retryAfter` in seconds
   */
  constructor(sentence, detail = "", more = {}) {
    super(sentence);
    this.detail = detail;
    Object.assign(this, more);
  }
}

/** Sends one request with the token; returns the response, whatever its status, or throws a Failure. */
export async function ask(path, options = {}) {
  const url = accounts + encodeURIComponent($("account").value.trim()) + path;
  const headers = { Authorization: `Bearer ${$("token").value.trim()}`, ...options.headers };
  if (!/^[\x21-\x7e]+$/.test($("token").value.trim())) {
    throw new Failure("The token has a character that no token has. Paste it again.");
  }
  try {
    return await fetch(url, { ...options, headers, credentials: "omit", cache: "no-store" });
  } catch (error) {
    if (options.signal?.aborted) {
      throw error;
    }
    throw new Failure("The gateway did not answer. Is it still running?", `${error.name}: ${error.message}`);
  }
}

/** Calls the API; returns the parsed body and the response, or throws a Failure. */
export async function call(path, options = {}) {
  const response = await ask(path, options);
  const body = await response.json().catch(() => null);
  if (!response.ok || body === null || !body.success) {
    $("access").open ||= response.status === 401 || response.status === 403;
    throw explain(response.status, body?.errors?.[0], Number(response.headers.get("retry-after")) || 0);
  }
  return { body, response };
}

/** Brings an error of the API into words; its own ones and the code stay beside them. */
export function explain(status, error, retryAfter = 0) {
  const advice = retryAfter ? ` Try again in ${retryAfter} s.` : "";
  if (!error) {
    return new Failure(`What answered was not the gateway.${advice}`, `HTTP ${status}`, { status, retryAfter });
  }
  const most = /'\/(requests|contexts)' must be <= (\d+)/.exec(error.message);
  let sentence = WORDS[error.code] ?? "The gateway refused the request.";
  if (most) {
    sentence = `At most ${most[2]} ${SEVERAL[most[1]]} go into one request. Remove some.`;
  } else if (error.message.includes("'/query' leaves no room")) {
    sentence = "The query is too long: nothing of a context could be read beside it.";
  } else if (status === 403) {
    sentence = OTHER_ACCOUNT;
  }
  const detail = `${status ? `HTTP ${status}, ` : ""}code ${error.code}: ${error.message}`;
  return new Failure(sentence + advice, detail, { code: error.code, status, retryAfter });
}
